"""One run of a folder at a time; and what a killed DVC leaves in `.dvc/tmp/rwlock`, cleared before the next stage."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from dvc.lock import make_lock
from filelock import FileLock, Timeout


@contextmanager
def only_run(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder for this run; one that comes while another holds it says so and waits until that is over.

    The kernel gives the folder back when the holder's process ends, however it ends. A limit kept by the server does
    not: the place of a run that was killed can stay taken, and then no later run starts.
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
        yield
    finally:
        lock.release()


def forget_dead_owners(folder: Path) -> list[int]:
    """Take the owners that no longer run out of DVC's list of paths in use, and give back their process ids.

    DVC does so too, but takes a zombie for a living owner, and in a container whose first process reaps nobody a
    killed one stays a zombie: the next run would wait for a person. A list that was cut off in the middle of its
    writing is removed; it belonged to a process that is gone, since a living one holds the guard.
    """
    path = folder / ".dvc" / "tmp" / "rwlock"
    if not path.exists():
        return []
    with make_lock(f"{path}.lock", tmp_dir=str(path.parent), wait=True):
        try:
            owners = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            path.unlink()
            return []
        dead = {info["pid"] for info in _infos(owners) if not _runs(info["pid"])}
        if dead:
            path.write_text(json.dumps(_without(owners, dead)), encoding="utf-8")
    return sorted(dead)


def _infos(owners: dict[str, Any]) -> list[dict[str, Any]]:
    return [*owners.get("write", {}).values(), *(info for infos in owners.get("read", {}).values() for info in infos)]


def _without(owners: dict[str, Any], dead: set[int]) -> dict[str, Any]:
    writers = {path: info for path, info in owners.get("write", {}).items() if info["pid"] not in dead}
    readers = {
        path: [info for info in infos if info["pid"] not in dead] for path, infos in owners.get("read", {}).items()
    }
    return {"write": writers, "read": {path: infos for path, infos in readers.items() if infos}}


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
