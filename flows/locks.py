"""One run of a folder at a time; and what a killed DVC leaves in `.dvc/tmp/rwlock`, cleared before the next stage."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from dvc.config import Config
from dvc.lock import make_lock
from filelock import FileLock, Timeout

from flows.children import children_ended, pause

LOOK = 5.0  # seconds between two looks whether another DVC is done with its files
CLOCK = 2.0  # seconds by which the start of a process and the time of a file may differ


@contextmanager
def only_run(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder for this run; one that comes while another holds it says so and waits until that is over.

    Processes that the run has started are ended before the folder is given back, also where the run is stopped or
    fails. The kernel gives the folder back when the holder's process ends, however it ends. A limit kept by the server
    does not: the place of a run that was killed can stay taken, and then no later run starts.
    """
    path = folder / ".dvc" / "tmp" / "flow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another run holds {path}: this one starts when that one is over")
        lock.acquire(poll_interval=1)
    try:
        with children_ended():
            yield
    finally:
        lock.release()


def forget_dead_owners(folder: Path) -> list[int]:
    """Take the owners that no longer run out of DVC's list of paths in use, and give back their process ids.

    DVC does so too, but takes a zombie for a living owner, and in a container whose first process reaps nobody a
    killed one stays a zombie: the next run would wait for a person. It also takes a process that was given the number
    of a killed one for the owner; such a process began after the list was last written.

    A list that was cut off in the middle of its writing is removed; it belonged to a process that is gone, since a
    living one holds the guard. The guard is of the kind that the project's `core.hardlink_lock` says: a file of the
    other kind would shut DVC out for good.
    """
    path = folder / ".dvc" / "tmp" / "rwlock"
    if not path.exists():
        return []
    hard = Config(str(folder / ".dvc"))["core"].get("hardlink_lock", False)
    with make_lock(f"{path}.lock", tmp_dir=str(path.parent), hardlink_lock=hard, wait=True):
        try:
            owners = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            path.unlink()
            return []
        written = path.stat().st_mtime
        dead = {info["pid"] for info in _infos(owners) if not _owns(info["pid"], written)}
        if dead:
            path.write_text(json.dumps(_without(owners, dead)), encoding="utf-8")
    return sorted(dead)


def wait_for_owners(folder: Path, owners: set[int]) -> None:
    """Return when none of these processes stands in DVC's list of paths in use any more, or none of them lives."""
    path = folder / ".dvc" / "tmp" / "rwlock"
    while True:
        forget_dead_owners(folder)
        try:
            listed = {info["pid"] for info in _infos(json.loads(path.read_text(encoding="utf-8")))}
        except (FileNotFoundError, json.JSONDecodeError):  # which is being written; the next DVC looks itself
            return
        if listed.isdisjoint(owners):
            return
        pause(LOOK)


def _infos(owners: dict[str, Any]) -> list[dict[str, Any]]:
    return [*owners.get("write", {}).values(), *(info for infos in owners.get("read", {}).values() for info in infos)]


def _without(owners: dict[str, Any], dead: set[int]) -> dict[str, Any]:
    writers = {path: info for path, info in owners.get("write", {}).items() if info["pid"] not in dead}
    readers = {
        path: [info for info in infos if info["pid"] not in dead] for path, infos in owners.get("read", {}).items()
    }
    return {"write": writers, "read": {path: infos for path, infos in readers.items() if infos}}


def _owns(pid: int, written: float) -> bool:
    """Whether the process runs, and did so already when the list was last written."""
    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written + CLOCK)
    except psutil.NoSuchProcess:
        return False
