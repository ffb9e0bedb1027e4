"""Git, as a command: one call a question, and what it says where it refuses."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

# What git tells a hook or an alias of the repository that it was called for (`git rev-parse --local-env-vars`). Here
# the folder says which one is meant. Without GIT_CONFIG_COUNT: git reads it and never sets it, so a person did.
LOCAL = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS", "GIT_OBJECT_DIRECTORY", "GIT_DIR",
    "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_INTERNAL_SUPER_PREFIX", "GIT_SHALLOW_FILE", "GIT_COMMON_DIR",
)  # fmt: skip
REMOTE = ("fetch", "ls-remote", "push")  # commands that may ask for a password


class GitError(ValueError):
    """A git command that failed; the message has the command and what git said."""


def environment() -> dict[str, str]:
    """This process's environment without what git has told a caller of another repository; DVC reads that as well."""
    return {key: value for key, value in os.environ.items() if key not in LOCAL}


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints, run in a folder, without the last line's end. Raises `GitError`."""
    # No question is asked at a terminal: nobody is there at night. Hooks (those of `dvc install`, say) are for people's
    # own commits: one that fails, or checks DVC's files out, would stop a night.
    variables = environment() | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    if arguments[0] in REMOTE:
        variables |= _unasked(folder)
    try:
        ended = subprocess.run(
            ["git", "-c", f"core.hooksPath={os.devnull}", *arguments], cwd=folder, env=variables,
            stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise GitError(f"git cannot be run in {folder}: is it installed, and is there such a folder?") from None
    if ended.returncode:
        said = ended.stderr.strip() or ended.stdout.strip()
        raise GitError(f"`git {' '.join(arguments)}` in {folder} failed: {said}")
    return ended.stdout.rstrip("\n")


def _unasked(folder: Path) -> dict[str, str]:
    """Variables under which ssh and git fail where they would ask for a passphrase, a password or an unknown host.

    What somebody has told git to connect with stays so (GIT_SSH_COMMAND, GIT_SSH, core.sshCommand), and what answers
    for it (GIT_ASKPASS, core.askPass); SSH_ASKPASS is a desktop's window.
    """
    told = {"GIT_SSH_COMMAND", "GIT_SSH"} & set(os.environ)
    if told or git(folder, "config", "--default", "", "--get", "core.sshCommand"):
        return {"SSH_ASKPASS": "false"}
    return {"SSH_ASKPASS": "false", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=30"}


def tags(folder: Path, pattern: str) -> list[str]:
    """The tags of a pattern, the oldest first."""
    return git(folder, "tag", "--no-column", "--list", "--sort=creatordate", pattern).splitlines()


def file_at(folder: Path, revision: str, path: str) -> str | None:
    """The text of a file as a revision has it, None where it has none."""
    try:
        return git(folder, "show", f"{revision}:{path}")
    except GitError:
        return None


def plain(name: str) -> str:
    """A name as git takes it for a branch or DVC for an experiment; a person may have called a run `lr, 2nd try`."""
    return re.sub(r"[^\w]+", "-", name).strip("-") or "run"


SHARED = ("night/*", "saliency-r1@*", "saliency-r1#*")  # the tags that other clones are told of


def share(folder: Path) -> str | None:
    """Push all nights, versions and assignments, all or none; the remote's name, None where there is no remote.

    It is origin, or the only one. Raises `GitError`.
    """
    remote = remote_of(folder)
    known = [pattern for pattern in SHARED if tags(folder, pattern)]
    if remote and known:
        git(folder, "push", "--quiet", "--atomic", remote, *(f"refs/tags/{one}:refs/tags/{one}" for one in known))
    return remote


def learn(folder: Path, say: Callable[[str], None]) -> None:
    """Fetch the nights, versions and assignments that other clones have pushed.

    A remote that cannot be reached, or one that has another tag of the same name, is told of and stops nothing.
    """
    if (remote := remote_of(folder)) is None:
        return
    wanted = [f"refs/tags/{one}:refs/tags/{one}" for one in SHARED]
    try:
        # Without --no-prune a setting of the user (fetch.prune) would delete the tags that are not pushed yet.
        git(folder, "fetch", "--quiet", "--no-tags", "--no-prune", remote, *wanted)
    except GitError as error:
        say(f"going on with the tags that are here; those of the git remote {remote} could not be fetched: {error}")


def remote_of(folder: Path) -> str | None:
    """The git remote that is pushed to: origin, or the only one; None where there is none, or none of these."""
    names = git(folder, "remote").splitlines()
    return "origin" if "origin" in names else names[0] if len(names) == 1 else None
