"""What is asked for: files, folders and patterns become prompts, and every picture gets a name for its results.

A picture's name is its path without the suffix: within the folder that was given, so that sub-folders are mirrored, or
the stem of a file that was given by itself.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from saliency_r1.data.samples import chunks
from saliency_r1.inputs.find import (
    SUFFIXES,
    folders_in,
    key,
    nfc,
    pictures_among,
    pictures_below,
    pictures_in,
    shown,
    walk,
)
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
    into sub-folders; for CoSOD those of a folder that has no pictures of its own are groups in any case. The files
    `written`, results of an earlier run, are skipped. A picture given twice counts once.

    Raises `PredictError` for a folder or pattern without pictures, and where two pictures would have one name.
    """
    mine = {os.path.realpath(one) for one in written}
    loose: list[Picture] = []
    groups: list[list[Picture]] = []
    for one in given:
        if not str(one):  # what is left of an unset variable; `Path` takes it for the current folder
            raise PredictError("an empty name is no picture; for the folder you are in write .")
        path = Path(one)
        if os.path.isdir(path):  # `os.path` and not `Path`, which raises for a name that is too long
            found = _groups(path, path, task, recursive, mine)
            if not found:
                raise PredictError(
                    f"{path} holds results of an earlier run, which are passed over, and no other picture: name "
                    "another folder, or the files"
                    if _groups(path, path, task, recursive, frozenset())
                    else f"{path} holds no picture {_expected(recursive)}"
                )
            groups += found
        elif os.path.lexists(path) or not glob.has_magic(str(one)):
            loose.append(Picture(path, nfc(shown(path.stem))))
        else:
            files, found = _matching(str(one), task, recursive, mine)
            loose += files
            groups += found
    return _told_apart([loose, *groups])


def prompts(groups: Sequence[Sequence[Picture]], task: str, chunk: int) -> list[Prompt]:
    """What is asked at once: one picture, or for CoSOD a part of a group, of at most `chunk`, as in the training."""
    size = chunk if task == "cosod" else 1
    return [tuple(part) for group in groups for part in chunks(group, size)]


def _matching(
    pattern: str, task: str, recursive: bool, written: Collection[str]
) -> tuple[list[Picture], list[list[Picture]]]:
    """What fits a pattern: loose pictures, and the groups of folders. Names begin in the folder it begins in.

    `**` fits folders and what is in them: a picture then counts once, as one of its folder.
    """
    start, rest = _begun(pattern)
    found = sorted(_fitting(start, rest.split(os.sep)))
    folders = [path for path in found if path.is_dir()]
    groups = [group for folder in folders for group in _groups(folder, start, task, recursive, written)]
    taken: set[Path] = set()
    for place, group in enumerate(groups):
        groups[place] = [one for one in group if one.path not in taken]
        taken.update(one.path for one in group)
    files = [path for path in pictures_among(found) if path not in taken and not path.is_dir()]
    loose = [Picture(path, _name(path, start)) for path in files if not _is_among(path, written)]
    if not loose and not groups:
        passed = any(_is_among(path, written) for path in found)
        but = "but results of an earlier run" if passed else _expected(recursive or not folders)
        raise PredictError(f"{pattern}: no picture fits this pattern {but}")
    return loose, groups


def _fitting(folder: Path, parts: Sequence[str]) -> set[Path]:
    """What fits the parts of a pattern below a folder.

    `**` is walked and not left to `glob`, which goes round links in a circle forty times, and forever where two meet.
    """
    if "**" not in parts:
        return {Path(path) for path in glob.glob(os.path.join(glob.escape(str(folder)), *parts))}
    place = parts.index("**")
    before, after = parts[:place], parts[place + 1 :]
    found: set[Path] = set()
    for start in filter(os.path.isdir, _fitting(folder, before) if before else [folder]):
        below = [(start, True), *walk(start)]
        if after:
            found.update(*(_fitting(path, after) for path, is_folder in below if is_folder))
        else:
            found.update(path for path, _ in below)
    return found


def _expected(everywhere: bool) -> str:
    """What counts as a picture, and unless it was looked for everywhere, where else it may be."""
    more = "" if everywhere else "; --recursive looks into the folders in it"
    return f"({', '.join(sorted(SUFFIXES))}){more}"


def _begun(pattern: str) -> tuple[Path, str]:
    """The folder that a pattern begins in, and the rest of it.

    A part that is the name of a folder there is that folder, and no pattern: in `trip [2023]/*.jpg` the brackets are
    letters of a name.
    """
    parts = Path(pattern).parts
    count = next(place for place in range(len(parts) + 1) if not os.path.isdir(Path(*parts[: place + 1])))
    only_folders = os.sep if pattern.endswith(("/", os.sep)) else ""
    return Path(*parts[:count]), os.path.join("", *parts[count:]) + only_folders


def _groups(folder: Path, start: Path, task: str, recursive: bool, written: Collection[str]) -> list[list[Picture]]:
    """The pictures of a folder that was given or found, by the folder they lie in."""
    own = pictures_in(folder)
    below = pictures_below(folder) if recursive else own
    if task == "cosod":
        if not own and not recursive:
            below = [path for inner in folders_in(folder) for path in pictures_in(inner)]
        start = start.parent if own and start == folder else start
    by_folder: dict[Path, list[Picture]] = {}
    for path in below:
        if not _is_among(path, written):
            by_folder.setdefault(path.parent, []).append(Picture(path, _name(path, start)))
    return list(by_folder.values())


def _is_among(path: Path, files: Collection[str]) -> bool:
    return bool(files) and os.path.realpath(path) in files  # `Path.resolve` raises for links in a circle


def _name(path: Path, start: Path) -> str:
    inside = path.relative_to(start) if path.is_relative_to(start) else Path(path.name)
    return nfc(shown(inside.with_suffix("").as_posix()))


def _told_apart(groups: Iterable[Sequence[Picture]]) -> list[list[Picture]]:
    """The groups, each picture once. Raises `PredictError` where two pictures would have one name, or one has none."""
    taken: dict[str, Path] = {}
    kept = []
    for group in groups:
        fresh = []
        for picture in group:
            path, name = picture
            if name in (".", "..") or name.startswith("../"):
                raise PredictError(f"{path}: its results would have no name; give the path without `..`")
            if key(name) not in taken:
                taken[key(name)] = path
                fresh.append(picture)
            elif os.path.abspath(first := taken[key(name)]) != os.path.abspath(path):
                raise PredictError(
                    f"two pictures are called {name}: {first} and {path}; their results would overwrite each other, "
                    "so rename one or give them a folder each (--out)"
                )
        if fresh:
            kept.append(fresh)
    return kept
