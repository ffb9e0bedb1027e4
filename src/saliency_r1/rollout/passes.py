"""Forward passes over responses: the log-probability and the entropy of every token that was said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from saliency_r1.policy import Policy, Prompt, Response
from saliency_r1.rollout.batches import buckets


@dataclass(frozen=True)
class TokenScores:
    """A forward pass over some responses: `positions` among all, and (rows, tokens) tensors.

    `logprobs` carry the gradient, `entropy` does not; both are 0 where `mask` is not set.
    """

    positions: list[int]
    logprobs: Tensor
    mask: Tensor
    entropy: Tensor

    def own(self, row: int, values: Tensor) -> Tensor:
        """The values (tokens,) of one row's response."""
        return values[row][self.mask[row]]


def passes(
    policy: Policy, prompts: Sequence[Prompt], responses: Sequence[Response], micro_batch: int, temperature: float
) -> Iterator[TokenScores]:
    """Passes over all responses; those of like length share one. The cuts depend on lengths alone."""
    lengths = [len(prompt.input_ids) + len(response.ids) for prompt, response in zip(prompts, responses)]
    for positions in buckets(lengths, micro_batch):
        batch = policy.collate([prompts[p] for p in positions], [responses[p].ids for p in positions])
        yield TokenScores(positions, *policy.logprobs_and_entropy(batch, temperature))
