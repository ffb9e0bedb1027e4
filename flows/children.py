"""The processes that the tasks of a run have started: they end before the run gives its folder back.

Tasks are threads. One that waits for DVC goes on when the flow was stopped or has failed beside it, and its stage would
write into a folder that the next run has by then.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event, Lock
from typing import Any


class Children:
    """What one run has started."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._started: list[subprocess.Popen[str]] = []
        self._over = Event()

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        """Start a process. Raises `RuntimeError` when the run is over: a task that was queued may come then."""
        with self._guard:
            if self._over.is_set():
                raise RuntimeError(f"the run is over, so nothing is started any more: {' '.join(command)}")
            process = subprocess.Popen(command, **options)
            self._started.append(process)
        return process

    def pause(self, seconds: float) -> None:
        """Wait, and no longer than the run lives: raises `RuntimeError` when it is over."""
        if self._over.wait(seconds):
            raise RuntimeError("the run is over, so nothing is waited for any more")

    def end(self) -> None:
        """End what still runs and wait until it has."""
        with self._guard:
            self._over.set()
        for process in self._started:
            process.terminate()
        for process in self._started:
            process.wait()


# Prefect hands the context of a flow on to the threads of its tasks.
_CHILDREN: ContextVar[Children | None] = ContextVar("children", default=None)


@contextmanager
def children_ended() -> Iterator[None]:
    """End what was started in this block, in its threads too, when the block is left, however it is left."""
    children = Children()
    token = _CHILDREN.set(children)
    try:
        yield
    finally:
        _CHILDREN.reset(token)
        children.end()


def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a process of the run that this code belongs to; outside of a run it is nobody's."""
    return (_CHILDREN.get() or Children()).start(command, **options)


def pause(seconds: float) -> None:
    """Wait in the run that this code belongs to. Raises `RuntimeError` when that is over."""
    (_CHILDREN.get() or Children()).pause(seconds)
