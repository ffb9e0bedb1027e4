"""Loops over pixels, compiled by Numba: histograms by class, and what the weighted F-measure needs.

A function is compiled at its first call ever (about two seconds in all) and kept beside this file, or in the user's
cache folder. Images are H x W throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from saliency_r1.metrics.truth import Floats

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int16]
Squares = NDArray[np.uint16]
Bounds = tuple[int, int, int, int]

# Squared distances end here, and rows at the root of it: beyond, a weight is 2 but for 4e-16.
FARTHEST = 2**16 - 1
_MOST_ROWS = np.int16(2**8)

# The importance of an error by its squared distance to the foreground, 0 on it (Margolin et al., CVPR 2014).
WEIGHTS = 2 - np.exp(np.log(0.5) / 5 * np.sqrt(np.arange(FARTHEST + 1)))
WEIGHTS[0] = 0

# The Gaussian that smooths errors: 7 x 7, standard deviation 5. It is symmetric, so four numbers tell it.
_REACH = 3
_TAPS = 2 * _REACH + 1
_GAUSS = np.exp(-(np.arange(-_REACH, _REACH + 1) ** 2) / 50.0)
_GAUSS /= _GAUSS.sum()


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # no folder to keep it in can be written
        return njit(function)


@_compiled
def histograms(levels: Bytes, inside: Bytes) -> Floats:
    """How often each of the 256 levels is where `inside` is 0 and where it is 1: 2 x 256."""
    # Four counters in turn: on a map of few levels each addition would have to wait for the one before.
    counts = np.zeros((4, 2, 256), np.int32)
    for y in range(levels.shape[0]):
        level, side = levels[y], inside[y]
        for x in range(levels.shape[1]):
            counts[x & 3, side[x], level[x]] += 1
    return counts.sum(0).astype(np.float64)


@_compiled
def distances(inside: Bytes) -> tuple[Rows, Squares]:
    """Where the nearest foreground is, for a mask (0 or 1) that has some.

    Two arrays: the rows to the nearest foreground of the same column, negative for upwards, at most 256; and the
    squared distance to the nearest foreground of all, at most `FARTHEST`: the lower envelope of a row's parabolas
    (Felzenszwalb and Huttenlocher, 2012).
    """
    height, width = inside.shape
    rows, squares = _rows_away(inside), np.empty((height, width), np.uint16)
    # A parabola's column, its value at x = 0, and the first x at which it is lower than those of columns before it.
    column, cost, start = np.empty(width, np.int32), np.empty(width, np.int64), np.empty(width, np.int32)
    lowest = np.empty(width, np.int32)
    for y in range(height):
        away, out = rows[y], squares[y]
        top = -1
        for x in range(width):
            own = np.int64(away[x]) ** 2 + x * x
            while top >= 0 and own - cost[top] < 2 * start[top] * (x - column[top]):
                top -= 1
            first = int((own - cost[top]) / (2 * (x - column[top]))) + 1 if top >= 0 else 0
            if first < width:
                top += 1
                column[top], cost[top], start[top] = x, own, first
        lowest[:] = -1
        for k in range(top + 1):
            lowest[start[k]] = column[k]
        for x in range(1, width):
            lowest[x] = lowest[x] if lowest[x] >= 0 else lowest[x - 1]
        for x in range(width):
            vertical, horizontal = np.int64(away[lowest[x]]), np.int64(x - lowest[x])
            out[x] = min(vertical * vertical + horizontal * horizontal, FARTHEST)
    return rows, squares


@_compiled
def _rows_away(inside: Bytes) -> Rows:
    """The first array of `distances`; upwards where both are equally near."""
    height, width = inside.shape
    rows = np.empty((height, width), np.int16)
    away = np.full(width, _MOST_ROWS)
    for y in range(height):
        _one_row_on(away, inside[y])
        rows[y] = -away
    away[:] = _MOST_ROWS
    for y in range(height - 1, -1, -1):
        _one_row_on(away, inside[y])
        out = rows[y]
        for x in range(width):
            out[x] = away[x] if away[x] < -out[x] else out[x]
    return rows


@_compiled
def _one_row_on(away: Rows, inside: Bytes) -> None:
    """Rows since the last foreground of each column, brought up to the next row."""
    for x in range(len(away)):
        away[x] = min(np.int16(away[x] + np.int16(1)), _MOST_ROWS) * np.int16(1 - inside[x])


@_compiled
def predicted_outside(levels: Bytes, values: Floats, squares: Squares) -> float:
    """What is predicted on the background, each pixel with its importance; `values`: what each level means."""
    total = 0.0
    for y in range(levels.shape[0]):
        level, square = levels[y], squares[y]
        for x in range(levels.shape[1]):
            total += values[level[x]] * WEIGHTS[square[x]]
    return total


@_compiled
def missed_inside(levels: Bytes, errors: Floats, rows: Rows, squares: Squares, bounds: Bounds) -> float:
    """Sum over the foreground of its error or its smoothed error, whichever is less.

    `errors`: that of each level on foreground; `bounds`: top, bottom, left and right of the foreground, the second and
    the last not included.
    """
    top, bottom, left, right = bounds
    width = right - left
    # The last seven rows of errors, three pixels wider on both sides, and the sum over them.
    ring, down = np.zeros((_TAPS, width + 2 * _REACH)), np.empty(width + 2 * _REACH)
    total = 0.0
    for last in range(top - _REACH, bottom + _REACH):
        _error_row(ring[last % _TAPS], levels, errors, rows, squares, last, left - _REACH)
        y = last - _REACH
        if y < top:
            continue
        a, b, c, d = ring[(y - 3) % _TAPS], ring[(y - 2) % _TAPS], ring[(y - 1) % _TAPS], ring[y % _TAPS]
        e, f, g = ring[(y + 1) % _TAPS], ring[(y + 2) % _TAPS], ring[(y + 3) % _TAPS]
        for x in range(width + 2 * _REACH):
            down[x] = _smooth(a[x] + g[x], b[x] + f[x], c[x] + e[x], d[x])
        square = squares[y, left:right]
        for x in range(width):
            if square[x] == 0:
                ends, middle = down[x] + down[x + 6], down[x + 2] + down[x + 4]
                total += min(_smooth(ends, down[x + 1] + down[x + 5], middle, down[x + 3]), d[x + _REACH])
    return total


@_compiled
def _smooth(third: float, second: float, first: float, centre: float) -> float:
    """The Gaussian's sum, given the sums of both neighbours at each distance."""
    return _GAUSS[0] * third + _GAUSS[1] * second + _GAUSS[2] * first + _GAUSS[3] * centre


@_compiled
def _error_row(out: Floats, levels: Bytes, errors: Floats, rows: Rows, squares: Squares, y: int, left: int) -> None:
    """Write row y of the errors, from column `left` on: 0 outside of the image and far from the foreground.

    Background borrows the error of its nearest foreground, of several the leftmost, of those the topmost, as in scipy's
    feature transform.
    """
    height, width = levels.shape
    out[:] = 0
    if not 0 <= y < height:
        return
    level, away, square = levels[y], rows[y], squares[y]
    for x in range(max(left, 0), min(left + len(out), width)):
        if square[x] == 0:
            out[x - left] = errors[level[x]]
        elif square[x] <= 2 * _REACH**2:
            column = max(x - 2 * _REACH, 0)
            while np.int64(away[column]) ** 2 + (x - column) ** 2 != square[x]:
                column += 1
            out[x - left] = errors[levels[y + away[column], column]]
