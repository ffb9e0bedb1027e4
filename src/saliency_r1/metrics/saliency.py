"""Measures of one saliency map against one binary ground truth, in integer form.

An 8-bit map has 256 levels. The structure measure needs the exact integer sums of levels and of their squares in the
four quadrants around the centroid of the ground truth, inside and outside of the foreground; precision, recall, F and E
need a histogram of either class. `Pair` counts these once, and every measure but the weighted F-measure follows from
them. Definitions and defaults are those of PySODMetrics 1.6.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from saliency_r1.metrics.truth import DEFAULT, EPS, Array, Box, Floats, MeasureError, Protocol, Truth

_LEVELS = np.arange(256) / 255

GroundTruths = Array | Truth | Sequence[Array | Truth]


class Curves(NamedTuple):
    """Values by threshold, rising: four float64 arrays of length `protocol.thresholds`, all in [0, 1].

    But E is normalised by one pixel less than there are, as published: a perfect map of N pixels has N / (N - 1).
    """

    precision: Floats
    recall: Floats
    f: Floats
    e: Floats


class Moments(NamedTuple):
    """Pixels of one class: how many, the sum of their levels and the sum of the squares of their levels."""

    n: int
    first: int
    second: int

    def __add__(self, other: Moments) -> Moments:  # type: ignore[override]
        return Moments(self.n + other.n, self.first + other.first, self.second + other.second)

    def scatter(self) -> float:
        """Sum of the squared distances from the mean, in squared levels; exactly 0 for equal levels."""
        return (self.n * self.second - self.first * self.first) / self.n if self.n else 0.0


class Pair:
    """One prediction beside one ground truth; every measure is computed at most once.

    `pred`: H x W, uint8 in [0, 255], or bool, or float in [0, 1]. A float map is rounded to the 8 bits in which maps
    are stored (`to_levels`), so that it scores as the written file does; uint16 is rounded likewise.

    Raises MeasureError (a ValueError) for shapes that differ, floats outside [0, 1] or not finite, TypeError for
    other types.
    """

    def __init__(self, pred: Array, gt: Array | Truth, protocol: Protocol = DEFAULT) -> None:
        self.truth = Truth.of(gt, protocol.gt_threshold)
        if pred.shape != self.truth.shape:
            raise MeasureError(f"prediction is {pred.shape}, ground truth {self.truth.shape}")
        self.protocol = protocol
        self.levels = np.ascontiguousarray(to_levels(pred))
        low, high = (int(level) for level in cv2.minMaxLoc(self.levels)[:2])
        self.empty = high == 0
        # The levels that mean 0 and 1; a map of a single level is never stretched.
        self.low, self.high = (low, high) if protocol.stretch and low < high else (0, 255)

    @cached_property
    def values(self) -> Floats:
        """What each of the 256 levels means in [0, 1]."""
        low, high = _LEVELS[self.low], _LEVELS[self.high]
        return np.clip((_LEVELS - low) / (high - low), 0, 1)

    @cached_property
    def moments(self) -> list[tuple[Moments, Moments]]:
        """Background and foreground of each quadrant."""
        inside = self.levels * self.truth.bytes
        moments = []
        for quadrant, (background, foreground) in zip(self.truth.quadrants, self.truth.counts):
            if not background + foreground:
                moments.append((Moments(0, 0, 0), Moments(0, 0, 0)))
                continue
            first, second = _sums(self.levels[quadrant])
            first_inside, second_inside = _sums(inside[quadrant]) if foreground else (0, 0)
            below = Moments(background, first - first_inside, second - second_inside)
            moments.append((below, Moments(foreground, first_inside, second_inside)))
        return moments

    @cached_property
    def total(self) -> tuple[Moments, Moments]:
        """Background and foreground of the image."""
        (a, e), (b, f), (c, g), (d, h) = self.moments
        return a + b + c + d, e + f + g + h

    @cached_property
    def by_class(self) -> Floats:
        """Histograms of background and foreground, 2 x 256."""
        from saliency_r1.metrics.kernels import histograms  # Numba takes a third of a second; a reward never needs it

        return histograms(self.levels, self.truth.bytes)

    @cached_property
    def mean(self) -> float:
        """Mean of the map in [0, 1]."""
        background, foreground = self.total
        return self._mean(background + foreground)

    def _mean(self, moments: Moments) -> float:
        return (moments.first - self.low * moments.n) / (moments.n * (self.high - self.low))

    @cached_property
    def mae(self) -> float:
        """Mean absolute error in [0, 1]."""
        background, foreground = self.total
        error = background.first - self.low * background.n + self.high * foreground.n - foreground.first
        return error / (self.truth.size * (self.high - self.low))

    @cached_property
    def s_measure(self) -> float:
        """Structure measure in [0, 1], alpha = 0.5 (Fan et al., ICCV 2017)."""
        truth = self.truth
        if truth.foreground == 0:
            return 1 - self.mean
        if truth.foreground == truth.size:
            return self.mean
        return max(0.0, 0.5 * self._object() + 0.5 * self._region())

    def _object(self) -> float:
        score, unit = 0.0, (self.high - self.low) ** 2
        background, foreground = self.total
        for moments, mean in ((background, 1 - self._mean(background)), (foreground, self._mean(foreground))):
            deviation = (moments.scatter() / unit / max(moments.n - 1, 1)) ** 0.5
            score += 2 * mean / (mean * mean + 1 + deviation + EPS) * moments.n / self.truth.size
        return score

    def _region(self) -> float:
        score, unit = 0.0, (self.high - self.low) ** 2
        for k, (background, foreground) in enumerate(self.moments):
            both = background + foreground
            if both.n == 0:  # PySODMetrics returns nan here
                continue
            degrees = both.n - 1 + EPS
            if background.n and foreground.n:
                x, y = self._mean(both), foreground.n / both.n
                var_x, var_y = both.scatter() / unit / degrees, foreground.n * (1 - y) / degrees
                cov = foreground.n * (self._mean(foreground) - x) / degrees
                ssim = 4 * x * y * cov / ((x * x + y * y) * (var_x + var_y) + EPS)
            else:
                ssim = float(self._uniform(k, both))
            score += ssim * both.n / self.truth.size
        return score

    def _uniform(self, k: int, moments: Moments) -> bool:
        """Whether PySODMetrics finds no variance in a quadrant where the ground truth has none."""
        if moments.scatter() > 0:
            return False
        value = self.values[moments.first // moments.n]
        if value in (0, 1):
            return True
        return sums_exactly(value, self.truth.shape, self.truth.quadrants[k])

    @cached_property
    def curves(self) -> Curves:
        """Precision, recall, F and E by threshold."""
        return Curves(*(curve[:-1] for curve in self._thresholded))

    @cached_property
    def adaptive(self) -> tuple[float, float]:
        """F and E at the threshold of twice the mean of the map, at most 1."""
        return float(self._thresholded.f[-1]), float(self._thresholded.e[-1])

    @cached_property
    def _thresholded(self) -> Curves:
        """The curves, and behind their last point the one at the adaptive threshold."""
        if self.protocol.thresholds == 256:
            lowest = np.searchsorted((self.values * 255).astype(np.uint8), np.arange(256))
        else:
            lowest = np.searchsorted(self.values, np.linspace(0, 1 - 1e-10, self.protocol.thresholds))
        selected = np.zeros((2, 257))
        selected[:, 255::-1] = np.cumsum(self.by_class[:, ::-1], axis=1)
        false, true = selected[:, np.append(lowest, self._lowest_adaptive())]
        truth, beta2 = self.truth, self.protocol.beta2
        precision = true / np.maximum(true + false, 1)
        recall = true / max(truth.foreground, 1)
        product = (1 + beta2) * precision * recall
        f = product / np.where(product == 0, 1, beta2 * precision + recall)
        if truth.foreground == 0 and self.protocol.empty == "agree":
            precision = recall = f = (false == 0).astype(float)
        return Curves(precision, recall, f, _enhanced_alignment(true, false, truth))

    def _lowest_adaptive(self) -> int:
        """The lowest level selected by the adaptive threshold, 256 if none is."""
        if self.empty and self.protocol.empty == "agree":
            return 256
        threshold, values = min(2 * self.mean, 1.0), self.values
        if np.any(np.abs(values - threshold) < 1e-12):
            # A level lies on the threshold: only the mean as PySODMetrics sums it tells on which side.
            threshold = min(2 * float(values[self.levels].mean()), 1.0)
        return int(np.searchsorted(values, threshold))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The pixels of the map above 0.5, bool H x W."""
        return np.asarray(self.levels >= int(np.searchsorted(self.values, 0.5, side="right")))

    @cached_property
    def overlap(self) -> tuple[float, float]:
        """Intersection over union and Dice of the map above 0.5, in [0, 1]."""
        selected = self.mask.view(np.uint8)
        area, true = cv2.countNonZero(selected), cv2.countNonZero(selected & self.truth.bytes)
        union = area + self.truth.foreground - true
        if union == 0:
            agree = float(self.protocol.empty == "agree")
            return agree, agree
        return true / union, 2 * true / (union + true)

    @cached_property
    def weighted_f(self) -> float:
        """Weighted F-measure in [0, 1], beta^2 = 1 (Margolin et al., CVPR 2014)."""
        if self.truth.foreground == 0:
            return float(self.protocol.empty == "agree" and self.empty)
        from saliency_r1.metrics.weighted import weighted_f  # Numba, as above

        return weighted_f(self.levels, self.values, self.truth)

    def scores(self, weighted: bool = True) -> dict[str, float]:
        """Every measure of this image; `maxFm` and `meanFm` are of its own curve. `weighted=False` leaves out `wFm`."""
        f, e = self.curves.f, self.curves.e
        return {
            "Sm": self.s_measure,
            **({"wFm": self.weighted_f} if weighted else {}),
            "MAE": self.mae,
            "maxFm": float(f.max()),
            "meanFm": float(f.mean()),
            "adpFm": self.adaptive[0],
            "maxEm": float(e.max()),
            "meanEm": float(e.mean()),
            "adpEm": self.adaptive[1],
            "IoU": self.overlap[0],
            "Dice": self.overlap[1],
        }


