"""Ground truth, prepared for the measures, and the choices in which evaluators of the field differ."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Box = tuple[slice, slice]

EPS = float(np.spacing(1.0))


class MeasureError(ValueError):
    """Something that cannot be scored as it is; the message says what to do."""


@dataclass(frozen=True)
class Protocol:
    """The choices in which evaluators of the field differ; the defaults are PySODMetrics'.

    `stretch`: min-max stretch every map to [0, 1] first. `thresholds`: 256 counts levels `>= 0..255`; any other number
    means `linspace(0, 1 - 1e-10, thresholds)` as in the CoSOD evaluators (255 there). `empty`: for a ground truth
    without foreground, "zero" gives F, weighted F, IoU and Dice 0 whatever was predicted, "agree" gives 1 where
    nothing was predicted. `beta2`: weight of precision in F. `gt_threshold`: a ground truth pixel is foreground if
    above it. `void`: the value, as the file holds it, of ground truth pixels that are not scored; readers of files make
    them background in truth and map alike. None: there are none.
    """

    stretch: bool = True
    thresholds: int = 256
    empty: Literal["zero", "agree"] = "zero"
    beta2: float = 0.3
    gt_threshold: int = 128
    void: int | None = None

    @property
    def name(self) -> str:
        """`pysodmetrics`, followed by whatever differs from it."""
        changed = [
            f"{f.name}={getattr(self, f.name)}"
            for f in fields(self)
            if getattr(self, f.name) != getattr(Protocol, f.name)
        ]
        return " ".join(["pysodmetrics", *changed])


DEFAULT = Protocol()


class Truth:
    """A ground truth prepared once for many predictions.

    `mask`: bool H x W; `foreground` and `size`: pixels. The terms of the weighted F-measure that depend on the ground
    truth alone are added at first use and take 4 bytes a pixel.

    Raises MeasureError unless the array has two dimensions and a pixel, for values that are negative or not finite, and
    for those that are not all 0 and none of them above the threshold (masks stored as 0/1, for example), which every
    evaluator of the field takes for empty.
    """

    def __init__(self, gt: Array, threshold: int = DEFAULT.gt_threshold) -> None:
        if gt.ndim != 2 or gt.size == 0:
            raise MeasureError(f"a ground truth has height and width, got the shape {gt.shape}")
        if gt.dtype != bool:
            smallest, largest = gt.min(), gt.max()
            if not 0 <= smallest <= largest < np.inf:
                raise MeasureError(
                    f"ground truth with values from {smallest} to {largest}, expected 0 to 255 or bool: pass the mask "
                    "as uint8 or bool"
                )
            if 0 < largest <= threshold:
                raise MeasureError(
                    f"ground truth with values up to {largest}, none above {threshold}: multiply it, pass it as bool, "
                    "or lower the threshold (gt_threshold)"
                )
            gt = gt > threshold
        self.mask: NDArray[np.bool_] = np.ascontiguousarray(gt)
        self.bytes: NDArray[np.uint8] = self.mask.view(np.uint8)
        self.size = gt.size
        self.foreground = int(np.count_nonzero(gt))
        self.shape: tuple[int, int] = gt.shape
        self.distances: tuple[NDArray[np.int16], NDArray[np.uint16]] | None = None

    @classmethod
    def of(cls, gt: Array | Truth, threshold: int = DEFAULT.gt_threshold) -> Truth:
        """`gt` itself if it is prepared already."""
        return gt if isinstance(gt, Truth) else cls(gt, threshold)

    @cached_property
    def box(self) -> Box:
        """Bounding box of the foreground, empty where there is none."""
        return bounding_box(self.bytes)

    @cached_property
    def quadrants(self) -> list[Box]:
        """Left top, right top, left bottom, right bottom; the centroid's own row and column belong to the first."""
        height, width = self.shape
        rows = cv2.reduce(self.bytes, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0]
        columns = cv2.reduce(self.bytes, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0]
        count = max(self.foreground, 1)
        row = round(int(rows @ np.arange(height)) / count) + 1
        column = round(int(columns @ np.arange(width)) / count) + 1
        return [(y, x) for y in (slice(0, row), slice(row, height)) for x in (slice(0, column), slice(column, width))]

    @cached_property
    def counts(self) -> list[tuple[int, int]]:
        """Background and foreground pixels of each quadrant."""
        parts = [self.bytes[quadrant] for quadrant in self.quadrants]
        inside = [cv2.countNonZero(part) if part.size else 0 for part in parts]
        return [(part.size - n, n) for part, n in zip(parts, inside)]


def bounding_box(image: NDArray[np.uint8]) -> Box:
    """Rows and columns of the smallest box around all pixels above 0."""
    x, y, width, height = cv2.boundingRect(image)
    return slice(y, y + height), slice(x, x + width)
