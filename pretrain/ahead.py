"""What both trainings do to be quick: batches that other processes make ahead, and half precision where it helps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from saliency_r1.runtime.stage import imitates_bfloat16

WORKERS = max(0, (os.cpu_count() or 1) // 2 - 1)  # two trainings at once; none where there are a few cores only


def half_on_cpu() -> torch.autocast:
    """Bfloat16 where the CPU has instructions for it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=not imitates_bfloat16())


class _Steps(Dataset):
    """A batch for every step, by the function that makes it."""

    def __init__(self, make: Callable[[int], Any], steps: int) -> None:
        self.make, self.steps = make, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        return self.make(step)


class Ahead:
    """Called with one step after another, `ahead(step)` is `make(step)`, a pure function, computed before by others.

    What `make` returns must be on the CPU: the workers are forks and may not touch an accelerator.
    """

    def __init__(self, make: Callable[[int], Any], steps: int) -> None:
        self.make, self.steps = make, steps
        self._batches: Iterator[Any] | None = None
        self._next = -1

    def __call__(self, step: int) -> Any:
        """The batch of a step. Raises `ValueError` where it is not the one after the step asked for before."""
        if not WORKERS:
            return self.make(step)
        if self._batches is not None and step != self._next:
            raise ValueError(f"step {step} was asked for, and step {self._next} is the next one")
        self._next = step + 1
        if self._batches is None:
            torch.multiprocessing.set_sharing_strategy("file_system")  # a batch is many tensors, files are few
            loader = DataLoader(
                _Steps(self.make, self.steps),
                batch_size=None,
                sampler=range(step, self.steps),
                num_workers=WORKERS,
                prefetch_factor=4,
                collate_fn=_as_it_is,
            )
            self._batches = iter(loader)
        return next(self._batches)


def _as_it_is(batch: Any) -> Any:
    return batch
