"""Confidence: how sure the policy was of what it said, as the mean probability of the response's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saliency_r1.cot import answer_start
from saliency_r1.policy import Policy, Prompt, Response
from saliency_r1.training.batches import buckets


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


@torch.no_grad()
def response_confidence(
    policy: Policy, prompts: Sequence[Prompt], responses: Sequence[Response], batch_size: int
) -> list[float]:
    """The confidence of each response as a whole, outside of training; rows of like length share a forward pass."""
    found: dict[int, float] = {}
    lengths = [len(prompt.input_ids) + len(response.ids) for prompt, response in zip(prompts, responses)]
    for positions in buckets(lengths, batch_size):
        batch = policy.collate([prompts[p] for p in positions], [responses[p].ids for p in positions])
        found.update(zip(positions, mean_probability(*policy.logprobs(batch)).tolist()))
    return [found[position] for position in range(len(prompts))]
