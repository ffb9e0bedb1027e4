"""Confidence against reward over the rollouts of CGPO: calibration, and the four types of responses."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

BINS = 10  # of equal mass
SHARE = 0.2  # of the responses: the bottom and the top of reward and of confidence
LAST = 0.5  # of the updates: what is shown is the policy near its end
TYPES = {
    ("high", "low"): "right and unsure: pushed up most",
    ("high", "high"): "right and sure",
    ("low", "low"): "wrong and unsure",
    ("low", "high"): "wrong and sure: pushed down most",
}


def last_rollouts(table: pl.DataFrame) -> pl.DataFrame:
    """The rollouts of the last half of the updates."""
    return table.filter(pl.col("update") > (1 - LAST) * pl.col("update").max())


def reliability(table: pl.DataFrame) -> pl.DataFrame:
    """Mean `confidence` and `reward` and the number of `responses` in bins of like confidence, from low to high."""
    order = table.sort("confidence", "rollout_id")
    bins = (np.arange(len(order)) * BINS) // max(len(order), 1)
    grouped = order.with_columns(bin=pl.Series(bins)).group_by("bin", maintain_order=True)
    return grouped.agg(pl.mean("confidence"), pl.mean("reward"), responses=pl.len()).drop("bin")


def expected_calibration_error(bins: pl.DataFrame) -> float:
    """Mean |reward - confidence| of the bins, weighted by their responses, in [0, 1]."""
    distances = (bins["reward"] - bins["confidence"]).abs().to_numpy()
    return float(np.average(distances, weights=bins["responses"].to_numpy()))


def response_types(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The four corners of reward and confidence, bottom and top 20 % of each.

    A row has `type`, `responses`, means of `reward`, `confidence` and `advantage`, and as `example` the rollout that
    lies deepest in its corner (None where a corner is empty). Ties at a boundary belong to both sides of it.
    """
    ranked = pl.col("reward", "confidence")
    low = table.select(ranked.quantile(SHARE, "lower")).to_dicts()[0]
    high = table.select(ranked.quantile(1 - SHARE, "higher")).to_dicts()[0]
    rows = []
    for (reward, confidence), label in TYPES.items():
        corner, depth = table, pl.lit(0.0)
        for name, side in (("reward", reward), ("confidence", confidence)):
            corner = corner.filter(pl.col(name) >= high[name] if side == "high" else pl.col(name) <= low[name])
            depth = depth + (pl.col(name) if side == "high" else -pl.col(name))
        means = corner.select(pl.mean("reward", "confidence", "advantage")).to_dicts()[0]
        deepest = corner.sort(depth, "rollout_id", descending=[True, False]).head(1).to_dicts()
        rows.append({"type": label, "responses": len(corner), **means, "example": deepest[0] if deepest else None})
    return rows
