"""Images that stand in a training split and in a split that judges it.

Found by content (the same bytes) and by looks (nearly the same 16 x 16 thumbnail: the picture scaled, or saved again).
The side that gives way is the one farther from the test: train before val, val before test.
"""

import numpy as np
import polars as pl

from saliency_r1.data.images import THUMBNAIL

RANK = {"train": 0, "val": 1, "test": 2}
# Differences of thumbnails in levels of 255. Measured on 116 photographs: scaled to half and saved as JPEG of quality
# 30, a picture is 3.3 (root mean square) and 39 (maximum) from itself at most. Two different photographs are 28 apart
# at least, two of the embedded pictures 14. The mean is the cheap first look, the maximum tells pictures that differ in
# one spot.
_MEAN_SQUARE = 6.0**2
_MAXIMUM = 40
_BLOCK = 1024

COLUMNS = {"dataset": pl.String, "split": pl.String, "name": pl.String, "twin": pl.String, "how": pl.String}


def find_leaks(index: pl.DataFrame) -> pl.DataFrame:
    """Images that have a twin in a split of higher rank.

    `index` has one row an image with `dataset, split, name, sha256, thumbnail`. Returns one row an image that should
    not be trained on (or validated with): `dataset, split, name, twin` (`<dataset>/<split>/<name>`) and `how`
    (`content` or `looks`).
    """
    rows = []
    ranks = index["split"].replace_strict(RANK, return_dtype=pl.Int64).to_numpy()
    for rank in sorted(set(ranks.tolist()))[:-1]:
        trained, judging = index.filter(ranks == rank), index.filter(ranks > rank)
        twins = _same_content(trained, judging)
        alike = {place: twin for place, twin in _same_looks(trained, judging).items() if place not in twins}
        for how, pairs in (("content", twins), ("looks", alike)):
            rows += [(*trained.row(i)[:3], "/".join(judging.row(j)[:3]), how) for i, j in sorted(pairs.items())]
    return pl.DataFrame(rows, COLUMNS, orient="row")


def _same_content(trained: pl.DataFrame, judging: pl.DataFrame) -> dict[int, int]:
    """Row of `trained` -> the first row of `judging` with the same bytes."""
    place = {digest: row for row, digest in reversed(list(enumerate(judging["sha256"])))}
    return {row: place[digest] for row, digest in enumerate(trained["sha256"]) if digest in place}


def _same_looks(trained: pl.DataFrame, judging: pl.DataFrame) -> dict[int, int]:
    """Row of `trained` -> the row of `judging` that looks most like it, if it is nearly the same."""
    twins: dict[int, int] = {}
    ours, theirs = _thumbnails(trained), _thumbnails(judging)
    small_theirs = _coarse(theirs)
    norms = (small_theirs**2).sum(1)
    for start in range(0, len(ours), _BLOCK):
        small = _coarse(ours[start : start + _BLOCK])
        # |a - b|^2 = |a|^2 + |b|^2 - 2ab, so that all pairs are one matrix product
        distance = ((small**2).sum(1)[:, None] + norms - 2 * small @ small_theirs.T) / small.shape[1]
        for row, other in zip(*np.nonzero(distance <= _MEAN_SQUARE)):
            difference = np.abs(ours[start + row].astype(int) - theirs[other]).max()
            best = twins.get(start + int(row))
            if difference <= _MAXIMUM and (best is None or distance[row, other] < distance[row, best]):
                twins[start + int(row)] = int(other)
    return twins


def _thumbnails(index: pl.DataFrame) -> np.ndarray:
    """uint8 N x 16 x 16 x 3."""
    content = b"".join(index["thumbnail"].to_list())
    return np.frombuffer(content, np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL, 3)


def _coarse(thumbnails: np.ndarray) -> np.ndarray:
    """float32 N x 192: the thumbnails averaged to 8 x 8."""
    blocks = thumbnails.reshape(len(thumbnails), 8, 2, 8, 2, 3).astype(np.float32)
    return blocks.mean((2, 4)).reshape(len(thumbnails), -1)
