"""Stage annotate: output-to-reasoning, from the ground truth to a tagged response.

Writes expressions for the ground truth of training and validation samples, puts each through the segmenter, keeps
the IoU as `consistency`, rewrites what does not find its mask again and sets aside what never does.

    python stages/annotate.py

Reads artifacts/download/ and the section `annotate` of params.yaml; writes artifacts/annotate/.
"""

from pathlib import Path

import own_tree  # noqa: F401
import polars as pl

from saliency_r1 import annotation, segmenter
from saliency_r1.data.table import subset
from saliency_r1.params import Params
from saliency_r1.runtime.files import atomic_folder
from saliency_r1.runtime.stage import prepare_torch, progress, run_stage
from saliency_r1.runtime.versions import write_versions

DOWNLOAD = Path("artifacts/download")


def main(params: Params) -> None:
    """Annotate the splits that the parameters name."""
    device, dtype = prepare_torch(params.runtime, params.seed)
    options = params.annotate
    samples = subset(pl.read_parquet(DOWNLOAD / "table.parquet"), options.splits, options.limit)
    annotations = annotation.annotate(
        samples.to_dicts(),
        DOWNLOAD,
        annotation.load(options, Path("runs/annotate/answers"), device, dtype),
        segmenter.load(DOWNLOAD / "models/segmenter", device, dtype, **params.segmenter.model_dump()),
        options.threshold,
        options.attempts,
        params.seed,
        params.segmenter.batch_images,
    )
    table = annotation.tabulate(samples, progress(annotations, len(samples), "annotate"))
    with atomic_folder("artifacts/annotate") as folder:
        table.write_parquet(folder / "table.parquet")
        write_versions(folder)
    kept, consistency = table.select(pl.sum("kept"), pl.mean("consistency")).row(0)
    print(f"{kept} of {len(table)} annotations kept, {len(table) - kept} set aside; mean consistency {consistency:.3f}")


if __name__ == "__main__":
    run_stage(main)
