"""One run in several processes, each with a share of every batch.

Started by `python -m saliency_r1.runtime.launch`, by `torchrun` or by `accelerate launch`, which all set the same
variables; a run started as usual is one process, and every function here is then trivial. Each process holds the whole
policy; what they exchange is gradients (summed before every step) and small Python objects.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from saliency_r1.runtime.files import atomic_folder

if TYPE_CHECKING:
    from torch import Tensor, device

T = TypeVar("T")
Row = TypeVar("Row", bound=Mapping[str, Any])
R = TypeVar("R")
PATIENCE = timedelta(days=1)  # with another process: shares of hours end many minutes apart, and NCCL waits for ten
TOGETHER = 1 << 24  # numbers summed over the processes in one exchange, of which a copy is made: 64 MB in float32


def count() -> int:
    """How many processes the run has, as its launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def index() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that reports and writes."""
    return index() == 0


def join(where: device) -> device:
    """Meet the other processes, if there are any; returns the device that is this process's own."""
    if count() == 1:
        return where
    from accelerate import PartialState

    own: device = PartialState(cpu=where.type == "cpu", timeout=PATIENCE).device
    return where if where.type == "cpu" else own


def wait() -> None:
    """Go on when all processes have come here."""
    if count() > 1:
        import torch.distributed

        torch.distributed.barrier()


def shard_indices(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The positions of a batch that fall to this process: dealt out in turn, from the fewest images to the most.

    `rows` are rows of the sample table; images decide how much work a row is.
    """
    order = sorted(range(len(rows)), key=lambda position: (len(rows[position]["images"]), position))
    return sorted(order[index() :: count()])


def gather(items: Sequence[T]) -> list[T]:
    """The items of all processes, those of process 0 first; the same list everywhere."""
    if count() == 1:
        return list(items)
    import torch.distributed

    parts: list[list[T]] = [[] for _ in range(count())]
    torch.distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def map_sharded(rows: Sequence[Row], work: Callable[[list[Row]], Iterable[R]]) -> list[R]:
    """`work` on this process's share of the rows; returns the results of all, one a row, in the rows' order."""
    mine = shard_indices(rows)
    results = list(work([rows[position] for position in mine]))
    together = sorted(gather(list(zip(mine, results, strict=True))), key=lambda pair: pair[0])
    return [result for _, result in together]


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes; small ones travel together, at most `TOGETHER` numbers."""
    if count() == 1:
        return
    import torch
    import torch.distributed

    waiting: list[Tensor] = []

    def exchange() -> None:
        if waiting:
            flat = torch.cat([tensor.reshape(-1) for tensor in waiting])
            torch.distributed.all_reduce(flat)
            for tensor, total in zip(waiting, flat.split([tensor.numel() for tensor in waiting])):
                tensor.copy_(total.view_as(tensor))
            waiting.clear()

    for tensor in tensors:
        if tensor.numel() > TOGETHER // 2 and tensor.is_contiguous():
            torch.distributed.all_reduce(tensor)  # in place, without a copy
            continue
        if sum(other.numel() for other in waiting) + tensor.numel() > TOGETHER:
            exchange()
        waiting.append(tensor)
    exchange()


@contextlib.contextmanager
def shared_folder(path: Path | str) -> Iterator[Path]:
    """An `atomic_folder` that all processes write into; it takes its place when the last of them is done."""
    if is_main():
        with atomic_folder(path) as folder:
            gather([folder])
            yield folder
            wait()
    else:
        folder = gather([])[0]
        yield folder
        wait()
