"""Seconds and memory of an update over 32 prompts: CGPO here beside TRL's GRPOTrainer with 8 generations.

    pip install trl==1.16.0 datasets==5.2.0        # of this benchmark alone
    python benchmarks/rl_step.py

The same SFT policy and adapter, prompts, reward, precision, device and number of threads; each side in a process of its
own. TRL generates with transformers, as CGPO does. The first update of each is left out of the means. Needs
artifacts/download, annotate and sft (`dvc repro sft`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saliency_r1.runtime.files import write_json

PROMPTS = 32
GENERATIONS = 8
MICRO_BATCH = 8  # responses whose graph is held at once, on both sides
ARMS = ("cgpo", "trl", "trl, kl 0.04")
LABELS = {"cgpo": "CGPO", "trl": "TRL GRPO", "trl, kl 0.04": "TRL GRPO with KL"}


def measure_cgpo(updates: int) -> dict[str, Any]:
    """CGPO's updates, each with an ISR step, of which the share counts that falls to an update on average."""
    from saliency_r1.training import sft

    params, policy, environment = world()
    rows = prompts()
    examples = sft.read_examples(Path("artifacts/download"), Path("artifacts/annotate"))
    options = params.cgpo.model_copy(
        update={"updates": updates, "checkpoint_every": updates + 1, "batch_size": PROMPTS, "drift_every": 0,
                "micro_batch": MICRO_BATCH}
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as runs:
        return measured(policy, environment, rows, examples, options, Path(runs))


def measured(
    policy: Any, environment: Any, rows: Sequence[Any], examples: Any, options: Any, runs: Path
) -> dict[str, Any]:
    """Seconds, tokens and memory of this trainer's updates; of the ISR steps, one in each, the share that is due."""
    from saliency_r1.training import cgpo

    share = 1 / options.isr.every if options.isr.every else 0.0
    options = options.model_copy(update={"isr": options.isr.model_copy(update={"every": 1 if share else 0})})
    seconds, generating, tokens = [], [], []
    start = time.perf_counter()
    for update in cgpo.train(policy, environment, rows, examples, options, 1, runs):
        seconds.append(time.perf_counter() - start - (1 - share) * update.costs["isr"])
        generating.append(update.costs["generate"])
        tokens.append(sum(row["tokens"] for row in update.rollouts))
        print(f"update {len(seconds)}: {seconds[-1]:.2f} s, {json.dumps(update.costs)}", file=sys.stderr, flush=True)
        start = time.perf_counter()
    return result(seconds, generating, tokens, policy.device)


def measure_trl(updates: int, kl: float) -> dict[str, Any]:
    """Updates of TRL's trainer on the same prompts with the same reward."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from saliency_r1 import tasks
    from saliency_r1.data.samples import read_images
    from saliency_r1.policy import Response

    params, policy, environment = world()
    rows = {row["sample_id"]: row for row in prompts()}
    seconds: list[float] = []
    generating: list[float] = []
    tokens: list[int] = []

    def example(row: Any) -> dict[str, Any]:
        text = {"type": "text", "text": tasks.get(row["task"]).instruction}
        images = read_images(row, Path("artifacts/download"))
        content = [*({"type": "image"} for _ in images), text]
        return {"prompt": [{"role": "user", "content": content}], "images": images, "sample_id": row["sample_id"]}

    def reward(
        completions: Sequence[Any], completion_ids: Sequence[Any], sample_id: Sequence[str], **_: Any
    ) -> list[float]:
        tokens[-1] += sum(map(len, completion_ids))
        texts = [said[0]["content"] if isinstance(said, list) else said for said in completions]
        texts = [part[0]["text"] if isinstance(part, list) else part for part in texts]
        said = [Response(text, tuple(ids), True) for ids, text in zip(completion_ids, texts)]
        found = environment.score([rows[name] for name in sample_id], said)
        rewards.append(sum(rollout.reward.value for rollout in found) / len(found))
        return [rollout.reward.value for rollout in found]

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()
            tokens.append(0)
            generating.append(0.0)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.start)

    rewards: list[float] = []
    chosen = list(rows.values())
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(1)).tolist()
    options = params.cgpo
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, max_steps=updates, per_device_train_batch_size=MICRO_BATCH,
            gradient_accumulation_steps=PROMPTS * GENERATIONS // MICRO_BATCH, num_generations=GENERATIONS,
            max_completion_length=params.policy.max_new_tokens, learning_rate=options.lr, beta=kl,
            temperature=options.temperature, use_cpu=not torch.cuda.is_available(), bf16=False, report_to="none",
            save_strategy="no", logging_steps=1, gradient_checkpointing=False, disable_tqdm=True, top_k=0,
            generation_kwargs={"suppress_tokens": policy.suppressed},
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=policy.model, reward_funcs=reward, args=config, processing_class=policy.processor,
            train_dataset=Dataset.from_list([example(chosen[place]) for place in order[: PROMPTS * updates]]),
            callbacks=[Clock()],
        )  # fmt: skip
        generate = trainer._generate

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return generate(*arguments, **named)
            finally:
                generating[-1] += time.perf_counter() - start

        trainer._generate = timed
        trainer.train()
    assert min(rewards) > 0, "the reward does not understand what TRL hands over"
    return result(seconds, generating, tokens, policy.device)


def prompts() -> list[Any]:
    """The training prompts with one image of the commonest size: TRL's forward pass fails on a mixture of sizes."""
    from saliency_r1.training import sft

    rows = [row for row in sft.read_rows(Path("artifacts/download")) if len(row["images"]) == 1]
    sizes = Counter((row["height"][0], row["width"][0]) for row in rows)
    ((size, _),) = sizes.most_common(1)
    return [row for row in rows if (row["height"][0], row["width"][0]) == size]


def world() -> tuple[Any, Any, Any]:
    """Parameters, the SFT policy ready to train, and what its answers are tried in."""
    from saliency_r1.params import load_params
    from saliency_r1.policy import Policy
    from saliency_r1.rollout.environment import Environment
    from saliency_r1.runtime.stage import prepare_torch

    params, download = load_params("params.yaml"), Path("artifacts/download")
    device, dtype = prepare_torch(params.runtime, params.seed)
    policy = Policy.load(
        download / "models/policy", Path("artifacts/sft/adapter"), device=device, dtype=dtype, trainable=True,
        **params.policy.loading,
    )  # fmt: skip
    return params, policy, Environment.load(params, download, device, dtype)


def result(seconds: Sequence[float], generating: Sequence[float], tokens: Sequence[int], device: Any) -> dict[str, Any]:
    """Means over the updates but the first, and the most memory held: of the GPU, or of the process without one."""
    from saliency_r1.training.diagnostics import peak_memory

    count = len(seconds) - 1
    spent, generated, said = (sum(values[1:]) / count for values in (seconds, generating, tokens))
    return {
        "seconds": spent, "generate": generated, "tokens": said, "tokens_per_second": said / generated,
        "seconds_per_token": spent / said, "peak_gb": peak_memory(device),
    }  # fmt: skip


def main() -> None:
    """Measure each side in its own process and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/rl-step.json"))
    arguments = parser.parse_args()
    if arguments.arm:
        row = (
            measure_cgpo(arguments.updates)
            if arguments.arm == "cgpo"
            else measure_trl(arguments.updates, 0.04 if "kl" in arguments.arm else 0.0)
        )
        print(json.dumps(row))
        return
    found = {}
    for arm in ARMS:
        command = [sys.executable, __file__, "--arm", arm, "--updates", str(arguments.updates)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[arm] = json.loads(done.stdout.splitlines()[-1])
    print("| | s an update | s generating | tokens | tokens/s | ms a token | peak GB | time of CGPO |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for arm, row in found.items():
        print(f"| {LABELS[arm]} | {row['seconds']:.2f} | {row['generate']:.2f} | {row['tokens']:.0f} | "
              f"{row['tokens_per_second']:.0f} | {1000 * row['seconds_per_token']:.2f} | {row['peak_gb']:.2f} | "
              f"{found['cgpo']['seconds'] / row['seconds']:.2f} |")  # fmt: skip
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
