"""What the updates of a run leave behind, in a file that grows by a line an update.

A run at the paper's size has 128,000 rollouts, too many for every checkpoint and for the memory of every process. They
are written once, by the first process, and read one update at a time. A checkpoint only says how many updates it knows:
what a killed run wrote after it is cut off when the run goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saliency_r1.runtime import processes
from saliency_r1.training.errors import TrainingError

if TYPE_CHECKING:
    import polars as pl

TOGETHER = 100  # updates whose rollouts are rows of Python objects at once when the tables are made


@dataclass(frozen=True)
class Update:
    """What one update leaves behind: a row of the curves, the rows of the rollouts table, what it has cost.

    `costs`, of the first process: seconds to generate, to segment, to reward, of the forward passes, of the backward
    passes and of the ISR step; `peak_gb`, the most memory held so far.
    """

    curve: dict[str, Any]
    rollouts: list[dict[str, Any]]
    costs: dict[str, Any]


class History:
    """The updates of the run whose checkpoints lie in `folder`; JSON, whose numbers come back to the last digit."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "updates.jsonl"

    def cut(self, count: int) -> None:
        """Keep the first `count` updates alone. Raises `TrainingError` where there are fewer."""
        lines, size = 0, 0
        if self.path.exists():
            with self.path.open("rb") as stream:
                for line in islice(stream, count):
                    lines, size = lines + line.endswith(b"\n"), size + len(line)
        if lines < count:
            raise TrainingError(
                f"{self.path} holds {lines} updates and the checkpoint beside it {count}; delete {self.path.parent} to "
                "start anew"
            )
        if processes.is_main() and self.path.exists():
            os.truncate(self.path, size)

    def append(self, update: Update) -> None:
        """Write one more update, on the disk before a checkpoint can count it. Only the first process does."""
        if not processes.is_main():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            stream.write(json.dumps(vars(update)).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def read(self, count: int | None = None) -> Iterator[Update]:
        """The first `count` updates, or all, one after the other. Raises `TrainingError` for a damaged one."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            for number, line in enumerate(islice(stream, count), 1):
                try:
                    update = Update(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise TrainingError(
                        f"update {number} in {self.path} cannot be read; delete {self.path.parent} to start anew"
                    ) from error
                yield update

    def tables(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """The curves and the costs, one row an update, and the table of all rollouts."""
        import polars as pl

        curves, costs, rollouts = [], [], []
        stored = self.read()
        while updates := list(islice(stored, TOGETHER)):
            curves += [update.curve for update in updates]
            costs += [update.costs for update in updates]
            rows = [row for update in updates for row in update.rollouts]
            rollouts.append(pl.DataFrame(rows, infer_schema_length=None))
        # A column that some updates lack, such as a component of a task's reward, is empty there.
        table = pl.concat(rollouts, how="diagonal_relaxed") if rollouts else pl.DataFrame()
        return pl.DataFrame(curves, infer_schema_length=None), pl.DataFrame(costs, infer_schema_length=None), table
