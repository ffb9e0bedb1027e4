"""The objective of one token, against values and gradients worked out by hand."""

import math

import pytest
import torch

from saliency_r1.rollout.passes import TokenScores
from saliency_r1.training.objective import loss


def one_token(logprob: float) -> TokenScores:
    logprobs = torch.tensor([[logprob, 0.0]], dtype=torch.float64, requires_grad=True)
    return TokenScores([0], logprobs, torch.tensor([[True, False]]), torch.zeros(1, 2))


def value_and_slope(ratio: float, advantage: float, reference: float | None = None, kl: float = 0.0):
    """Loss and its derivative by the token's log-probability, which is log(ratio) with an old one of 0."""
    one = one_token(math.log(ratio))
    anchor = None if reference is None else torch.tensor([[reference, 0.0]], dtype=torch.float64)
    value = loss(one, torch.zeros(1, 2), torch.tensor([advantage]).double(), 0.2, anchor, kl)
    value.backward()
    assert one.logprobs.grad[0, 1] == 0, "a masked token moved"
    return value.item(), one.logprobs.grad[0, 0].item()


def test_a_first_pass_is_reinforce():
    assert value_and_slope(1.0, 0.7) == pytest.approx((-0.7, -0.7))
    assert value_and_slope(1.0, -0.7) == pytest.approx((0.7, 0.7))


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.1, 1.0, -1.1, -1.1),  # inside of the bounds
        (1.5, 1.0, -1.2, 0.0),  # risen enough
        (0.5, -1.0, 0.8, 0.0),  # fallen enough
        (1.5, -1.0, 1.5, 1.5),  # the wrong way: nothing is clipped
        (0.5, 1.0, -0.5, -0.5),
    ],
)
def test_clipping(ratio, advantage, value, slope):
    assert value_and_slope(ratio, advantage) == pytest.approx((value, slope))


def test_kl_is_least_at_the_reference():
    # q / p = e^-d: distance -d, estimate e^-d + d - 1, slope by log p: 1 - e^-d
    assert value_and_slope(1.0, 0.0, reference=0.0, kl=0.5) == pytest.approx((0, 0))
    d = math.log(2)
    assert value_and_slope(2.0, 0.0, reference=0.0, kl=0.5) == pytest.approx((0.5 * (0.5 + d - 1), 0.5 * 0.5))
