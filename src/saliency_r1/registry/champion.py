"""The registry: versions of the model and which of them is the champion, as git tags in the format of GTO.

    saliency-r1@v0.0.2                  the commit is version 0.0.2
    saliency-r1#champion#3              the commit is the champion; the highest number holds

    folder = resolve("champion")        # also "v0.0.1", or a folder

GTO reads and writes the same tags (`gto show`, `gto assign`, `gto deprecate`), and `dvc artifacts get` reads them. A
tag with `!`, `saliency-r1@v0.0.2!` or `saliency-r1#champion!#4`, takes a version or an assignment back.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import yaml

from saliency_r1.registry.git import GitError, environment, file_at, git, share, tags
from saliency_r1.runtime.files import held

NAME = "saliency-r1"
STAGE = "champion"
PATH = "artifacts/model"
ADAPTER = "artifacts/cgpo/adapter"
FETCHED = Path("runs/models")
_VERSION = re.compile(rf"{NAME}@(v\d+\.\d+\.\d+)(!?)")
_ASSIGNED = re.compile(rf"{NAME}#{STAGE}(!?)#(\d+)")


class RegistryError(ValueError):
    """A model that is not in the registry or cannot be had; the message says what there is."""


class Version(NamedTuple):
    """A registered model: its version (`v0.0.2`) and the commit it was made in, 40 digits."""

    name: str
    commit: str


def versions(root: Path) -> list[Version]:
    """All versions that nobody has withdrawn, the first one first."""
    had, withdrawn = _registered(root)
    return [version for version in had if version.name not in withdrawn]


def _registered(root: Path) -> tuple[list[Version], set[str]]:
    """All versions there have ever been, the first one first, and the names of those that were withdrawn."""
    found = [(match[1], match[2], tag) for tag in tags(root, f"{NAME}@*") if (match := _VERSION.fullmatch(tag))]
    made = [Version(name, _commit(root, tag)) for name, undone, tag in found if not undone]
    return sorted(made, key=lambda version: _numbers(version.name)), {name for name, undone, _ in found if undone}


def history(root: Path) -> list[Version]:
    """The champions in their order, the present one last; none where nobody holds the place any more.

    Who is taken back (or whose version is withdrawn) leaves the place to the one before, which stands there once more.
    """
    had, withdrawn = _registered(root)
    by_commit = {version.commit: version for version in had}
    found = [match for tag in tags(root, f"{NAME}#{STAGE}*") if (match := _ASSIGNED.fullmatch(tag))]
    holders: list[Version] = []
    course: list[Version] = []
    for match in sorted(found, key=lambda match: int(match[2])):
        commit = _commit(root, match[0])
        version = by_commit.get(commit, Version(commit[:12], commit))
        holders = [one for one in holders if one != version] if match[1] else [*holders, version]
        course = [*course, holders[-1]] if holders else []
    left = [one for one in holders if one.name not in withdrawn]
    return [one for one, _ in groupby([*course, left[-1]])] if left else []


def champion(root: Path) -> Version | None:
    """The present champion, if there is one."""
    return next(reversed(history(root)), None)


def register(root: Path, commit: str, *identity: str) -> Version:
    """Make a commit the next version. `identity` are options of git that say who tags."""
    had, _ = _registered(root)
    major, minor, patch = _numbers(had[-1].name) if had else (0, 0, 0)
    version = Version(f"v{major}.{minor}.{patch + 1}", _commit(root, commit))
    _tag(root, f"{NAME}@{version.name}", version.commit, f"{NAME} {version.name}", identity)
    return version


def assign(root: Path, name: str, *identity: str) -> Version:
    """Make a version the champion; the way back is the same call with an older one. Raises `RegistryError`."""
    version = find(root, name)
    # GTO numbers the assignments of a model throughout, those to other stages included.
    numbers = [int(tag.rpartition("#")[2]) for tag in tags(root, f"{NAME}#*") if tag.rpartition("#")[2].isdigit()]
    number = max(numbers, default=0) + 1
    _tag(root, f"{NAME}#{STAGE}#{number}", version.commit, f"{version.name} is the {STAGE}", identity)
    return version


def appoint(root: Path, name: str) -> str | None:
    """Make a version the champion here and in the git remote, or in neither; the remote's name, None without one.

    Raises `RegistryError`, and `GitError` where the remote refuses or cannot be reached.
    """
    had = tags(root, f"{NAME}#*")
    assign(root, name)
    try:
        return share(root)
    except GitError as error:  # a tag that stays would be told by the next night, long after somebody has given up
        git(root, "tag", "--delete", *set(tags(root, f"{NAME}#*")).difference(had))
        raise GitError(f"the champion is who it was, since the git remote could not be told: {error}") from None


def before(root: Path) -> Version:
    """The champion before the present one, which a rollback assigns. Raises `RegistryError` where there is none."""
    had = history(root)
    earlier = [version for version in had if version != had[-1]]
    if not earlier:
        raise RegistryError("there was no other champion before this one; `saliency-r1 champion` lists the versions")
    return earlier[-1]


def rolled_back(root: Path) -> list[Version]:
    """The versions that somebody has left for an older one and not come back to, the first one first."""
    order, _ = _registered(root)
    had = history(root)
    left = dict(pairwise(had))  # whom each was left for the last time
    return [one for number, one in enumerate(order) if left.get(one) in order[:number] and one != had[-1]]


def rolled_back_as(tree: Path) -> Version | None:
    """The rolled back version that has the very adapter of a tree's dvc.lock, if one has."""
    lock = tree / "dvc.lock"
    mine = _adapter(lock.read_text(encoding="utf-8")) if lock.exists() else None
    same = (one for one in rolled_back(tree) if _adapter(file_at(tree, one.commit, "dvc.lock")) == mine)
    return next(same, None) if mine else None


