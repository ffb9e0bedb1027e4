"""Supervised fine-tuning: next-token loss on annotated responses, prompt tokens masked, on a LoRA adapter.

The loss of a step is the mean over all response tokens of its batch. Samples of like length share a forward pass
(`micro_batch`), which changes memory and padding, not the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from saliency_r1.params import Sft
from saliency_r1.policy import Policy
from saliency_r1.rollout.batches import buckets, epoch_batch
from saliency_r1.rollout.environment import Environment, Row
from saliency_r1.runtime import processes
from saliency_r1.training import checkpoints, sharding
from saliency_r1.training.errors import TrainingError
from saliency_r1.training.optimiser import Optimiser, check_finite, restore, seed_step, state_of


@dataclass(frozen=True)
class Examples:
    """Annotated samples: rows of the sample table with the `response` to learn."""

    rows: Sequence[Row]
    responses: Sequence[str]

    def __len__(self) -> int:
        return len(self.rows)

    def pick(self, positions: Sequence[int]) -> Examples:
        """The examples at these positions."""
        return Examples([self.rows[p] for p in positions], [self.responses[p] for p in positions])


def backward(policy: Policy, environment: Environment, examples: Examples, micro_batch: int, weight: float) -> float:
    """Accumulate the gradient of `weight` x the mean token loss over the examples; returns the mean token loss.

    Each process takes a share of the examples; the gradients are summed by the optimiser's step.
    """
    everything = [policy.response_ids(response) for response in examples.responses]
    tokens = sum(map(len, everything))
    mine = processes.shard_indices(examples.rows)
    prompts = environment.prompts(policy, [examples.rows[position] for position in mine])
    answers = [everything[position] for position in mine]
    lengths = [len(prompt.input_ids) + len(answer) for prompt, answer in zip(prompts, answers)]
    total = 0.0
    for positions in buckets(lengths, micro_batch):
        batch = policy.collate([prompts[p] for p in positions], [answers[p] for p in positions])
        logprobs, _ = policy.logprobs(batch)
        loss: Tensor = -logprobs.sum() / tokens
        (weight * loss).backward()
        total += loss.item()
    return sum(processes.gather([total]))


def train(
    policy: Policy, environment: Environment, examples: Examples, options: Sft, seed: int, runs: Path
) -> Iterator[dict[str, Any]]:
    """Train the policy's adapter in place; yields one row of the curves a step, those of a resumed run included."""
    if options.batch_size > len(examples):
        raise TrainingError(f"sft.batch_size = {options.batch_size} is larger than the {len(examples)} annotations")
    environment.check(examples.rows)
    sharding.shard(policy, {"sft.batch_size": options.batch_size})
    optimiser = Optimiser(policy, options, options.steps)
    curves: list[dict[str, Any]] = []
    if state := checkpoints.load(runs):
        restore(policy, optimiser, state)
        curves = state["curves"]
    del state
    yield from curves
    policy.model.train()
    for step in range(len(curves), options.steps):
        seed_step(seed, step)
        chosen = examples.pick(epoch_batch(len(examples), options.batch_size, step, seed))
        loss = backward(policy, environment, chosen, options.micro_batch, 1.0)
        row = {"step": step + 1, "loss": loss, "lr": optimiser.lr, "grad_norm": optimiser.step()}
        optimiser.advance()
        curves.append(row)
        check_finite([row["grad_norm"] for row in curves[-3:]], (row["sample_id"] for row in chosen.rows))
        if (step + 1) % options.checkpoint_every == 0:
            checkpoints.save(runs, step + 1, {**state_of(policy, optimiser), "curves": curves})
        yield row
    optimiser.settle()
    sharding.unshard(policy)
    policy.model.eval()


def read_rows(download: Path) -> Sequence[Row]:
    """The samples of the training split, from the folder of the stage download."""
    import polars as pl

    return pl.read_parquet(download / "table.parquet").filter(split="train").to_dicts()


def read_validation(download: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """`count` samples of the validation split, or all of them, drawn with `seed`; from the stage download's folder.

    Raises `TrainingError` when there are none: what SFT has learnt, and its gate, are judged by answers to them.
    """
    from saliency_r1.data.table import read_samples, validation

    drawn = validation(read_samples(download), count, seed)
    if drawn.is_empty():
        raise TrainingError(
            "there is no validation sample, and the answers to them are what SFT is judged by; give one of "
            "download.datasets a split `val` in the catalogue"
        )
    return drawn.to_dicts()


def read_examples(download: Path, annotate: Path) -> Examples:
    """The kept annotations of the training split with their samples, from the folders of the two stages."""
    import polars as pl

    samples = {row["sample_id"]: row for row in read_rows(download)}
    annotations = pl.read_parquet(annotate / "table.parquet").filter(pl.col("kept"), split="train")
    return Examples([samples[sample_id] for sample_id in annotations["sample_id"]], annotations["response"].to_list())
