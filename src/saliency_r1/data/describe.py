"""What the pictures of a table are like, in numbers, and whether those of another one are like them.

for row in drift(describe(then, folder_then), describe(today, folder_today), level=0.001, distance=0.15):
    print(row["data set"], row["measure"], row["distance"], row["moved"])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl

from saliency_r1.data.samples import read_masks

SCHEMA: dict[str, Any] = {
    "dataset": pl.String,
    "split": pl.String,
    "pixels": pl.Float64,
    "aspect": pl.Float64,
    "mask_share": pl.Float64,
    "objects": pl.Float64,
}
MEASURES = ("pixels", "aspect", "mask_share", "objects")


def describe(table: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """One row an image: its pixels, width over height, the masks' share of it, and how many objects they show.

    Objects are the ids of an instance map, or the connected parts of a mask.
    """
    rows = []
    for sample in table.to_dicts():
        for mask in read_masks(sample, folder):
            height, width = mask.shape
            ids = len(np.unique(mask[mask > 0])) if sample["task"] == "sis" else _parts(mask)
            share = float((mask > 0).mean())
            rows.append((sample["dataset"], sample["split"], float(height * width), width / height, share, float(ids)))
    return pl.DataFrame(rows, SCHEMA, orient="row")


def _parts(mask: np.ndarray) -> int:
    return int(cv2.connectedComponents((mask > 0).astype(np.uint8))[0]) - 1


def drift(before: pl.DataFrame, after: pl.DataFrame, level: float, distance: float) -> list[dict[str, Any]]:
    """Two-sample Kolmogorov-Smirnov tests, one a split and measure, and the splits that only one of the two has.

    `distance` of a row is the largest difference of the two cumulative distributions, in [0, 1]. It `moved` where that
    is at least `distance` and its p-value is below `level` divided by the number of tests: with thousands of images
    every difference is significant, and with a handful any may be chance.
    """
    from scipy.stats import ks_2samp

    then, now = (table.partition_by("dataset", "split", as_dict=True) for table in (before, after))
    both = sorted(set(then) & set(now))
    rows: list[dict[str, Any]] = []
    for key in both:
        for measure in MEASURES:
            one, other = then[key][measure].to_numpy(), now[key][measure].to_numpy()
            found = ks_2samp(one, other)
            moved = bool(found.statistic >= distance and found.pvalue < level / (len(both) * len(MEASURES)))
            rows.append(_row(key, measure, one, other, float(found.statistic), float(found.pvalue), moved))
    for key in sorted(set(then) ^ set(now)):
        rows.append({"data set": "/".join(key), "measure": "is new" if key in now else "is gone", "moved": True})
    return rows


def _row(
    key: tuple[Any, ...], measure: str, one: np.ndarray, other: np.ndarray, distance: float, p: float, moved: bool
) -> dict[str, Any]:
    return {
        "data set": "/".join(key),
        "measure": measure,
        "images before": len(one),
        "images now": len(other),
        "mean before": round(float(one.mean()), 4),
        "mean now": round(float(other.mean()), 4),
        "distance": round(distance, 4),
        "p": float(f"{p:.3g}"),
        "moved": moved,
    }
