"""Stage masks: greedy answers and their masks for every sample of a split, by the base, the SFT and the CGPO model.

    python stages/masks.py

Reads artifacts/download/, the adapters of artifacts/sft/ and artifacts/cgpo/ and the section `masks` of params.yaml;
writes artifacts/masks/: maps/<model>/<dataset>/<name>.png (8-bit, as the field's toolboxes read them),
instances/<model>/<dataset>.json (COCO results) and table.parquet.

Answers are kept batch by batch in runs/masks/, so that a killed run goes on, and a new CGPO adapter does not make the
base and the SFT model answer again.
"""

from pathlib import Path

import own_tree  # noqa: F401
import polars as pl

from saliency_r1.params import Params
from saliency_r1.policy.adapters import Policies
from saliency_r1.prediction.split import answers, assemble, write_part
from saliency_r1.rollout.environment import Environment, Row
from saliency_r1.runtime import processes
from saliency_r1.runtime.files import atomic_folder
from saliency_r1.runtime.keys import run_key
from saliency_r1.runtime.parts import Parts, keep_only
from saliency_r1.runtime.stage import prepare_torch, progress, run_stage
from saliency_r1.runtime.versions import write_versions

DOWNLOAD = Path("artifacts/download")
ADAPTERS = {"base": None, "sft": Path("artifacts/sft/adapter"), "cgpo": Path("artifacts/cgpo/adapter")}


def main(params: Params) -> None:
    """Predict with every model that the parameters name."""
    device, dtype = prepare_torch(params.runtime, params.seed)
    options = params.masks
    samples: list[Row] = list(pl.read_parquet(DOWNLOAD / "table.parquet").filter(split=options.split).to_dicts())
    environment = Environment.load(params, DOWNLOAD, device, dtype)
    policies = Policies(DOWNLOAD / "models/policy", device=device, dtype=dtype, **params.policy.loading)
    kept = {model: Parts(runs(params, model), len(samples), options.batch_size) for model in options.models}
    for model, parts in kept.items():
        if not (missing := parts.missing()):
            print(f"masks of {model}: as they were, nothing that decides them has changed")
            continue
        with policies.using(ADAPTERS[model]) as policy:
            for number in progress(missing, label=f"masks of {model}, parts"):
                with parts.writing(number) as folder:
                    write_part(folder, model, answers(policy, environment, parts.of(samples, number)), options.score)
        processes.wait()
    if not processes.is_main():
        return
    with atomic_folder("artifacts/masks") as folder:
        rows = assemble(folder, [parts.path(number) for parts in kept.values() for number in parts.numbers])
        write_versions(folder)
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "table.parquet")
    keep_only([parts.folder for parts in kept.values()])


def runs(params: Params, model: str) -> Path:
    """Where the answers of a model are kept: under a hash of what decides them, its adapter among it."""
    settings = params.result_settings("seed", "runtime", "policy", "segmenter", "rewards", "masks")
    inputs = [DOWNLOAD / "report.json", DOWNLOAD / "table.parquet", DOWNLOAD / "models"]
    adapter = ADAPTERS[model]
    key = run_key(settings | {"masks": settings["masks"] | {"models": model}}, inputs + ([adapter] if adapter else []))
    return Path("runs/masks") / f"{model}-{key}"


if __name__ == "__main__":
    run_stage(main)
