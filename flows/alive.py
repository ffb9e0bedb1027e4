"""Which runs live: each holds a lock as long as its process does. A run that is killed cannot say so; this does.

Prefect keeps a killed run "Running" where nobody is left to tell it. Who serves a deployment again is the one that
knows: none of its runs can be at work but those whose lock is held.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from filelock import FileLock, Timeout
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed, State

from flows.runs import runs_in

LOCKS = Path("runs/nights/alive")
BEGUN = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


@contextmanager
def alive(folder: Path, run: UUID | str | None) -> Iterator[None]:
    """Hold the sign of life of a run while the block runs; without an id no file is locked."""
    if run is None:
        yield
        return
    path = folder / LOCKS / f"{run}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path):
            yield
    finally:
        path.unlink(missing_ok=True)


def lives(folder: Path, run: UUID | str) -> bool:
    """Whether a process holds the sign of life of a run."""
    path = folder / LOCKS / f"{run}.lock"
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def bury(client: SyncPrefectClient, folder: Path, deployment: UUID) -> list[str]:
    """Call those runs of a deployment crashed that have begun and do not live; returns their names.

    To be called before this process serves the deployment, and where no other machine does.
    """
    dead = [run for run in runs_in(client, deployment, BEGUN) if not lives(folder, run.id)]
    for run in dead:
        state: State[Any] = Crashed(message="its process was killed, as was the one that served it")
        client.set_flow_run_state(run.id, state, force=True)
        (folder / LOCKS / f"{run.id}.lock").unlink(missing_ok=True)
    return [run.name for run in dead]
