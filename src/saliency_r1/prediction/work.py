"""What is asked for: files, folders and patterns become prompts, and every picture gets a name for its results.

A picture's name is its path without the suffix: within the folder that was given, so that sub-folders are mirrored, or
the stem of a file that was given by itself.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from saliency_r1.data.samples import chunks
from saliency_r1.inputs.find import SUFFIXES, folders_in, key, nfc, pictures_below, pictures_in, shown
from saliency_r1.prediction.predictor import PredictError


class Picture(NamedTuple):
    """A picture, and the name that its results have, with `/` between folders."""

    path: Path
    name: str


Prompt = tuple[Picture, ...]


def collect(
    given: Sequence[str | Path], task: str, recursive: bool = False, written: Sequence[Path] = ()
) -> list[list[Picture]]:
    """The pictures that files, folders and patterns (`photos/*.jpg`) amount to, in groups.

    A folder is a group, which for CoSOD is named as the folder; loose files are one group together. `recursive` looks
    into sub-folders; for CoSOD those of a folder that has no pictures of its own are groups in any case. What lies in
    one of the folders `written` is passed over: results of an earlier run.

    Raises `PredictError` for a folder or pattern without pictures, and where two pictures would have one name.
    """
    loose: list[Picture] = []
    folders: list[tuple[Path, Path]] = []  # a folder, and where the names of what is in it begin
    for one in given:
        path = Path(one)
        if path.is_dir():
            folders.append((path, path))
        elif path.exists() or path.is_symlink() or not glob.has_magic(str(one)):
            loose.append(Picture(path, nfc(shown(path.stem))))
        else:
            for found, beginning in _matching(str(one)):
                if found.is_dir():
                    folders.append((found, beginning))
                else:
                    loose.append(Picture(found, _name(found, beginning)))
    mine = [one.resolve() for one in written]
    groups = [group for folder, start in folders for group in _groups(folder, start, task, recursive, mine)]
    groups = [loose, *groups] if loose else groups
    _check_names(picture for group in groups for picture in group)
    return groups


def prompts(groups: Sequence[Sequence[Picture]], task: str, chunk: int) -> list[Prompt]:
    """What is asked at once: one picture, or for CoSOD a part of a group, of at most `chunk`, as in the training."""
    size = chunk if task == "cosod" else 1
    return [tuple(part) for group in groups for part in chunks(group, size)]


def _matching(pattern: str) -> list[tuple[Path, Path]]:
    """What fits a pattern, and the folder before its first `*`, in which names begin."""
    fixed = Path(*_until_magic(Path(pattern).parts))
    found = [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]
    kept = [path for path in found if path.is_dir() or path.suffix.lower() in SUFFIXES]
    if not kept:
        raise PredictError(f"{pattern}: no picture fits this pattern ({', '.join(sorted(SUFFIXES))})")
    return [(path, fixed) for path in kept]


def _until_magic(parts: Iterable[str]) -> Iterable[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part


def _groups(folder: Path, start: Path, task: str, recursive: bool, written: Sequence[Path]) -> list[list[Picture]]:
    """The pictures of a folder that was given, by the folder they lie in."""
    own = pictures_in(folder)
    below = pictures_below(folder) if recursive else own
    if task == "cosod":
        if not own and not recursive:
            below = [path for inner in folders_in(folder) for path in pictures_in(inner)]
        start = start.parent if own and start == folder else start
    by_folder: dict[Path, list[Picture]] = {}
    for path in below:
        if not any(path.resolve().is_relative_to(one) for one in written):
            by_folder.setdefault(path.parent, []).append(Picture(path, _name(path, start)))
    if not by_folder:
        more = "" if recursive else "; --recursive looks into the folders in it"
        raise PredictError(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))}){more}")
    return list(by_folder.values())


def _name(path: Path, start: Path) -> str:
    inside = path.relative_to(start) if path.is_relative_to(start) else Path(path.name)
    return nfc(shown(inside.with_suffix("").as_posix()))


def _check_names(pictures: Iterable[Picture]) -> None:
    taken: dict[str, Path] = {}
    for path, name in pictures:
        if name in (".", "..") or name.startswith("../"):
            raise PredictError(f"{path}: its results would have no name; give the path without `..`")
        first = taken.setdefault(key(name), path)
        if first is not path:
            raise PredictError(
                f"two pictures are called {name}: {first} and {path}; their results would overwrite each other, so "
                "rename one or give them a folder each (--out)"
            )
