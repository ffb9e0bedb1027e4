"""The rows of the tables: one JSON file for whoever was measured, below `<out>/rows`.

A row holds for each data set its measures, by the strict and the lenient reading, what went wrong, and a hash of the
samples it was measured on, their pictures and masks; tables are made of all files that are there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from saliency_r1.benchmark.errors import BenchmarkError
from saliency_r1.benchmark.prompts import Row
from saliency_r1.inputs.find import hidden
from saliency_r1.runtime.files import write_json
from saliency_r1.runtime.keys import content_key

Kind = Literal["model", "maps", "floor", "ceiling"]


@dataclass(frozen=True)
class Measured:
    """One row on one data set. `lenient` and `failures` are empty of what no model has answered.

    `strict` and `lenient` have `measures` and `intervals`; `images` is how many of the `of` images of the data set
    were scored, `selection` a hash of which, with their pictures and masks.
    """

    dataset: str
    task: str
    images: int
    of: int
    selection: str
    strict: dict[str, Any]
    lenient: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass
class Entry:
    """Whoever was measured.

    `about` says how: model, a hash of its files, server, names that the server returned, examples, usage.
    """

    name: str
    kind: Kind
    about: dict[str, Any] = field(default_factory=dict)
    datasets: dict[str, Measured] = field(default_factory=dict)

    def write(self, out: Path) -> None:
        """Write the row; data sets that were measured before, in the same way, stay in it.

        Raises `BenchmarkError` as `earlier` does.
        """
        before = earlier(out, self.name, self.kind)
        if before and _how(before.about) == _how(self.about):
            self.datasets = before.datasets | self.datasets
        path = _path(out, self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))


def earlier(out: Path, name: str, kind: Kind) -> Entry | None:
    """The row of this name as it was measured before. Raises `BenchmarkError` where its file is somebody else's row."""
    path = _path(out, name)
    if not path.exists():
        return None
    before = read(path)
    if (before.name, before.kind) != (name, kind):
        raise BenchmarkError(
            f"{path} is the row of {before.name} ({before.kind}), and {name} ({kind}) would take its place; call this "
            "one otherwise, or remove the file"
        )
    return before


def read(path: Path) -> Entry:
    """A row from its file. Raises `BenchmarkError` for what is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["datasets"] = {name: Measured(**one) for name, one in content["datasets"].items()}
        return Entry(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(f"{path} is no row of a benchmark ({error}); remove it") from None


def read_all(out: Path) -> list[Entry]:
    """All rows below a folder, in the order of their names."""
    return [read(path) for path in sorted((out / "rows").glob("*.json")) if not hidden(path.name)]


def selection(rows: Sequence[Row], download: Path) -> str:
    """A hash of which samples are scored, and of their pictures and masks below `download`."""
    ordered = sorted(rows, key=lambda row: row["sample_id"])
    files = content_key(download / path for row in ordered for path in (*row["images"], *row["masks"]))
    return hashlib.sha256("\n".join([*(row["sample_id"] for row in ordered), files]).encode()).hexdigest()[:16]


def slug(name: str) -> str:
    """A name as the name of a file; it begins as the name of a model in the parameters may."""
    return re.sub(r"[^\w.+-]+", "-", name).rstrip("-.").lstrip("-.+") or "model"


def _path(out: Path, name: str) -> Path:
    return out / "rows" / f"{slug(name)}.json"


def _how(about: dict[str, Any]) -> dict[str, Any]:
    """What decides the answers; how many there were, what they cost and who said to be behind them does not."""
    return {key: value for key, value in about.items() if key not in ("usage", "served")}
