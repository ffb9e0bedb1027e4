"""What an update looked like, in numbers: rewards, confidence, advantage, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from saliency_r1.training.rollouts import Rollout


def summarise(
    rollouts: Sequence[Rollout], confidence: Tensor, advantage: Tensor, entropy: Tensor, isr: bool
) -> dict[str, Any]:
    """One row of the curves. Columns exist in every row; a task without a rollout in the batch gives None."""
    rewards = np.array([rollout.reward.value for rollout in rollouts])
    names = np.array([rollout.row["task"] for rollout in rollouts])
    c = confidence.double().numpy()
    row: dict[str, Any] = {
        "reward": rewards.mean(),
        "reward_std": rewards.std(),
        **{
            f"reward_{task}": rewards[names == task].mean() if (names == task).any() else None
            for task in ("sod", "sis", "cosod")
        },
        "confidence": c.mean(),
        "confidence_std": c.std(),
        "advantage_positive": float((advantage > 0).double().mean()),
        "gap": np.abs(rewards - c).mean(),
        "rank_correlation": spearman(c, rewards),
        "entropy": float(entropy.double().mean()),
        "parse_failures": np.mean([not rollout.parsed.ok for rollout in rollouts]),
        "truncated": np.mean([not rollout.response.ended for rollout in rollouts]),
        "tokens": np.mean([len(rollout.response.ids) for rollout in rollouts]),
        "expressions": np.mean([len(rollout.parsed.expressions) for rollout in rollouts]),
    }
    return {key: value if value is None else float(value) for key, value in row.items()}


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Rank correlation of two (n,) arrays in [-1, 1]; None when one of them is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (a, b)]
    if min(np.ptp(values) for values in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])
