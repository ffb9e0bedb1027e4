"""Stage masks: greedy answers and their masks for every sample of a split, by the base, the SFT and the CGPO model.

    python stages/masks.py

Reads artifacts/download/, the adapters of artifacts/sft/ and artifacts/cgpo/ and the section `masks` of params.yaml;
writes artifacts/masks/: maps/<model>/<dataset>/<name>.png (8-bit, as the field's toolboxes read them),
instances/<model>/<dataset>.json (COCO results) and table.parquet.
"""

from collections.abc import Iterator
from pathlib import Path

import own_tree  # noqa: F401
import polars as pl

from saliency_r1.params import Params
from saliency_r1.policy import Policy
from saliency_r1.prediction.split import Written, predict_split, write_instances, write_prediction
from saliency_r1.rollout.environment import Environment, Row
from saliency_r1.runtime import processes
from saliency_r1.runtime.stage import prepare_torch, progress, run_stage
from saliency_r1.runtime.versions import write_versions

DOWNLOAD = Path("artifacts/download")
ADAPTERS = {"base": None, "sft": Path("artifacts/sft/adapter"), "cgpo": Path("artifacts/cgpo/adapter")}


def main(params: Params) -> None:
    """Predict with every model that the parameters name."""
    device, dtype = prepare_torch(params.runtime, params.seed)
    options = params.masks
    table = pl.read_parquet(DOWNLOAD / "table.parquet")
    samples: list[Row] = list(table.filter(split=options.split).to_dicts())
    environment = Environment.load(params, DOWNLOAD, device, dtype)
    with processes.shared_folder("artifacts/masks") as folder:
        written: list[Written] = []
        for model in options.models:
            policy = Policy.load(
                DOWNLOAD / "models/policy", ADAPTERS[model], device=device, dtype=dtype, **params.policy.loading
            )

            def predict(own: list[Row], model: str = model, policy: Policy = policy) -> Iterator[Written]:
                answers = predict_split(policy, environment, own, options.batch_size)
                for answer in progress(answers, len(own), f"masks of {model}"):
                    yield write_prediction(folder, model, answer, options.score)

            written += processes.map_sharded(samples, predict)
        if processes.is_main():
            write_instances(folder, written)
            write_versions(folder)
            pl.DataFrame([one.row for one in written], infer_schema_length=None).write_parquet(folder / "table.parquet")


if __name__ == "__main__":
    run_stage(main)
