"""Is today's data like that of the champion? `python stages/drift.py runs/models/<commit>`.

Not a stage of the graph: who is champion is a matter of the day. Writes records/drift.json, which a night commits, and
ends with exit code 1 where something moved and `drift.stop` is set. Where the champion's folder lacks the numbers that
are compared (an earlier version has made it), it says so and leaves no records/drift.json.
"""

import sys
from pathlib import Path

import own_tree  # noqa: F401
import polars as pl

from saliency_r1.data.describe import SCHEMA, describe, drift
from saliency_r1.params import Params
from saliency_r1.registry.package import DATA
from saliency_r1.runtime.files import write_json
from saliency_r1.runtime.stage import StageError, run_stage

DOWNLOAD = Path("artifacts/download")
RECORD = Path("records/drift.json")


def main(params: Params) -> None:
    """Compare, write, and stop where the parameters say so."""
    options = params.drift
    before = known(Path(sys.argv[1]) / DATA)
    if before is None:
        RECORD.unlink(missing_ok=True)  # that of an earlier night is not today's
        return
    today = describe(pl.read_parquet(DOWNLOAD / "table.parquet"), DOWNLOAD)
    rows = drift(before, today, options.level, options.distance)
    RECORD.parent.mkdir(exist_ok=True)
    write_json(RECORD, rows)
    moved = [f"{row['data set']}: {row['measure']}" for row in rows if row["moved"]]
    print(f"moved since the champion's data: {'; '.join(moved) or 'nothing'}")
    if moved and options.stop:
        raise StageError(f"the data moved: {'; '.join(moved)}. Look at it; drift.stop: false lets the night go on")


def known(path: Path) -> pl.DataFrame | None:
    """What the champion's data was like; None, and a warning, where its folder does not say all that is compared."""
    table = pl.read_parquet(path) if path.exists() else pl.DataFrame()
    if lacking := [column for column in SCHEMA if column not in table.columns]:
        print(
            f"WARNING: {path} has no {', '.join(lacking)}: whether the data moved since the champion's cannot be told"
        )
        return None
    return table


if __name__ == "__main__":
    run_stage(main)
