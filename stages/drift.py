"""Is today's data like that of the champion? `python stages/drift.py runs/models/<commit>`.

Not a stage of the graph: who is champion is a matter of the day. Writes records/drift.json, which a night commits, and
ends with exit code 1 where something moved and `drift.stop` is set.
"""

import sys
from pathlib import Path

import own_tree  # noqa: F401
import polars as pl

from saliency_r1.data.describe import describe, drift
from saliency_r1.params import Params
from saliency_r1.registry.package import DATA
from saliency_r1.runtime.files import write_json
from saliency_r1.runtime.stage import StageError, run_stage

DOWNLOAD = Path("artifacts/download")


def main(params: Params) -> None:
    """Compare, write, and stop where the parameters say so."""
    options = params.drift
    today = describe(pl.read_parquet(DOWNLOAD / "table.parquet"), DOWNLOAD)
    rows = drift(pl.read_parquet(Path(sys.argv[1]) / DATA), today, options.level, options.distance)
    Path("records").mkdir(exist_ok=True)
    write_json(Path("records/drift.json"), rows)
    moved = [f"{row['data set']}: {row['measure']}" for row in rows if row["moved"]]
    print(f"moved since the champion's data: {'; '.join(moved) or 'nothing'}")
    if moved and options.stop:
        raise StageError(f"the data moved: {'; '.join(moved)}. Look at it; drift.stop: false lets the night go on")


if __name__ == "__main__":
    run_stage(main)
