"""Tokens a second of answers: plain decoding, against a cache of fixed size, and compiled, on a 3B of random weights.

    python benchmarks/decoding.py
    python benchmarks/decoding.py --layers 2 --prompts 2 --tokens 8 --pixels 12544 --ways plain static    # on a CPU

The same greedy answers to prompts of one picture each (`Policy.generate`), in bfloat16 without an adapter:

    plain       a cache that grows
    static      a cache of fixed size
    compiled    a cache of fixed size, and the step of one token compiled (torch.compile, reduce-overhead: CUDA graphs)
    stage       as the stages do: a cache that grows, deterministic kernels

The first call of each is left out and shown apart, the compiler's time is in it. `prompt_seconds` is that of reading
the prompts, up to a first token; `step` is what each further token takes. Answers of bfloat16 differ where two tokens
are next to equally likely, after which nothing need agree; `same` is the share of an answer up to there, beside the
first of the ways.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paper_size import SIZES, build, picture

from saliency_r1.runtime.files import write_json

WAYS = ("plain", "static", "compiled", "stage")
INSTRUCTION = "What stands out?"


def prepare(policy: Any, way: str) -> None:
    """Set how the policy's network decodes."""
    import torch
    from transformers import CompileConfig

    torch.use_deterministic_algorithms(way == "stage", warn_only=True)
    config = policy.model.generation_config
    config.cache_implementation = "static" if way in ("static", "compiled") else None
    config.disable_compile = way != "compiled"
    config.compile_config = CompileConfig(mode="reduce-overhead") if way == "compiled" else None


def timed(policy: Any, prompts: list[Any], tokens: int) -> tuple[float, list[tuple[int, ...]]]:
    """Seconds of one call, and the token ids of its answers."""
    start = time.perf_counter()
    answers = policy.generate(prompts, tokens)  # ends with ids on the host, so the device has finished
    return time.perf_counter() - start, [answer.ids for answer in answers]


def measure(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """One way to decode after the other."""
    import os

    import torch

    from saliency_r1.training.diagnostics import peak_memory

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    policy = build(arguments.size, arguments.layers, arguments.pixels, device, torch.bfloat16)
    policy.model.requires_grad_(False)
    prompts = [policy.prompt([picture(row, arguments.pixels)[0]], INSTRUCTION) for row in range(arguments.prompts)]
    prepare(policy, "plain")
    reading = min(timed(policy, prompts, 1)[0] for _ in range(3))
    yield "prompts", {"prompt_seconds": reading, "prompt_tokens": sum(len(prompt.input_ids) for prompt in prompts)}
    reference: list[tuple[int, ...]] = []
    for way in arguments.ways:
        prepare(policy, way)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        first, _ = timed(policy, prompts, arguments.tokens)
        seconds, answers = min(timed(policy, prompts, arguments.tokens) for _ in range(arguments.repeats))
        reference = reference or answers
        said = sum(map(len, answers))
        yield way, {
            "first_call": first, "seconds": seconds, "tokens": said, "tokens_per_second": said / seconds,
            "step": (seconds - reading) / (max(map(len, answers)) - 1), "same": agreement(reference, answers),
            "peak_gb": peak_memory(device),
        }  # fmt: skip


def agreement(expected: list[tuple[int, ...]], found: list[tuple[int, ...]]) -> float:
    """The mean share of an answer that comes before the first token that differs, in [0, 1]."""
    shares = []
    for left, right in zip(expected, found):
        apart = [index for index, (one, other) in enumerate(zip(left, right)) if one != other]
        shares.append((apart[0] if apart else len(left)) / len(left))
    return sum(shares) / len(shares)


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, or the words of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="3b")
    parser.add_argument("--layers", type=int, help="of text and vision, instead of all")
    parser.add_argument("--prompts", type=int, default=8, help="answered at once")
    parser.add_argument("--tokens", type=int, default=128, help="of a response")
    parser.add_argument("--pixels", type=int, default=200704, help="of an image: 784 make a token")
    parser.add_argument("--repeats", type=int, default=2, help="of which the fastest counts")
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=WAYS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/decoding.json"))
    return parser.parse_args(words)


def main() -> None:
    """Measure and print one JSON line a way."""
    arguments = options_of()
    found = {}
    for way, row in measure(arguments):
        found[way] = row
        print(json.dumps({"way": way} | row), flush=True)
    write_json(arguments.out, {key: value for key, value in vars(arguments).items() if key != "out"} | found)


if __name__ == "__main__":
    main()
