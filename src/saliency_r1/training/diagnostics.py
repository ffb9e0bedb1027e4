"""What an update looked like, in numbers: rewards, confidence, advantage, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def summarise(rollouts: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """One row of the curves from an update's rows of the rollouts table.

    Columns exist in every row; what the batch has none of (a task, an answer, a positive advantage) gives None.
    `advantage_of_failures` is the share of |A| on responses that do not parse, `brier` the mean of (r - c)^2.
    """

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rollouts])

    def mean(name: str) -> float | None:
        """Of the responses that have such tokens."""
        values = [row[name] for row in rollouts if row[name] is not None]
        return float(np.mean(values)) if values else None

    r, c, a, tasks = column("reward"), column("confidence"), column("advantage"), column("task")
    row = {
        "reward": r.mean(),
        "reward_std": r.std(),
        **{
            f"reward_{task}": r[tasks == task].mean() if (tasks == task).any() else None
            for task in ("sod", "sis", "cosod")
        },
        "confidence": c.mean(),
        "confidence_std": c.std(),
        **{f"confidence_q{share}": np.quantile(c, share / 100) for share in (10, 50, 90)},
        "confidence_reasoning": mean("confidence_reasoning"),
        "confidence_answer": mean("confidence_answer"),
        "advantage_positive": (a > 0).mean(),
        "advantage_up": a[a > 0].mean() if (a > 0).any() else None,
        "advantage_down": a[a < 0].mean() if (a < 0).any() else None,
        "advantage_of_failures": np.abs(a[~column("parsed")]).sum() / max(np.abs(a).sum(), 1e-12),
        "gap": np.abs(r - c).mean(),
        "brier": ((r - c) ** 2).mean(),
        "rank_correlation": spearman(c, r),
        **{name: mean(name) for name in ("entropy", "entropy_reasoning", "entropy_tags", "entropy_expressions")},
        "kl_to_sft": mean("kl_to_sft"),
        "parse_failures": 1 - column("parsed").mean(),
        "truncated": 1 - column("ended").mean(),
        "tokens": column("tokens").mean(),
        "expressions": column("expressions").mean(),
        "repetition": column("repetition").mean(),
    }
    return {key: value if value is None else float(value) for key, value in row.items()}


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Rank correlation of two (n,) arrays in [-1, 1]; None when one of them is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (a, b)]
    if min(np.ptp(values) for values in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def repetition(ids: Sequence[int], length: int = 4) -> float:
    """The share of a response's runs of `length` tokens that it has said before, in [0, 1)."""
    runs = [tuple(ids[start : start + length]) for start in range(len(ids) - length + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
