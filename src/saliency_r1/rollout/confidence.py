"""Confidence: how sure the policy was of what it said, as the mean probability of the response's tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from saliency_r1.cot import answer_start
from saliency_r1.policy import Policy, Prompt, Response
from saliency_r1.rollout.passes import passes

PARTS = ("reasoning", "answer", "tags", "expressions")
_TAG = re.compile(r"</?(?:think|answer|rg|ins)>")
_EXPRESSION = re.compile(r"(?<=>)[^<>]+(?=</(?:rg|ins)>)")


def parts(policy: Policy, response: Response) -> dict[str, Tensor]:
    """Which tokens of a response belong to which part, bool (tokens,) each.

    "reasoning" (before `<answer>`) and "answer" (from there on, the end token included) are all of it; "tags" and the
    text of "expressions" lie within them. A token belongs where its first character stands.
    """
    lengths = torch.tensor([len(text) for text in policy.tokenizer.batch_decode([[i] for i in response.ids])])
    starts = lengths.cumsum(0) - lengths
    reasoning = starts < answer_start(response.text)

    def within(pattern: re.Pattern[str]) -> Tensor:
        inside = torch.zeros(len(starts), dtype=torch.bool)
        for match in pattern.finditer(response.text):
            inside |= (starts >= match.start()) & (starts < match.end())
        return inside

    return {"reasoning": reasoning, "answer": ~reasoning, "tags": within(_TAG), "expressions": within(_EXPRESSION)}


def counted(parts: dict[str, Tensor], part: str, end_token: bool, ended: bool) -> Tensor:
    """The tokens that count in the confidence: of a part, or "all" of them; with or without the token that ends it.

    A response of which nothing would count, such as one without an answer, counts as a whole.
    """
    chosen = (parts["reasoning"] | parts["answer"]) if part == "all" else parts[part].clone()
    if ended and not end_token:
        chosen[-1] = False
    return chosen if chosen.any() else torch.ones_like(chosen)


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
    for one in passes(policy, prompts, responses, batch_size, temperature=1.0):
        found.update(zip(one.positions, mean_probability(one.logprobs, one.mask).tolist()))
    return [found[position] for position in range(len(prompts))]
