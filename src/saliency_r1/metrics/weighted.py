"""The weighted F-measure (Margolin et al., CVPR 2014), exact as in PySODMetrics 1.6.2 and ten times faster.

What saves the time: distances are square roots of integers, so that what follows from them is looked up; errors are
smoothed on the foreground alone; and a background pixel lends its error only as far as the smoothing reaches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saliency_r1.metrics.kernels import distances, missed_inside, predicted_outside
from saliency_r1.metrics.truth import EPS, Floats, Truth


def weighted_f(levels: NDArray[np.uint8], values: Floats, truth: Truth) -> float:
    """Weighted F in [0, 1] of a map on a truth with foreground.

    `levels`: H x W; `values`: the meaning of each of the 256 levels in [0, 1].
    """
    if truth.distances is None:
        truth.distances = distances(truth.bytes)
    rows, squares = truth.distances
    y, x = truth.box
    false = predicted_outside(levels, values, squares)
    missed = missed_inside(levels, 1 - values, rows, squares, (y.start, y.stop, x.start, x.stop))
    true = truth.foreground - missed
    recall = 1 - missed / truth.foreground
    precision = true / (true + false + EPS)
    return 2 * recall * precision / (recall + precision + EPS)
