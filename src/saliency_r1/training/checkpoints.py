"""Resume checkpoints: one file a checkpoint, written aside and renamed, the newest two kept.

They live in `runs/<stage>/<key>/`, outside of DVC's sight: the key (`runtime.keys`) is a hash of everything that
decides the run, so a run with other parameters never continues an old one. A finished stage discards its own.
"""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from saliency_r1.runtime import processes
from saliency_r1.training.errors import TrainingError

KEPT = 2
# Raised by files that were cut off, are no checkpoints, or hold something else.
_UNREADABLE = (RuntimeError, EOFError, OSError, KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile)


def inputs(download: Path, annotate: Path) -> list[Path]:
    """What a training reads of these two stages. The report stands for the images: it names their bytes by hash."""
    return [download / "report.json", download / "table.parquet", download / "models", annotate / "table.parquet"]


def save(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) as the checkpoint of `step`; drop all but the newest two.

    The file appears under its name only when it is complete. Only the first process writes it. Raises
    `OSError` with its name where it cannot be written; the incomplete file is removed, earlier checkpoints stay.
    """
    if not processes.is_main():
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:07d}.pt"
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as stream:
            torch.save({"step": step, **state}, stream)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        # torch says at which byte its file broke off; what the file system had said stands behind that.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error
    for old in sorted(folder.glob("step-*.pt"))[:-KEPT]:
        old.unlink()


def load(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, None if there is none. A damaged one is named and passed over.

    All processes come here together. Raises `TrainingError` when they find different ones, as on machines that do not
    share the folder.
    """
    state = _newest(folder)
    steps = processes.gather([state["step"] if state else 0])
    if len(set(steps)) > 1:
        raise TrainingError(
            f"the processes find checkpoints of different steps in {folder}: {', '.join(map(str, steps))} (0: none). "
            "All of them must read the same folder; delete it to start anew"
        )
    return state


def _newest(folder: Path) -> dict[str, Any] | None:
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if processes.is_main():
                print(f"resuming after step {state['step']} from {path}", flush=True)
            return state
        except _UNREADABLE as error:
            print(f"{path} cannot be read ({type(error).__name__}); trying the one before", flush=True)
    return None


def discard(folder: Path) -> None:
    """Remove the checkpoints of a run whose result is stored: the next run, a forced one, starts anew."""
    if folder.exists():
        shutil.rmtree(folder)
