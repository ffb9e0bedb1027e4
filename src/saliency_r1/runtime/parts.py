"""Work of hours that is kept part by part: what a killed run has done, the next one does not do again.

The samples are cut into parts by their numbers alone, never by who works on them, so that a result does not depend on
how often a run was killed or on how many processes it had. Parts live in `runs/<stage>/<key>/`, where the key is that
of everything that decides them (`keys.run_key`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from saliency_r1.runtime import processes
from saliency_r1.runtime.files import remove

T = TypeVar("T")


def share(missing: Sequence[T]) -> Sequence[T]:
    """What of `missing` falls to this process: nothing, where there are fewer parts than processes."""
    return missing[processes.index() :: processes.count()]


class Parts:
    """`count` samples in parts of `size`, each a folder below `folder` once it is complete."""

    def __init__(self, folder: Path, count: int, size: int) -> None:
        self.folder = folder
        self.size = size
        self.numbers = range(-(-count // size))

    def missing(self) -> list[int]:
        """The parts that are not there yet, the same list everywhere; all processes come here together."""
        (missing, *_) = processes.gather([[number for number in self.numbers if not self.path(number).is_dir()]])
        return missing

    def path(self, number: int) -> Path:
        """The folder of a part."""
        return self.folder / f"part-{number:06d}"

    def of(self, samples: Sequence[T], number: int) -> Sequence[T]:
        """The samples of a part."""
        return samples[number * self.size : (number + 1) * self.size]

    @contextlib.contextmanager
    def writing(self, number: int) -> Iterator[Path]:
        """A folder that becomes the part when the block ends well. No two processes write the same part."""
        new = self.folder / f".part-{number:06d}"
        remove(new)
        new.mkdir(parents=True)
        yield new
        new.rename(self.path(number))


def keep_only(folders: Sequence[Path]) -> None:
    """Remove what lies beside these folders: parts of runs that were decided by something else."""
    for parent in {folder.parent for folder in folders}:
        for other in parent.iterdir():
            if other.is_dir() and other not in folders:
                remove(other)
