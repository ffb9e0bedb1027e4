"""What an update of CGPO maximises, token by token.

For one token with advantage A, ratio = p / p_old and reference policy q:

    min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)  -  kl (q / p - log(q / p) - 1)

A first pass has ratio 1, and the gradient is that of A log p: plain REINFORCE. The clipping (PPO, arXiv 1707.06347)
matters when rollouts are used more than once. The KL term is the estimator of GRPO (arXiv 2402.03300); CGPO has none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saliency_r1.rollout.passes import TokenScores


def divergence(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) at each token, as estimated from tokens that the policy sampled: never negative."""
    distance = reference - logprobs
    return distance.exp() - distance - 1


def loss(one: TokenScores, old: Tensor, advantage: Tensor, clip: float, reference: Tensor | None, kl: float) -> Tensor:
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
