"""Confidence: how sure the policy was of what it said, as the mean probability of the response's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saliency_r1.cot import answer_start
from saliency_r1.policy import Policy, Response


def counted(policy: Policy, responses: Sequence[Response], part: str) -> list[Tensor]:
    """For each response which of its tokens count, bool (tokens,).

    `part`: "all" (the end token included), "reasoning" (before `<answer>`) or "answer" (from there on). A response of
    which nothing would count, such as one without an answer, counts as a whole.
    """
    masks = []
    for response in responses:
        mask = torch.ones(len(response.ids), dtype=torch.bool)
        if part != "all":
            ends = torch.tensor([len(text) for text in policy.tokenizer.batch_decode([[i] for i in response.ids])])
            before = ends.cumsum(0) - ends < answer_start(response.text)
            chosen = before if part == "reasoning" else ~before
            mask = chosen if chosen.any() else mask
        masks.append(mask)
    return masks


def mean_probability(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Mean of exp(logprobs) over the tokens of `mask`, (rows, tokens) -> (rows,), fp32, detached, in (0, 1]."""
    probabilities = logprobs.detach().float().exp() * mask
    return probabilities.sum(-1) / mask.sum(-1)
