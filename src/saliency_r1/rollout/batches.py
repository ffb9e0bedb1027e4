"""Which samples a step sees, and how they are cut into padded batches.

A step's samples are a function of (seed, step) alone, so that a resumed run needs no sampler state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def epoch_batch(count: int, size: int, step: int, seed: int) -> list[int]:
    """Indices of batch `step` (from 0) when `count` samples are shuffled anew every epoch.

    Batches run on across epochs: with 10 samples and batches of 4, batch 2 holds two of the first epoch and two of the
    second. Raises `ValueError` when a batch is larger than the data.
    """
    if not 0 < size <= count:
        raise ValueError(f"a batch of {size} cannot be drawn from {count} samples; lower batch_size or add data")
    first = step * size
    positions = range(first, first + size)
    epochs = {position // count for position in positions}
    order = {epoch: np.random.default_rng((seed, epoch)).permutation(count) for epoch in epochs}
    return [int(order[position // count][position % count]) for position in positions]


def buckets(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Positions 0..n-1 sorted by length and cut into runs of at most `size`: neighbours need little padding."""
    order = sorted(range(len(lengths)), key=lambda position: (lengths[position], position))
    return [order[start : start + size] for start in range(0, len(order), size)]