def to_levels(pred: Array) -> NDArray[np.uint8]:
    """A map of any accepted type as uint8 levels in [0, 255]; see `Pair`.

    Floats are rounded to the nearest level and one half down, so that levels above 127 are exactly what was above .5.
    """
    if pred.dtype == np.uint8:
        return pred
    if pred.dtype == bool:
        return pred.view(np.uint8) * np.uint8(255)
    if pred.dtype == np.uint16:
        return ((pred.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not np.issubdtype(pred.dtype, np.floating):
        raise TypeError(f"a saliency map is bool, uint8, uint16 or float, got {pred.dtype}")
    if pred.size and not (pred.min() >= 0 and pred.max() <= 1):
        raise MeasureError("a float saliency map lies in [0, 1]")
    scaled = pred * 255
    scaled -= 0.5
    return np.ceil(scaled, out=scaled).astype(np.uint8)


def sums_exactly(value: float, shape: tuple[int, int], quadrant: Box) -> bool:
    """Whether the mean of equal numbers over a quadrant of an image is not rounded.

    On this hangs PySODMetrics' verdict on a uniform grey quadrant (1 or 0), so the very sum is repeated.
    """
    return bool(np.full(shape, value)[quadrant].mean() == value)


def _sums(levels: NDArray[np.uint8]) -> tuple[int, int]:
    """The sum of levels and of their squares."""
    # OpenCV may square a root here, hence the rounding.
    return round(cv2.sumElems(levels)[0]), round(cv2.norm(levels, cv2.NORM_L2SQR))


def _enhanced_alignment(true: Floats, false: Floats, truth: Truth) -> Floats:
    """E-measure (Fan et al., IJCAI 2018) of binary maps with so many true and false positives.

    It lies in [0, N / (N - 1)] for N pixels.
    """
    size, foreground = truth.size, truth.foreground
    selected = true + false
    # The published normaliser is one pixel short; a map of one pixel has none to spare.
    normaliser = max(size - 1 + EPS, 1)
    if foreground == 0:
        return (size - selected) / normaliser
    if foreground == size:
        return selected / normaliser
    missed = foreground - true
    mean, gt_mean = selected / size, foreground / size
    total = np.zeros_like(mean)
    for pixels, a, b in (
        (true, 1 - mean, 1 - gt_mean),
        (false, 1 - mean, -gt_mean),
        (missed, -mean, 1 - gt_mean),
        (size - selected - missed, -mean, -gt_mean),
    ):
        alignment = 2 * (a * b) / (a**2 + b**2 + EPS)
        total += (alignment + 1) ** 2 / 4 * pixels
    return total / normaliser


@overload
def s_measure(pred: Array, gt: Array | Truth, protocol: Protocol = ...) -> float: ...
@overload
def s_measure(
    pred: Sequence[Array], gt: Array | Truth | Sequence[Array | Truth], protocol: Protocol = ...
) -> Floats: ...
def s_measure(pred: Any, gt: Any, protocol: Protocol = DEFAULT) -> float | Floats:
    """Structure measure in [0, 1] of one map (H x W), or of each of a batch (N x H x W, or a sequence of maps).

    A batch meets one ground truth or one each. Types and errors as in `Pair`.
    """
    if isinstance(pred, np.ndarray) and pred.ndim == 2:
        return Pair(pred, gt, protocol).s_measure
    return sm_and_iou(pred, gt, protocol)[0]


@overload
def iou(pred: Array, gt: Array | Truth, protocol: Protocol = ...) -> float: ...
@overload
def iou(pred: Sequence[Array], gt: GroundTruths, protocol: Protocol = ...) -> Floats: ...
def iou(pred: Any, gt: Any, protocol: Protocol = DEFAULT) -> float | Floats:
    """Intersection over union in [0, 1] of the map above 0.5; one map or a batch, as in `s_measure`."""
    if isinstance(pred, np.ndarray) and pred.ndim == 2:
        return Pair(pred, gt, protocol).overlap[0]
    return np.array([pair.overlap[0] for pair in _pairs(pred, gt, protocol)])


def sm_and_iou(preds: Sequence[Array], gts: GroundTruths, protocol: Protocol = DEFAULT) -> tuple[Floats, Floats]:
    """`s_measure` and `iou` of a batch, counting each pair once; two float64 arrays of length N."""
    both = [(pair.s_measure, pair.overlap[0]) for pair in _pairs(preds, gts, protocol)]
    scores = np.array(both).reshape(-1, 2)
    return scores[:, 0], scores[:, 1]


def _pairs(preds: Sequence[Array], gts: GroundTruths, protocol: Protocol) -> Iterable[Pair]:
    if isinstance(gts, Truth) or (isinstance(gts, np.ndarray) and gts.ndim == 2):
        gts = [Truth.of(gts, protocol.gt_threshold)] * len(preds)
    return (Pair(pred, gt, protocol) for pred, gt in zip(preds, gts, strict=True))
