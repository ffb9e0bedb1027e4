"""What an earlier run of the stage has imported, and how much of it stands for a new import.

An import is a function of a pair's bytes, of how the catalogue says they are to be read, and of this code. Where all
three are what they were, the stored pair is linked, which takes a tenth of the time. What is compared stands in
`runs/download/imports.json`, outside of the results: these must not differ with times of files and lines of code.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

import saliency_r1
from saliency_r1.data.importers import Item
from saliency_r1.data.store import Imported, source_digest, stored_digest
from saliency_r1.data.table import INDEX
from saliency_r1.inputs.errors import InputError
from saliency_r1.runtime.files import link, link_tree, sha256, write_json
from saliency_r1.runtime.versions import versions

READERS = ("data", "inputs")  # the packages whose code decides what is stored


@dataclass(frozen=True)
class Earlier:
    """The earlier import of one split: `folder` of the stored pairs, their index, and what was noted about it."""

    folder: Path
    index: pl.DataFrame
    key: str
    reading: str
    report: dict[str, Any]

    @cached_property
    def whole(self) -> bool:
        """Whether every pair still lies there as it was stored."""
        return all(map(self._is_stored, self._rows.values()))

    def take(self, item: Item, target: Path) -> Imported | None:
        """The import of a pair whose bytes have not changed since, linked into `target`; None where they have."""
        row = self._rows.get(item.name)
        try:
            if row is None or row["source"] != source_digest(item) or not self._is_stored(row):
                return None
        except InputError:
            return None  # no file any more; the import says so
        for name in (row["image"], row["mask"]):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            link(self.folder / name, target / name)
        values = {one.name: row[one.name] for one in fields(Imported)}
        return Imported(**values | {"ids": tuple(row["ids"])})

    def has(self, index: pl.DataFrame) -> int:
        """How many pairs of another index are pairs of this one, with the same bytes."""
        return len(index.join(self.index, on=["name", "source"], how="semi"))

    def take_all(self, target: Path) -> None:
        """Link every pair into `target`."""
        link_tree(self.folder, target)

    @cached_property
    def _rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.index.iter_rows(named=True)}

    def _is_stored(self, row: dict[str, Any]) -> bool:
        try:
            return stored_digest(self.folder, row["image"], row["mask"]) == row["stored"]
        except OSError:
            return False


@dataclass
class Memory:
    """What is noted in `file` about the imports in `previous`, the folder of results that is about to be replaced."""

    file: Path
    previous: Path
    _noted: dict[str, dict[str, Any]] = field(default_factory=dict)

    def recall(self, part: str) -> Earlier | None:
        """The earlier import of `<data set>/<split>` if it is there, and as this very code would make it."""
        try:
            note = json.loads(self.file.read_text(encoding="utf-8"))[part]
            path = index_path(self.previous, part)
            if note["code"] != _code() or note["index"] != sha256(path):
                return None  # other code, or other results than the noted ones: DVC may have put them there
            index = pl.read_parquet(path, schema=INDEX)
            return Earlier(pairs_path(self.previous, part), index, note["key"], note["reading"], note["report"])
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError):
            return None  # nothing there, or not what an import leaves behind

    def note(self, part: str, key: str, reading: str, report: dict[str, Any]) -> None:
        """Remember an import until `write`."""
        self._noted[part] = {"key": key, "reading": reading, "report": report}

    def take_over(self, other: Memory) -> None:
        """Remember what another one does."""
        self._noted |= other._noted

    def write(self) -> None:
        """Write down what was noted, about the folder of results that is now in place."""
        write_json(self.file, dict(self._described()))

    def _described(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for part, note in self._noted.items():
            yield part, {"code": _code(), "index": sha256(index_path(self.previous, part)), **note}


def pairs_path(folder: Path, part: str) -> Path:
    """Where the pairs of `<data set>/<split>` lie in a folder of results."""
    return folder / "datasets" / part


def index_path(folder: Path, part: str) -> Path:
    """Where their index lies."""
    return folder / "index" / f"{part}.parquet"


@functools.cache
def _code() -> str:
    """A hash of the code that reads and stores, and of the packages it does so with."""
    digest = hashlib.sha256(json.dumps(versions()).encode())
    package = Path(saliency_r1.__file__).parent
    for file in sorted(path for name in READERS for path in (package / name).glob("*.py")):
        digest.update(f"{file.relative_to(package)}\0{sha256(file)}".encode())
    return digest.hexdigest()
