"""Log-probability and entropy of tokens that were said, in the memory of their logits and nothing more.

The logits of 2,000 tokens and a vocabulary of 151,936 are 1.2 GB in float32. To normalise them, and to differentiate
that, torch keeps several more of their size. Here the logits are read in chunks of tokens, forward and backward, and
the one thing of their size that comes into being is their gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 24  # numbers normalised at once: 64 MB in float32


def token_scores(logits: Tensor, said: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the tokens `said` (tokens,) under softmax(logits / temperature), and the entropies in nats.

    `logits` are (tokens, vocabulary), of any floating type, -inf where a token is never said; computed and returned in
    float32. The entropies carry no gradient.
    """
    found: tuple[Tensor, Tensor] = _TokenScores.apply(logits, said, temperature)
    return found


def _chunks(logits: Tensor, temperature: float) -> Iterator[tuple[slice, Tensor]]:
    """Parts of logits / temperature, float32 copies that may be changed."""
    size = max(1, CHUNK // logits.shape[-1])
    for first in range(0, len(logits), size):
        part = slice(first, first + size)
        yield part, logits[part].to(torch.float32, copy=True).div_(temperature)


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, said: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(logits), device=logits.device)
        normalisers, entropies = torch.empty_like(logprobs), torch.empty_like(logprobs)
        for part, scaled in _chunks(logits, temperature):
            normalisers[part] = scaled.logsumexp(-1)
            scaled.sub_(normalisers[part, None])
            logprobs[part] = scaled.gather(-1, said[part, None]).squeeze(-1)
            # A token that is never said adds 0 x -inf, which is to be 0.
            entropies[part] = -(scaled.exp().mul_(scaled.clamp_(min=torch.finfo(torch.float32).min))).sum(-1)
        ctx.save_for_backward(logits, said, normalisers)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, said, normalisers = ctx.saved_tensors
        slope = gradients[0] / ctx.temperature
        result = torch.empty_like(logits)
        for part, scaled in _chunks(logits, ctx.temperature):  # d log p(said) / d logit = [said] - p, by temperature
            scaled.sub_(normalisers[part, None]).exp_().mul_(-slope[part, None])
            result[part] = scaled.scatter_add_(-1, said[part, None], slope[part, None])
        return result, None, None
