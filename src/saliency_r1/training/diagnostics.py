"""What responses and updates looked like, in numbers: rewards, confidence, advantage, calibration, costs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_r1.names import TASKS
from saliency_r1.params import Cgpo
from saliency_r1.policy import Policy
from saliency_r1.rollout import confidence
from saliency_r1.rollout.environment import Rollout
from saliency_r1.rollout.passes import TokenScores
from saliency_r1.training.errors import TrainingError

# Mean difference of a token's probability when it was drawn and in the forward pass. Rounding makes 1e-6 in float32 and
# some .01 in bfloat16; more is another distribution, and confidence would speak of a policy that was not sampled.
SAMPLING_GAP = 0.05


def record(policy: Policy, rollout: Rollout, one: TokenScores, row: int, options: Cgpo) -> dict[str, Any]:
    """The row of the rollouts table for one response: row `row` of a forward pass."""
    response = rollout.response
    parts = confidence.parts(policy, response)
    counted = confidence.counted(parts, options.confidence, options.confidence_end_token, response.ended)
    logprobs, entropy = one.own(row, one.logprobs.detach()).float().cpu(), one.own(row, one.entropy).cpu()
    probability, drawn = logprobs.exp(), torch.tensor(response.logprobs).exp()
    said = [expression.text for expression in rollout.parsed.expressions]

    def mean(values: Tensor, chosen: Tensor) -> float | None:
        return values[chosen].mean().item() if chosen.any() else None

    return {
        **rollout.record(),
        "confidence": confidence.mean_probability(logprobs, counted).item(),
        **{f"confidence_{part}": mean(probability, parts[part]) for part in ("reasoning", "answer")},
        "logprob": logprobs.mean().item(),
        "sampling_gap": (probability - drawn).abs().mean().item(),
        "entropy": entropy.mean().item(),
        **{f"entropy_{part}": mean(entropy, parts[part]) for part in ("reasoning", "tags", "expressions")},
        "tokens": len(response.ids),
        "ended": response.ended,
        "reasoned": bool(rollout.parsed.reasoning),
        "expressions": len(said),
        "distinct_expressions": len(set(said)) / len(said) if said else None,
        "objects": rollout.objects,
        "empty_masks": rollout.prediction.empty,
        "repetition": repetition(response.ids),
        **{f"reward_{name}": value for name, value in rollout.reward.components.items()},
    }


def check_sampling(rollouts: Sequence[Mapping[str, Any]]) -> None:
    """Raise `TrainingError` when the forward pass speaks of another distribution than the responses were drawn from."""
    gap = float(np.mean([row["sampling_gap"] for row in rollouts]))
    if gap >= SAMPLING_GAP:  # what is not a number is left to the check of gradients
        raise TrainingError(
            f"a token's probability when it was drawn and in the forward pass differ by {gap:.3f} in the mean, more "
            f"than {SAMPLING_GAP}: confidence would speak of another policy than the one that answered. Try "
            "policy.attention: eager, or runtime.dtype: float32"
        )


def summarise(rollouts: Sequence[Mapping[str, Any]], components: Iterable[str]) -> dict[str, float | None]:
    """One row of the curves from an update's rows of the rollouts table; `components` are those of all tasks' rewards.

    Columns exist in every row; what the batch has none of (a task, an answer, a positive advantage) gives None.
    `advantage_of_failures` is the share of |A| on responses that do not parse, `brier` the mean of (r - c)^2,
    `distinct_expressions` the share of a response's expressions that it has not said before, and
    `expressions_to_instances` that of SIS's expressions among its true instances.
    """

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rollouts])

    def mean(name: str) -> float | None:
        """The mean over responses that have such tokens, or such a component of the reward."""
        values = [row[name] for row in rollouts if row.get(name) is not None]
        return float(np.mean(values)) if values else None

    r, c, a, tasks = column("reward"), column("confidence"), column("advantage"), column("task")
    said, instances = column("expressions"), column("objects")[tasks == "sis"].sum()
    row = {
        "reward": r.mean(),
        "reward_std": r.std(),
        **{
            f"reward_{task}{suffix}": of(r[tasks == task]) if (tasks == task).any() else None
            for task in TASKS
            for suffix, of in (("", np.mean), ("_std", np.std), ("_min", np.min), ("_max", np.max))
        },
        **{f"reward_{name}": mean(f"reward_{name}") for name in components},
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
        "logprob": mean("logprob"),
        "sampling_gap": mean("sampling_gap"),
        "parse_failures": 1 - column("parsed").mean(),
        "truncated": 1 - column("ended").mean(),
        "tokens": column("tokens").mean(),
        "reasoned": column("reasoned").mean(),
        "expressions": said.mean(),
        "expressions_to_instances": said[tasks == "sis"].sum() / instances if instances else None,
        "distinct_expressions": mean("distinct_expressions"),
        "empty_masks": column("empty_masks").mean(),
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


class Clock:
    """Wall time, lap by lap."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        start, self._start = self._start, time.perf_counter()
        return self._start - start


def peak_memory(device: torch.device) -> float:
    """The most memory held so far, in GB: of the accelerator, or of the process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes, elsewhere KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
