"""Ending with one's parent, so that no orphan goes on training beside the next run."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STARTED_BY_PROGRAM = ("DVC_STAGE", "TORCHELASTIC_RUN_ID")  # set by DVC, and by torchrun and all that is built on it


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel for SIGTERM when the parent dies; end at once if `parent`, its process id, is gone already."""
    if sys.platform == "linux":
        expected = os.getppid() if parent is None else parent
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != expected:  # it died before the kernel knew about us
            sys.exit(128 + signal.SIGTERM)


def die_with_program() -> None:
    """`die_with_parent` where the parent is DVC or a launcher of processes.

    A killed `dvc repro`, or a cancelled flow, takes its stages along; without this they survive as orphans. A person's
    shell is another matter: what `nohup python stages/cgpo.py &` started is meant to outlive it.
    """
    if any(name in os.environ for name in _STARTED_BY_PROGRAM):
        die_with_parent()
