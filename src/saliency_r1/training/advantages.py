"""Advantages, one pure function for each algorithm: (rewards, confidences) -> advantages.

Shapes: n = responses of one update; all arguments and results are float tensors of shape (n,), detached. Responses to
one prompt stand next to each other where an algorithm has groups. Rewards lie in [0, 1], confidences in (0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-6


def cgpo(rewards: Tensor, confidences: Tensor, normalise: str = "none", tasks: Sequence[str] = ()) -> Tensor:
    """Confidence-guided: A = r - c (arXiv 2511.00396), one response a prompt.

    `normalise`: "none" is the paper's plain form. "leave_one_out" subtracts the mean of the *other* responses' r - c:
    it has the same expectation as the plain form, because that mean does not depend on the response at hand, and less
    variance. "batch" also divides by the standard deviation, so that the RL gradient keeps its size beside the SFT
    steps in a shared optimiser. "task" does so among the responses of the same task (`tasks`, one name a response):
    each task has a reward of its own, and over the whole batch the harder one would be pushed down as a whole.
    """
    gaps = rewards - confidences
    if normalise == "none":
        return gaps
    if normalise == "leave_one_out":
        return leave_one_out(gaps)
    if normalise == "batch":
        return standardise(gaps)
    if normalise == "task":
        if len(tasks) != len(gaps):
            raise ValueError(f"{len(tasks)} tasks for {len(gaps)} responses")
        advantages = torch.empty_like(gaps)
        for task in sorted(set(tasks)):
            own = torch.tensor([name == task for name in tasks])
            advantages[own] = standardise(gaps[own])
        return advantages
    raise ValueError(f"cgpo.normalise = {normalise!r}, expected none, leave_one_out, batch or task")


def reinforce_pp(rewards: Tensor) -> Tensor:
    """REINFORCE++ (arXiv 2501.03262): rewards standardised over the whole batch."""
    return standardise(rewards)


def rloo(rewards: Tensor, group_size: int) -> Tensor:
    """RLOO (arXiv 2402.14740): each reward minus the mean of the others in its group."""
    return leave_one_out(_grouped(rewards, group_size)).reshape(-1)


def grpo(rewards: Tensor, group_size: int) -> Tensor:
    """GRPO (arXiv 2402.03300): rewards standardised within their group; a group of equal rewards gives 0."""
    return standardise(_grouped(rewards, group_size)).reshape(-1)


def remax(rewards: Tensor, greedy_rewards: Tensor) -> Tensor:
    """ReMax (arXiv 2310.10505): the reward minus that of the greedy answer to the same prompt."""
    return rewards - greedy_rewards


def leave_one_out(values: Tensor) -> Tensor:
    """Each value minus the mean of the others along the last dimension (of two or more)."""
    n = values.shape[-1]
    if n < 2:
        raise ValueError("leaving one out needs two responses or more; raise batch_size or group_size")
    return (values - values.mean(-1, keepdim=True)) * (n / (n - 1))


def standardise(values: Tensor) -> Tensor:
    """(value - mean) / (population standard deviation + epsilon) along the last dimension."""
    centred = values - values.mean(-1, keepdim=True)
    return centred / (values.std(-1, correction=0, keepdim=True) + EPSILON)


def _grouped(rewards: Tensor, group_size: int) -> Tensor:
    if group_size < 2 or len(rewards) % group_size:
        raise ValueError(f"groups of {group_size} do not divide {len(rewards)} responses into groups of two or more")
    return rewards.reshape(-1, group_size)
