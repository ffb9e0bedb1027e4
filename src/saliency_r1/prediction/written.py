"""Which files of a folder of results runs have written: those that a further run may replace, and no other.

A run says in its journal what it is about to write, before it does; `response.json` lists the files when it is over.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.text import read_json
from saliency_r1.prediction.formats import FORMATS, WHOLE
from saliency_r1.prediction.work import Picture

RESPONSE, JOURNAL = "response.json", ".answers.jsonl"


@dataclass
class Written:
    """Paths within a folder of results, with `/` between names.

    Attributes:
        files: those of the answers that the record holds.
        left: those of earlier runs, whose answers the record no longer holds.
    """

    files: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)

    @property
    def all(self) -> set[str]:
        """Whatever a run has written."""
        return self.files | self.left

    def begin_anew(self) -> None:
        """From now on the record holds no answer of before."""
        self.files, self.left = set(), self.all

    def add(self, paths: Iterable[str]) -> None:
        """These are written now."""
        self.files |= (added := set(paths))
        self.left -= added

    def keep_what_is_there(self, out: Path) -> None:
        """Forget the files that are gone, or were never written for want of room."""
        for paths in (self.files, self.left):
            paths.intersection_update([path for path in paths if os.path.lexists(out / path)])


def written(out: Path) -> Written:
    """What runs into a folder have written, the one that was killed last included."""
    known = Written()
    if (out / RESPONSE).is_file():
        with contextlib.suppress(InputError, KeyError, TypeError, AttributeError):
            content = read_json(out / RESPONSE)
            names = [name for entry in content["answers"] for name in entry["names"]]
            files = content["files"] if "files" in content else _files_before(content, names)
            known = Written({RESPONSE, *files}, set(content.get("left", ())))
    for line in lines_of(out / JOURNAL):
        if "left" in line:
            known = Written(left=set(line["left"]))
        known.add(line.get("writing", ()))
    return known


def paths_of(pictures: Sequence[Picture], asked: Iterable[str]) -> list[str]:
    """The files that the results of pictures are written to, one a picture and format."""
    return [FORMATS[name].path(one.name) for name in asked if name not in WHOLE for one in pictures]


def lines_of(journal: Path) -> list[dict[str, Any]]:
    """The lines of a journal, if there is one; one that was cut off, in a letter perhaps, was not finished."""
    found = []
    # Not `splitlines`: what a model says may hold other line ends.
    for line in journal.read_bytes().split(b"\n") if journal.is_file() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line.decode("utf-8")))
    return found


def _files_before(content: dict[str, Any], names: Iterable[str]) -> list[str]:
    """Those of a record that names formats, or none, and no files, as runs have written it before."""
    formats = content.get("formats", [*FORMATS, *WHOLE])
    whole = [WHOLE[name] for name in formats if name in WHOLE]
    return whole + [FORMATS[name].path(one) for name in formats if name in FORMATS for one in names]
