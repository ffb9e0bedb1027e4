"""Log-probabilities and entropies in chunks: torch's own values and gradients, in a fraction of the memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saliency_r1.policy import scores

ROOT = Path(__file__).parents[2]


def reference(logits, said, temperature):
    normalised = (logits.float() / temperature).log_softmax(-1)
    entropy = torch.special.entr(normalised.exp()).sum(-1)
    return normalised.gather(-1, said[:, None]).squeeze(-1), entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 7, 100])  # of a chunk
def test_values_and_gradient_are_those_of_log_softmax(dtype, rows, monkeypatch):
    torch.manual_seed(0)
    logits = (torch.randn(7, 1000) * 5).to(dtype)
    logits[:, 3] = float("-inf")
    said, weights = torch.randint(4, 1000, (7,)), torch.randn(7)
    monkeypatch.setattr(scores, "CHUNK", rows * 1000)
    results = []
    for function in (scores.token_scores, reference):
        leaf = logits.clone().requires_grad_()
        logprobs, entropy = function(leaf, said, 0.7)
        (logprobs * weights).sum().backward()
        results.append((logprobs, entropy, leaf.grad.float()))
    (logprobs, entropy, gradient), (expected, spread, slope) = results
    assert logprobs.dtype == torch.float32
    assert torch.allclose(logprobs, expected, rtol=1e-6, atol=1e-6)
    assert torch.allclose(entropy, spread, rtol=1e-6, atol=2e-6)
    assert not entropy.requires_grad
    assert torch.allclose(gradient, slope, atol=1e-6, rtol=1e-6 if dtype == torch.float32 else 1e-2)
    assert (gradient[:, 3] == 0).all()


def test_a_distribution_by_hand():
    logits = torch.tensor([[0.0, 0.0, float("-inf")], [1e4, 0.0, 0.0]], requires_grad=True)
    logprobs, entropy = scores.token_scores(logits, torch.tensor([1, 0]), 1.0)
    assert logprobs.tolist() == pytest.approx([-0.693147, 0.0], abs=1e-6)
    assert entropy.tolist() == pytest.approx([0.693147, 0.0], abs=1e-6)
    logprobs.sum().backward()
    assert logits.grad.tolist() == [pytest.approx([-0.5, 0.5, 0.0]), pytest.approx([0.0, 0.0, 0.0])]


def test_what_is_not_a_number_stays_so():
    logits = torch.full((2, 5), float("nan"), requires_grad=True)
    logprobs, entropy = scores.token_scores(logits, torch.tensor([1, 2]), 1.0)
    assert logprobs.isnan().all()
    assert entropy.isnan().all()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process where Linux tells it")
def test_a_step_holds_the_logits_and_their_gradient_and_little_more():
    command = [sys.executable, ROOT / "benchmarks/step_memory.py", "--vocabulary", "100000"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    copies = {row["way"]: row["copies"] for row in map(json.loads, lines)}
    # Two, the chunks of 64 MB (.33 of 205 MB each, three at a time at most) and the gradient of the few others.
    assert copies["lean"] < 3.2
    assert copies["plain"] > copies["lean"] + 1.5
