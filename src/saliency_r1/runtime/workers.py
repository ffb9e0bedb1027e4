"""Work in several processes of this machine, which end with the one that has started them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from saliency_r1.runtime.parent import die_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")


class WorkerError(ValueError):
    """A process ended before its work did."""


def spread(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """What `work` makes of each job, in the order of the jobs, from at most so many processes.

    One process, or one job, is this process. Others are fresh: a fork would copy the locks of the threads that numpy
    and polars have started. Raises what `work` raises, and `WorkerError` where a process ends by itself or is killed.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (os.getpid(),)) as pool:
        try:
            yield from pool.map(work, jobs)
        except BrokenProcessPool:
            raise WorkerError(
                f"one of {workers} processes ended before its work did; what it had to say stands above. Where that is "
                "nothing it was killed, most often for want of memory: run it with fewer (--workers, where the command "
                "has it)"
            ) from None


def _begin(parent: int) -> None:
    """A killed parent tells its workers nothing, and they would wait for the next job for ever."""
    die_with_parent(parent)
    import cv2

    cv2.setNumThreads(1)  # the other processors have a process each
