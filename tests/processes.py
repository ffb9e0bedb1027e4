"""Watching other processes from a test."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil


def read(path: Path) -> str:
    """The file's text; empty as long as there is no file."""
    return path.read_text() if path.exists() else ""


def alive(pid: int) -> bool:
    """Whether the process runs. In a container whose first process reaps nobody, the dead stay listed as zombies."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], Any], seconds: float) -> Any:
    """Wait until the condition says something, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.2)
    return found
