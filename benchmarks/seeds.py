"""Is CGPO better than its SFT start? Several training seeds, greedy reward, paired over samples.

    python -m saliency_r1.launch --nproc-per-node 2 benchmarks/seeds.py --seeds 5 --out benchmarks/seeds.json
    python benchmarks/seeds.py --set cgpo.normalise=none --out benchmarks/seeds-plain.json
    python benchmarks/seeds.py --control no_reward --seeds 2 --out benchmarks/seeds-isr-alone.json

Needs artifacts/download, annotate and sft (`dvc repro sft`). Every seed starts from the same SFT adapter and differs in
the order of prompts and in what is sampled. Controls: `no_reward` sets every advantage to 0, so that only the
interleaved SFT steps are left; `shuffled` gives each response the advantage of another one of its batch. Prints a row a
seed and writes them as JSON.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from saliency_r1 import processes
from saliency_r1.files import write_json
from saliency_r1.params import Params, load_yaml, parse_params
from saliency_r1.policy import Policy
from saliency_r1.stage import prepare_torch
from saliency_r1.training import cgpo, sft
from saliency_r1.training.rollouts import Environment

DOWNLOAD, ANNOTATE, ADAPTER = Path("artifacts/download"), Path("artifacts/annotate"), Path("artifacts/sft/adapter")


def parameters(overrides: list[str]) -> Params:
    """params.yaml with `section.key=value` overrides, validated as a whole."""
    content = load_yaml("params.yaml")
    for override in overrides:
        key, _, value = override.partition("=")
        *parents, last = key.split(".")
        section = content
        for parent in parents:
            section = section[parent]
        section[last] = load_yaml(io.StringIO(value))
    return parse_params(content)


def greedy_rewards(environment: Environment, policy: Policy, rows: list[dict[str, Any]]) -> np.ndarray:
    """Greedy rewards of all rows, in order."""

    def rewards(own: list[dict[str, Any]]) -> list[float]:
        parts = [environment.greedy(policy, own[start : start + 100]) for start in range(0, len(own), 100)]
        return [rollout.reward.value for part in parts for rollout in part]

    return np.array(processes.spread(rows, rewards))


def take_away(control: str) -> None:
    """Train on advantages that say nothing about the responses."""
    honest = cgpo._advantage
    if control == "no_reward":
        cgpo._advantage = lambda table, options: torch.zeros(len(table))
    elif control == "shuffled":
        cgpo._advantage = lambda table, options: honest(table, options).roll(1)


def interval(differences: np.ndarray, replicates: int = 10_000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired differences (n,)."""
    rng = np.random.default_rng(0)
    means = differences[rng.integers(len(differences), size=(replicates, len(differences)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    """Train with every seed and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--split", default="test", help="what is answered; settings are chosen on val")
    parser.add_argument("--samples", type=int, default=1000, help="samples of each data set at most")
    parser.add_argument("--control", choices=["no_reward", "shuffled"])
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/seeds.json"))
    arguments = parser.parse_args()
    params = parameters(arguments.set)
    take_away(arguments.control)
    device, dtype = prepare_torch(params.runtime, params.seed)
    table = pl.read_parquet(DOWNLOAD / "table.parquet")
    prompts, examples = sft.read_rows(DOWNLOAD), sft.read_examples(DOWNLOAD, ANNOTATE)
    test = table.filter(split=arguments.split).group_by("dataset", maintain_order=True).head(arguments.samples)
    tasks = test["task"].to_numpy()
    environment = Environment.load(params, DOWNLOAD, device, dtype)

    def start(trainable: bool) -> Policy:
        return Policy.load(
            DOWNLOAD / "models/policy",
            ADAPTER,
            device=device,
            dtype=dtype,
            trainable=trainable,
            **params.policy.loading,
        )

    before = greedy_rewards(environment, start(False), test.to_dicts())
    say(f"sft: {before.mean():.4f} over {len(before)} {arguments.split} samples")
    rows = []
    for seed in range(1, arguments.seeds + 1):
        began, policy = time.perf_counter(), start(True)
        with tempfile.TemporaryDirectory() as runs:
            for _ in cgpo.train(policy, environment, prompts, examples, params.cgpo, seed, Path(runs)):
                pass
            processes.wait()
        seconds = time.perf_counter() - began
        after = greedy_rewards(environment, policy, test.to_dicts())
        low, high = interval(after - before)
        by_task = {task: float((after - before)[tasks == task].mean()) for task in np.unique(tasks)}
        rows.append({"seed": seed, "sft": before.mean(), "cgpo": after.mean(), "gain": (after - before).mean(),
                     "low": low, "high": high, "gain_by_task": by_task, "training_seconds": seconds})  # fmt: skip
        say(f"seed {seed}: {after.mean():.4f}, gain {rows[-1]['gain']:+.4f} [{low:+.4f}, {high:+.4f}]")
    say(f"interval above zero with {sum(row['low'] > 0 for row in rows)} of {len(rows)} seeds")
    if processes.is_main():
        settings = {"control": arguments.control, "cgpo": params.cgpo.model_dump()}
        settings |= {"split": arguments.split, "samples": len(test)}
        write_json(arguments.out, settings | {"seeds": rows})


def say(text: str) -> None:
    """Print once, however many processes there are."""
    if processes.is_main():
        print(text, flush=True)


if __name__ == "__main__":
    main()
