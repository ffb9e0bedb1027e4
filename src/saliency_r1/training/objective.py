"""What an update of CGPO maximises, token by token, and the forward passes it needs.

For one token with advantage A, ratio = p / p_old and reference policy q:

    min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)  -  kl (q / p - log(q / p) - 1)

A first pass has ratio 1, and the gradient is that of A log p: plain REINFORCE. The clipping (PPO, arXiv 1707.06347)
matters when rollouts are used more than once. The KL term is the estimator of GRPO (arXiv 2402.03300); CGPO has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saliency_r1.policy import Policy, Prompt, Response
from saliency_r1.training.batches import buckets


@dataclass(frozen=True)
class Pass:
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
) -> Iterator[Pass]:
    """Passes over all responses; those of like length share one. The cuts depend on lengths alone."""
    lengths = [len(prompt.input_ids) + len(response.ids) for prompt, response in zip(prompts, responses)]
    for positions in buckets(lengths, micro_batch):
        batch = policy.collate([prompts[p] for p in positions], [responses[p].ids for p in positions])
        yield Pass(positions, *policy.logprobs_and_entropy(batch, temperature))


def divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) at each token, as estimated from tokens that the policy sampled: never negative."""
    distance = reference - logprobs
    return distance.exp() - distance - 1


def loss(one: Pass, old: Tensor, advantage: Tensor, clip: float, reference: Tensor | None, kl: float) -> Tensor:
    """Minus the sum of the objective over the tokens of a pass.

    `old` and `reference`: log-probabilities (rows, tokens) of the policy that sampled and of the reference;
    `advantage`: (n,) of all responses.
    """
    gain = advantage[one.positions].to(one.logprobs)[:, None]
    ratio = (one.logprobs - old).exp()
    value = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    if reference is not None and kl:
        value = value - kl * divergence(one.logprobs, reference)
    return -(value * one.mask).sum()
