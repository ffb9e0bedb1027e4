"""Stage annotate: output-to-reasoning, from the ground truth to a tagged response.

Writes expressions for the ground truth of every training and validation sample, puts each through the segmenter, keeps
the IoU as `consistency`, rewrites what does not find its mask again and sets aside what never does.

    python stages/annotate.py

Reads artifacts/download/ and the section `annotate` of params.yaml; writes artifacts/annotate/.
"""

from dataclasses import asdict
from pathlib import Path

import polars as pl

from saliency_r1 import annotation, segmenter, tasks
from saliency_r1.files import atomic_folder
from saliency_r1.params import Params
from saliency_r1.stage import prepare_torch, progress, run_stage

DOWNLOAD = Path("artifacts/download")


def main(params: Params) -> None:
    """Annotate the splits that the parameters name."""
    device, dtype = prepare_torch(params.runtime, params.seed)
    options = params.annotate
    samples = pl.read_parquet(DOWNLOAD / "table.parquet").filter(pl.col("split").is_in(options.splits))
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
    rows = [asdict(one) for one in progress(annotations, len(samples), "annotate")]
    table = samples.select("sample_id", "task", "dataset", "split").with_columns(
        instruction=pl.col("task").replace_strict({name: task.instruction for name, task in tasks.TASKS.items()})
    )
    table = table.join(pl.DataFrame(rows), on="sample_id", how="left", maintain_order="left", validate="1:1")
    with atomic_folder("artifacts/annotate") as folder:
        table.write_parquet(folder / "table.parquet")
    kept = int(table["kept"].sum())
    print(f"{kept} of {len(table)} annotations kept, {len(table) - kept} set aside; ", end="")
    print(f"mean consistency {rows and sum(row['consistency'] for row in rows) / len(rows):.3f}")


if __name__ == "__main__":
    run_stage(main)
