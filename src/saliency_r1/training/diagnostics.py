"""What an update looked like, in numbers: rewards, confidence, advantage, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def summarise(rollouts: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """One row of the curves from an update's rows of the rollouts table.

    Columns exist in every row; a task without a rollout in the batch gives None.
    """

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rollouts])

    r, c, tasks = column("reward"), column("confidence"), column("task")
    row = {
        "reward": r.mean(),
        "reward_std": r.std(),
        **{
            f"reward_{task}": r[tasks == task].mean() if (tasks == task).any() else None
            for task in ("sod", "sis", "cosod")
        },
        "confidence": c.mean(),
        "confidence_std": c.std(),
        "advantage_positive": (column("advantage") > 0).mean(),
        "gap": np.abs(r - c).mean(),
        "rank_correlation": spearman(c, r),
        "entropy": column("entropy").mean(),
        "parse_failures": 1 - column("parsed").mean(),
        "truncated": 1 - column("ended").mean(),
        "tokens": column("tokens").mean(),
        "expressions": column("expressions").mean(),
    }
    return {key: value if value is None else float(value) for key, value in row.items()}


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Rank correlation of two (n,) arrays in [-1, 1]; None when one of them is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (a, b)]
    if min(np.ptp(values) for values in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])
