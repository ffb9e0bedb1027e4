"""Advantages: values computed by hand, and the fixed points the mathematics predicts."""

import pytest
import torch
from handful import CGPO

from saliency_r1.training import advantages, cgpo

R = torch.tensor([0.9, 0.5, 0.1, 0.5], dtype=torch.float64)
C = torch.tensor([0.7, 0.6, 0.6, 0.5], dtype=torch.float64)
# r - c = .2, -.1, -.5, 0; their mean is -.1


def test_plain_cgpo():
    assert torch.allclose(advantages.cgpo(R, C, "none"), torch.tensor([0.2, -0.1, -0.5, 0.0]).double())


def test_leave_one_out_subtracts_the_mean_of_the_others():
    # The others' means: (-.1 - .5 + 0) / 3 = -.2; (.2 - .5) / 3 = -.1; (.2 - .1) / 3 = 1/30; (.2 - .1 - .5) / 3 = -2/15
    expected = torch.tensor([0.4, 0.0, -0.5 - 1 / 30, 2 / 15]).double()
    assert torch.allclose(advantages.cgpo(R, C, "leave_one_out"), expected)


def test_batch_standardises():
    values = advantages.cgpo(R, C, "batch")
    assert values.mean().item() == pytest.approx(0)
    assert values.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert torch.allclose(values, (R - C + 0.1) / (R - C).std(correction=0), atol=1e-4)


def test_task_standardises_among_the_responses_of_the_same_task():
    # SIS: gaps .2 and 0, mean .1, deviation .1. SOD: -.1 and -.5, mean -.3, deviation .2. One alone is its own mean.
    tasks = ["sis", "sod", "sod", "sis"]
    expected = torch.tensor([1.0, 1.0, -1.0, -1.0]).double()
    assert torch.allclose(advantages.cgpo(R, C, "task", tasks), expected, atol=1e-4)
    alone = advantages.cgpo(R, C, "task", ["cosod", "sod", "sod", "sis"])
    assert torch.allclose(alone, torch.tensor([0.0, 1.0, -1.0, 0.0]).double(), atol=1e-4)
    with pytest.raises(ValueError, match="0 tasks for 4 responses"):
        advantages.cgpo(R, C, "task")


def test_unknown_normalisation():
    with pytest.raises(ValueError, match=r"cgpo\.normalise = 'group'"):
        advantages.cgpo(R, C, "group")


def test_grpo_and_rloo_by_hand():
    # Groups (.9, .5) and (.1, .5): deviations +-.2 of a standard deviation .2; others: .4, -.4, -.4, .4
    assert torch.allclose(advantages.grpo(R, 2), torch.tensor([1.0, -1, -1, 1]).double(), atol=1e-4)
    assert torch.allclose(advantages.rloo(R, 2), torch.tensor([0.4, -0.4, -0.4, 0.4]).double())


def test_equal_rewards_give_no_advantage():
    assert torch.allclose(advantages.grpo(torch.full((4,), 0.3), 2), torch.zeros(4), atol=1e-4)


def test_remax_and_reinforce():
    assert torch.allclose(advantages.remax(R, torch.full((4,), 0.5).double()), R - 0.5)
    # Deviations .4, 0, -.4, 0 of a standard deviation sqrt(.08)
    expected = torch.tensor([0.4, 0, -0.4, 0]).double() / 0.08**0.5
    assert torch.allclose(advantages.reinforce_pp(R), expected, atol=1e-4)


@pytest.mark.parametrize("group_size", [1, 3])
def test_groups_must_divide_the_batch(group_size):
    with pytest.raises(ValueError, match="do not divide"):
        advantages.grpo(R, group_size)


def test_expected_cgpo_ascends_to_the_projection_on_the_simplex():
    """One token, exact expectation: the fixed point of A = r - c is sparsemax(r), not the best answer alone."""
    rewards = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(2_000):
        probabilities = theta.softmax(0)
        gain = (probabilities.detach() * advantages.cgpo(rewards, probabilities.detach()) * probabilities.log()).sum()
        (gradient,) = torch.autograd.grad(gain, theta)
        theta = (theta + 2.0 * gradient).detach().requires_grad_()
    assert torch.allclose(theta.softmax(0), torch.tensor([0.7, 0.3, 0.0]).double(), atol=0.01)


GREEDY = torch.tensor([0.6, 0.6, 0.3, 0.3], dtype=torch.float64)
TASKS = ["sis", "sod", "sod", "sis"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"normalise": "none"}, advantages.cgpo(R, C, "none")),
        ({"normalise": "batch"}, advantages.cgpo(R, C, "batch")),
        ({"normalise": "task"}, advantages.cgpo(R, C, "task", TASKS)),
        ({"algorithm": "reinforce_pp"}, advantages.reinforce_pp(R)),
        ({"algorithm": "rloo", "group_size": 2}, advantages.rloo(R, 2)),
        ({"algorithm": "grpo", "group_size": 2}, advantages.grpo(R, 2)),
        ({"algorithm": "remax"}, advantages.remax(R, GREEDY)),
    ],
)
def test_the_section_says_what_a_response_is_compared_with(change: dict, expected: torch.Tensor):
    columns = {"task": TASKS, "reward": R.tolist(), "confidence": C.tolist(), "greedy_reward": GREEDY.tolist()}
    table = [dict(zip(columns, row)) for row in zip(*columns.values())]
    found = cgpo.advantage_of(table, CGPO.model_copy(update=change))
    assert torch.allclose(found.double(), expected, atol=1e-5)
