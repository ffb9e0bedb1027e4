"""How much memory the logits of a CGPO micro-batch take from forward to gradient, in copies of their float32 size.

    python benchmarks/step_memory.py                     # four answers of 128 tokens, the vocabulary of Qwen2.5-VL
    python benchmarks/step_memory.py --answers 4 --tokens 512

A policy with the real vocabulary and little else answers prompts without images: log-probabilities, entropies, and the
gradient of a loss on them. Beside it the same numbers as torch makes them of whole logits (`log_softmax`). Peaks are of
the process (Linux), above what it held before; a second run counts, so that what is allocated once does not.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from saliency_r1.policy import Policy, Prompt

EMBEDDED = Path(__file__).parents[1] / "embedded/models/policy"


def wide(vocabulary: int, dtype: torch.dtype) -> Policy:
    """The embedded policy with two layers, random weights and a vocabulary of that size."""
    config = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] = vocabulary
    config["text_config"] |= {"vocab_size": vocabulary, "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}
    torch.manual_seed(0)
    model: Any = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config))
    return Policy(model.to(dtype).eval(), AutoProcessor.from_pretrained(EMBEDDED))


def plain(policy: Policy, batch: dict[str, Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (tokens,) by way of whole normalised logits."""
    normalised = (policy.logits(batch).float() / temperature).log_softmax(-1)
    with torch.no_grad():
        entropy = -(normalised.exp() * normalised.masked_fill(normalised.isinf(), 0.0)).sum(-1)
    labels = batch["labels"][:, 1:]
    return normalised.gather(-1, labels[labels >= 0][:, None]).squeeze(-1), entropy


def lean(policy: Policy, batch: dict[str, Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    """The same as the trainers have them."""
    logprobs, mask, entropy = policy.logprobs_and_entropy(batch, temperature)
    return logprobs[mask], entropy[mask]


def resident(key: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def peak(step: Callable[[], None]) -> int:
    """The most memory that a step held above what was held before it, in bytes."""
    step()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is held now
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def main() -> None:
    """Measure both and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    policy = wide(arguments.vocabulary, getattr(torch, arguments.dtype))
    prompts = [Prompt(torch.arange(20, 50), {})] * arguments.answers
    answers = [list(range(100 + row, 100 + row + arguments.tokens)) for row in range(arguments.answers)]
    batch = policy.collate(prompts, answers)
    copy = 4 * arguments.answers * arguments.tokens * arguments.vocabulary
    policy.model.requires_grad_(False)
    policy.model.get_decoder().norm.weight.requires_grad_(True)  # what is below the logits is not the question
    for way in (plain, lean):

        def step(way: Callable[..., tuple[Tensor, Tensor]] = way) -> None:
            logprobs, _ = way(policy, batch, 0.7)
            logprobs.sum().backward()

        used = peak(step)
        print(
            json.dumps({"way": way.__name__, "copies": round(used / copy, 2), "gb": round(used / 1e9, 2)}), flush=True
        )


if __name__ == "__main__":
    main()
