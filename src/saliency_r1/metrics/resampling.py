"""The Poisson bootstrap (Chamandy et al., 2012): how often each replicate of a data set contains an image.

The draw depends on the seed and the name alone. So replicates do not depend on the order of the images or on the
division of the work, they need no memory of the images, and two results on the same images are paired by themselves.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saliency_r1.metrics.truth import Floats


class Difference(NamedTuple):
    """How much higher the second of two results is, with its 95 % interval and two-sided bootstrap p-value."""

    value: float
    low: float
    high: float
    p: float


def draw(seed: int, name: str, replicates: int) -> NDArray[np.uint8]:
    """How often each replicate contains what has this name; uint8 of length `replicates`, mean 1."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())]).poisson(1, replicates).astype(np.uint8)


def intervals(replicates: Mapping[str, Floats], level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Percentile interval of each measure from its replicates."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {key: (float(low), float(high)) for key, v in replicates.items() for low, high in [np.quantile(v, tails)]}


def differences(
    before: Mapping[str, float],
    after: Mapping[str, float],
    before_replicates: Mapping[str, Floats],
    after_replicates: Mapping[str, Floats],
    units: int,
) -> dict[str, Difference]:
    """The second minus the first of two results with paired replicates, in which so many things were drawn.

    By chance alone all of `units` differences have one sign in 2^(1 - units) of the cases, so that no p-value is lower;
    nor is one below 1 / B, which of B replicates cannot be told from 0.
    """
    least = 2.0 ** (1 - units)
    found = {}
    for key, theirs in after_replicates.items():
        change = theirs - before_replicates[key]
        low, high = np.quantile(change, [0.025, 0.975])
        rarer = float(min(np.mean(change <= 0), np.mean(change >= 0)))
        p = min(1.0, max(2 * rarer, 1 / len(change), least))
        found[key] = Difference(after[key] - before[key], float(low), float(high), p)
    return found
