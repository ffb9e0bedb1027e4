"""Stage annotate: output-to-reasoning, from the ground truth to a tagged response.

Writes expressions for the ground truth of training and validation samples, puts each through the segmenter, keeps
the IoU as `consistency`, rewrites what does not find its mask again and sets aside what never does.

    python stages/annotate.py

Annotations are kept part by part in runs/annotate/, so that a killed run goes on; a second run beside the first waits
for it and pays for nothing twice.

Reads artifacts/download/ and the section `annotate` of params.yaml; writes artifacts/annotate/.
"""

from dataclasses import asdict
from pathlib import Path

import own_tree  # noqa: F401
import polars as pl

from saliency_r1 import annotation, segmenter
from saliency_r1.data.table import subset
from saliency_r1.params import Params
from saliency_r1.runtime.files import atomic_folder, held, write_json
from saliency_r1.runtime.keys import run_key, stage_code
from saliency_r1.runtime.parts import Parts, keep_only
from saliency_r1.runtime.stage import prepare_torch, progress, run_stage
from saliency_r1.runtime.versions import write_versions

DOWNLOAD = Path("artifacts/download")
RUNS = Path("runs/annotate")


def main(params: Params) -> None:
    """Annotate the splits that the parameters name."""
    RUNS.mkdir(parents=True, exist_ok=True)
    with held(RUNS / ".lock"):
        _annotate(params)


def _annotate(params: Params) -> None:
    device, dtype = prepare_torch(params.runtime, params.seed)
    options = params.annotate
    samples = subset(pl.read_parquet(DOWNLOAD / "table.parquet"), options.splits, options.limit)
    rows = samples.to_dicts()
    parts = Parts(runs(params), len(rows), together(params))
    if missing := parts.missing():
        annotator = annotation.load(options, RUNS / "answers", device, dtype)
        judge = segmenter.load(DOWNLOAD / "models/segmenter", device, dtype, **params.segmenter.model_dump())
        for number in progress(missing, label=f"annotate, {parts.size} samples each"):
            own = parts.of(rows, number)
            made = annotation.annotate(
                own, DOWNLOAD, annotator, judge, options.threshold, options.attempts, params.seed, len(own)
            )
            with parts.writing(number) as folder:
                write_json(folder / "annotations.json", [asdict(one) for one in made])
    table = annotation.tabulate(samples, annotation.read_parts([parts.path(number) for number in parts.numbers]))
    with atomic_folder("artifacts/annotate") as folder:
        table.write_parquet(folder / "table.parquet")
        write_versions(folder)
    keep_only([parts.folder, RUNS / "answers"])
    kept, consistency = table.select(pl.sum("kept"), pl.mean("consistency")).row(0)
    print(f"{kept} of {len(table)} annotations kept, {len(table) - kept} set aside; mean consistency {consistency:.3f}")


def together(params: Params) -> int:
    """How many samples are written together: as many as a server takes at once, four times over.

    The next ones wait for the slowest of these.
    """
    asked = 4 * params.annotate.endpoint.concurrency if params.annotate.annotator == "openai" else 0
    return max(params.segmenter.batch_images, asked)


def runs(params: Params) -> Path:
    """Where annotations are kept: under a hash of what decides them."""
    settings = params.result_settings("seed", "runtime", "segmenter", "annotate")
    inputs = [DOWNLOAD / "report.json", DOWNLOAD / "table.parquet", DOWNLOAD / "models/segmenter"]
    return RUNS / run_key(settings | {"together": together(params)}, inputs, stage_code("annotate"))


if __name__ == "__main__":
    run_stage(main)
