"""COCO segmentations, checked before pycocotools sees them: it reads polygons and run lengths in C and trusts them.

A region becomes a *code*, `{"size": [height, width], "counts": bytes}`, the compressed run-length code of pycocotools.
Making one takes memory for an outline, never for a picture.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saliency_r1.inputs.errors import InputError

Code = Mapping[str, Any]

# More pixels than any picture has, and as many as the 32 bits of a run can count.
MOST_PIXELS = 2**31 - 1
# Pixels along a polygon; pycocotools takes about a hundred bytes for each.
_LONGEST = 2_000_000
SHARES = "all its polygons have coordinates from 0 to 1, expected pixels: multiply them by width and height"
_MOST_DIGITS = 7  # of a compressed run: 5 bits each, more than 32 in all


def encode(segmentation: Any, height: int, width: int) -> Code:
    """The code of a segmentation: a list of polygons `[[x, y, x, y, ...], ...]`, or a run-length code of either form.

    Parts of a polygon with fewer than three points enclose nothing and are passed over beside others. Raises
    `InputError` with a reason that continues a sentence about the segmentation's owner, without its name.
    """
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, height, width)
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, height, width)
    if segmentation is None:
        raise InputError("has no segmentation; a box does not say which pixels: export polygons or masks")
    raise InputError(f"has {reprlib.repr(segmentation)} for a segmentation, expected polygons or a run-length code")


def are_shares(segmentations: Iterable[Any]) -> bool:
    """Whether all polygons, of a whole file, lie in the first pixel: then their coordinates are from 0 to 1."""
    some = False
    for segmentation in segmentations:
        for part in segmentation if isinstance(segmentation, list) else ():
            if not isinstance(part, list) or not all(isinstance(v, int | float) and 0 <= v <= 1 for v in part):
                return False
            some = some or len(part) > 4
    return some


def decode(code: Code) -> NDArray[np.bool_]:
    """The pixels of a code, bool H x W."""
    from pycocotools import mask as coco

    return np.asarray(coco.decode(code), bool)


def area(code: Code) -> int:
    """The number of pixels of a code."""
    from pycocotools import mask as coco

    return int(coco.area(code))


def _from_polygons(polygons: list[Any], height: int, width: int) -> Code:
    from pycocotools import mask as coco

    if not polygons:
        raise InputError("has an empty segmentation; remove it, or draw its outline again")
    if all(isinstance(value, int | float) for value in polygons):
        raise InputError("has a flat list of numbers for a segmentation, expected polygons [[x, y, ...], ...]")
    outlines = [outline for outline in (_outline(part, height, width) for part in polygons) if outline is not None]
    if not outlines and len(polygons) > 2 and all(len(part) == 2 for part in polygons):
        raise InputError("has a list of points for a segmentation, expected polygons [[x, y, x, y, ...], ...]")
    if not outlines:
        raise InputError("has a polygon of fewer than three points, which encloses nothing; remove it")
    code: Code = coco.merge(coco.frPyObjects(outlines, height, width))
    return code


def _outline(part: Any, height: int, width: int) -> list[float] | None:
    """The coordinates of one polygon, none if it has fewer than three points."""
    if not isinstance(part, list) or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in part):
        raise InputError(f"has the polygon {reprlib.repr(part)}, expected a list of numbers [x, y, x, y, ...]")
    if len(part) % 2:
        raise InputError(f"has a polygon of {len(part)} numbers, expected pairs x, y")
    try:
        points = np.array(part, float).reshape(-1, 2)
    except OverflowError:
        raise InputError("has a polygon with a number that is too large") from None
    if not np.isfinite(points).all():
        raise InputError("has a polygon with NaN or infinity")
    if len(points) < 3:
        return None
    beyond = max(height, width)  # outlines may leave the picture, but not by more than its size
    outside = (points < -beyond) | (points > np.array([width, height]) + beyond)
    if outside.any():
        x, y = points[outside.any(1)][0]
        raise InputError(
            f"has a polygon with the point ({x:g}, {y:g}), far outside of the picture of {width} x {height}: are its "
            "coordinates in pixels of this picture?"
        )
    if (long := np.abs(np.diff(points, axis=0, append=points[:1])).max(1).sum()) > _LONGEST:
        raise InputError(f"has a polygon whose outline is {long:.0f} pixels long, expected at most {_LONGEST:,}")
    return points.ravel().tolist()


def _from_runs(segmentation: dict[str, Any], height: int, width: int) -> Code:
    from pycocotools import mask as coco

    if not {"size", "counts"} <= segmentation.keys():
        raise InputError("has a run-length code without size and counts")
    if segmentation["size"] != [height, width]:
        said = reprlib.repr(segmentation["size"])
        raise InputError(f"has a run-length code of size {said}, expected its image's: {[height, width]}")
    runs = _runs(segmentation["counts"])
    if (total := int(runs.sum())) != height * width:
        raise InputError(f"has a run-length code of {total} pixels, expected {height} x {width} = {height * width}")
    code: Code = coco.frPyObjects({"size": [height, width], "counts": _alternating(runs).tolist()}, height, width)
    return code


def _runs(counts: Any) -> NDArray[np.int64]:
    """The lengths of the runs, background first."""
    if isinstance(counts, list):
        if not all(isinstance(run, int) and not isinstance(run, bool) and 0 <= run <= MOST_PIXELS for run in counts):
            raise InputError("has a run-length code whose counts are not whole numbers from 0 on")
        return np.array(counts, np.int64)
    if isinstance(counts, str) and counts.startswith(("b'", 'b"')):
        raise InputError("has a run-length code that begins with b': bytes of Python as text; write counts.decode()")
    if isinstance(counts, str | bytes):
        return _decompressed(counts)
    raise InputError(f"has {reprlib.repr(counts)} for the counts of a run-length code, expected a list or a text")


def _decompressed(counts: str | bytes) -> NDArray[np.int64]:
    """The runs of a compressed code: digits of 5 bits from character 48 on, the low ones first; bit 6 says that more
    follow, bit 5 of the last is the sign; from the fourth run on, differences to the run before the last.
    """
    try:
        data = np.frombuffer(counts.encode("ascii") if isinstance(counts, str) else counts, np.uint8).astype(np.int64)
    except UnicodeEncodeError:
        raise InputError("has a run-length code with characters beyond ASCII: the file was damaged") from None
    digits = data - 48
    last = np.flatnonzero((digits & 32) == 0)
    if not len(digits):
        return digits
    if digits.min() < 0 or digits.max() > 63 or not len(last) or last[-1] != len(digits) - 1:
        raise InputError("has a run-length code that is cut off or damaged")
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _MOST_DIGITS:
        raise InputError("has a run-length code with a run beyond 32 bits: it is damaged")
    place = np.arange(len(digits)) - np.repeat(first, lengths)
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= np.where(digits[last] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min() < 0 or values.max() > MOST_PIXELS:
        raise InputError("has a run-length code with runs that are negative or beyond any picture: it is damaged")
    return values


def _alternating(runs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same runs with none of length 0 but the first: where two of those meet, pycocotools stops reading."""
    kept = runs > 0
    value = (np.arange(len(runs)) % 2)[kept]
    starts = np.flatnonzero(np.diff(value, prepend=-1))
    merged = np.add.reduceat(runs[kept], starts)
    return np.concatenate([[0], merged]) if value[0] else merged


def listed(lines: Sequence[str], limit: int = 10) -> str:
    """Up to `limit` lines, and how many there are beyond."""
    more = [f"... and {len(lines) - limit} more"] if len(lines) > limit else []
    return "\n".join(f"  {line}" for line in [*lines[:limit], *more])
