"""How sure the policy was of what it said: the mean probability of a response's tokens, under two names.

`confidence` is the c of A = r - c: of a sampled response, at the temperature that it was sampled at, over the tokens
that `cgpo.confidence` chooses. `token_probability` is of any response, a greedy one as a rule: at temperature 1, over
all of its tokens. At a temperature below 1 the first is the larger one, so that the two are never compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from saliency_r1.cot import REASONING, answer_start
from saliency_r1.policy import Policy, Prompt, Response
from saliency_r1.rollout.passes import passes

PARTS = ("reasoning", "answer", "tags", "expressions")
_TAG = re.compile(rf"</?(?:{'|'.join(REASONING)}|answer|rg|ins)>")
_EXPRESSION = re.compile(r"(?<=>)[^<>]+(?=</(?:rg|ins)>)")


def parts(policy: Policy, response: Response) -> dict[str, Tensor]:
    """Which tokens of a response belong to which part, bool (tokens,) each.

    "reasoning" (before `<answer>`) and "answer" (from there on, the end token included) are all of it; "tags" and the
    text of "expressions" lie within them. A token that straddles a border belongs where its last character stands:
    `><` between `</think>` and `<answer>` begins the answer, `>The` behind `<rg>` the expression. Without an `<answer>`
    all is reasoning.
    """
    lasts = torch.tensor(last_characters(policy, response))
    begin = answer_start(response.text)
    reasoning = lasts < begin if begin < len(response.text) else torch.ones(len(lasts), dtype=torch.bool)

    def within(pattern: re.Pattern[str]) -> Tensor:
        inside = torch.zeros(len(lasts), dtype=torch.bool)
        for match in pattern.finditer(response.text):
            inside |= (lasts >= match.start()) & (lasts < match.end())
        return inside

    return {"reasoning": reasoning, "answer": ~reasoning, "tags": within(_TAG), "expressions": within(_EXPRESSION)}


def last_characters(policy: Policy, response: Response) -> list[int]:
    """For each token of a response the place in its text of the last character that the token has a share in.

    A character may be spread over several tokens, which decode to it only together; each of them has its place. The end
    token stands behind the text.
    """
    said = response.ids[:-1] if response.ended else response.ids
    places: list[int] = []
    before, together = 0, []  # characters that are complete, and the tokens since then
    for token in said:
        together.append(token)
        text = policy.tokenizer.decode(together)
        whole = text.rstrip("\ufffd")  # what stands for a character some bytes of which are still to come
        places.append(max(0, before + len(whole) - (whole == text)))
        if whole == text:
            before, together = before + len(text), []
    return places + [len(response.text)] * response.ended


def counted(parts: dict[str, Tensor], part: str, end_token: bool, ended: bool) -> Tensor:
    """The tokens that count in the confidence: of a part, or "all" of them; with or without the token that ends it.

    A response of which nothing would count, such as one without an answer, counts as a whole.
    """
    chosen = (parts["reasoning"] | parts["answer"]) if part == "all" else parts[part].clone()
    if ended and not end_token:
        chosen[-1] = False
    return chosen if chosen.any() else torch.ones_like(chosen)


def mean_probability(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Mean of exp(logprobs) over the tokens of `mask`, (..., tokens) -> (...), fp32, detached, in (0, 1]."""
    probabilities = logprobs.detach().float().exp() * mask
    return probabilities.sum(-1) / mask.sum(-1)


@torch.no_grad()
def token_probabilities(
    policy: Policy, prompts: Sequence[Prompt], responses: Sequence[Response], batch_size: int
) -> list[float]:
    """The `token_probability` of each response, outside of training; rows of like length share a forward pass."""
    found: dict[int, float] = {}
    for one in passes(policy, prompts, responses, batch_size, temperature=1.0):
        found.update(zip(one.positions, mean_probability(one.logprobs, one.mask).tolist()))
    return [found[position] for position in range(len(prompts))]
