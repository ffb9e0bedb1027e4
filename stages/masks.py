"""Stage masks: greedy answers and their masks for every sample of a split, by the base, the SFT and the CGPO model.

    python stages/masks.py

Reads artifacts/download/, the adapters of artifacts/sft/ and artifacts/cgpo/ and the section `masks` of params.yaml;
writes artifacts/masks/: maps/<model>/<dataset>/<name>.png (8-bit, as the field's toolboxes read them),
instances/<model>/<dataset>.json (COCO results) and table.parquet.
"""

from pathlib import Path

import polars as pl

from saliency_r1.files import atomic_folder
from saliency_r1.params import Params
from saliency_r1.policy import Policy
from saliency_r1.predictions import predict_split, write_predictions
from saliency_r1.stage import prepare_torch, progress, run_stage
from saliency_r1.training.rollouts import Environment

DOWNLOAD = Path("artifacts/download")
ADAPTERS = {"base": None, "sft": Path("artifacts/sft/adapter"), "cgpo": Path("artifacts/cgpo/adapter")}


def main(params: Params) -> None:
    """Predict with every model that the parameters name."""
    device, dtype = prepare_torch(params.runtime, params.seed)
    options = params.masks
    samples = pl.read_parquet(DOWNLOAD / "table.parquet").filter(pl.col("split") == options.split).to_dicts()
    environment = Environment.load(params, DOWNLOAD, device, dtype)
    rows = []
    with atomic_folder("artifacts/masks") as folder:
        for model in options.models:
            policy = Policy.load(
                DOWNLOAD / "models/policy", ADAPTERS[model], device=device, dtype=dtype, **params.policy.loading
            )
            predictions = predict_split(policy, environment, samples, options.batch_size)
            answered = list(progress(predictions, len(samples), f"masks of {model}"))
            rows += write_predictions(folder, model, answered, options.score)
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "table.parquet")


if __name__ == "__main__":
    run_stage(main)