def _adapter(lock: str | None) -> str | None:
    """The hash of the trained adapter in the text of a dvc.lock, where the stages that read it have it."""
    stages = (yaml.safe_load(lock or "") or {}).get("stages", {})
    entries = (entry for stage in stages.values() for entry in (*stage.get("deps", ()), *stage.get("outs", ())))
    return next((entry.get("md5") for entry in entries if entry["path"] == ADAPTER), None)


def find(root: Path, name: str) -> Version:
    """The version of a name, or the champion under the name `champion`. Raises `RegistryError`."""
    found = champion(root) if name == STAGE else next((one for one in versions(root) if one.name == name), None)
    if found is None:
        known = ", ".join(version.name for version in versions(root)) or "none; a night registers the first"
        raise RegistryError(f"the registry of {root.resolve()} has no {name}; versions: {known}")
    return found


def resolve(name: str, root: Path = Path(".")) -> Path:
    """The folder (`package.py` says what is in it) that a name means: `champion`, a version, or a folder as it is.

    A model that is not there yet is taken from DVC's cache or remote into runs/models/. Raises `RegistryError`.
    """
    if name != STAGE and not re.fullmatch(r"v\d+\.\d+\.\d+", name):
        return Path(name)
    version = find(root, name)
    folder = root / FETCHED / version.commit
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with held(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():  # else another process has fetched it meanwhile
                _fetch(root, version, folder)
    return folder


def _fetch(root: Path, version: Version, folder: Path) -> None:
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    command = [sys.executable, "-m", "dvc", "get", "--quiet", "--rev", version.commit]
    command += ["--out", str(aside.resolve()), str(root.resolve()), PATH]
    ended = subprocess.run(
        command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise RegistryError(
            f"{PATH} of {version.name} is neither in DVC's cache nor in its remote. A clone that has it may `dvc push` "
            f"it, `dvc repro` in a clone at {version.commit[:12]} makes it again, or another version takes its place "
            f"(`saliency-r1 champion`). DVC said:\n{ended.stderr.strip()}"
        )
    aside.rename(folder)


def _tag(root: Path, tag: str, commit: str, message: str, identity: tuple[str, ...]) -> None:
    git(root, *identity, "tag", "--annotate", "--message", message, tag, commit)


def _commit(root: Path, revision: str) -> str:
    return git(root, "rev-parse", "--verify", f"{revision}^{{commit}}")


def _numbers(name: str) -> tuple[int, int, int]:
    major, minor, patch = map(int, name.removeprefix("v").split("."))
    return major, minor, patch
