"""CGPO: confidence-guided policy optimisation (arXiv 2511.00396), readable as its pseudo-code.

    for each update:
        sample one response for each prompt                          (a group of them for GRPO and RLOO)
        r = reward of the masks the response leads to, in [0, 1]
        c = mean probability of the response's tokens, from the training forward pass
        A = r - c                                                    (normalised as `cgpo.normalise` says)
        step on  - sum_i A_i sum_t log p(token_it) / number of tokens
        every `isr.every` updates: one SFT step                      (interleaved SFT regularisation, instead of a KL)

There is no group, no value network, no reference model. The other algorithms differ in the line of A alone. The seed of
a response is that of the run, the update and its place in the batch, so that a resumed run, or one in more processes,
draws the very same responses.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_r1.params import Cgpo
from saliency_r1.policy import Policy, Prompt, Response
from saliency_r1.rollout.batches import epoch_batch
from saliency_r1.rollout.environment import Environment, Rollout, Row, Seconds
from saliency_r1.rollout.passes import TokenScores, passes
from saliency_r1.runtime import processes
from saliency_r1.training import advantages, checkpoints, sft, sharding
from saliency_r1.training.diagnostics import Clock, check_sampling, peak_memory, record, summarise
from saliency_r1.training.errors import TrainingError
from saliency_r1.training.history import History, Update
from saliency_r1.training.objective import divergence, loss
from saliency_r1.training.optimiser import (
    Optimiser,
    Snapshot,
    check_finite,
    restore,
    seed_step,
    state_of,
    train_without_dropout,
)

# From the rollouts of a whole update, in order, and the section `cgpo` to one value a rollout.
Advantage = Callable[[Sequence[dict[str, Any]], Cgpo], Tensor]
Norms = dict[str, deque[float]]  # of the last gradients of each kind


def check(options: Cgpo, rows: Sequence[Row], examples: int) -> None:
    """Refuse what cannot work before the first update."""
    if not rows:
        raise TrainingError("there is no training sample; look at download.datasets and at the checks of download")
    if options.batch_size // options.group_size > len(rows):
        raise TrainingError(f"cgpo.batch_size = {options.batch_size} is larger than the {len(rows)} training samples")
    if options.isr.every and options.isr.batch_size > examples:
        raise TrainingError(f"cgpo.isr.batch_size = {options.isr.batch_size} is larger than the {examples} annotations")


def train(
    policy: Policy,
    environment: Environment,
    rows: Sequence[Row],
    examples: sft.Examples,
    options: Cgpo,
    seed: int,
    runs: Path,
    advantage: Advantage | None = None,
) -> Iterator[Update]:
    """Train the policy's adapter in place; yields every update, resumed ones included, and keeps them in `runs`.

    The prompts are those of `rows`, samples with ground truth; only the ISR steps need `examples`, annotated ones.
    `advantage` stands in for that of `options.algorithm` (`advantage_of`), as controls have it.
    """
    check(options, rows, len(examples))
    environment.check(rows)
    batches = {"cgpo.batch_size": options.batch_size}
    if options.isr.every:
        batches["cgpo.isr.batch_size"] = options.isr.batch_size
    sharding.shard(policy, batches)
    trainer = Trainer(policy, environment, rows, examples, options, seed, advantage or advantage_of)
    history, done = History(runs), 0
    if state := checkpoints.load(runs):
        restore(policy, trainer.optimiser, state)
        done = state["step"]
    del state
    history.cut(done)
    norms: Norms = {name: deque(maxlen=3) for name in ("grad_norm", "isr_grad_norm")}
    for update in history.read(done):
        _add(norms, update)
        yield update
    for number in range(done, options.updates):
        seed_step(seed, number)  # responses have seeds of their own
        update = trainer.update(number)
        history.append(update)
        _add(norms, update)
        for last in norms.values():
            check_finite(last, (row["sample_id"] for row in update.rollouts))
        if (number + 1) % options.checkpoint_every == 0:
            checkpoints.save(runs, number + 1, state_of(policy, trainer.optimiser))
        yield update
    trainer.optimiser.settle()
    sharding.unshard(policy)
    policy.model.eval()


def _add(norms: Norms, update: Update) -> None:
    for name, last in norms.items():
        if name in update.curve:
            last.append(update.curve[name])


@dataclass
class Batch:
    """This process's share of an update's responses; `places` are their numbers in the whole batch."""

    places: list[int]
    prompts: list[Prompt]
    responses: list[Response]
    rollouts: list[Rollout]
    greedy_rewards: list[float]


class Trainer:
    """What stays from update to update."""

    def __init__(
        self,
        policy: Policy,
        environment: Environment,
        rows: Sequence[Row],
        examples: sft.Examples,
        options: Cgpo,
        seed: int,
        advantage: Advantage,
    ) -> None:
        self.policy = policy
        self.environment = environment
        self.rows = rows
        self.examples = examples
        self.options = options
        self.seed = seed
        self.advantage = advantage
        self.optimiser = Optimiser(policy, options, options.updates, options.isr.moments == "own")
        self.reference = Snapshot(policy) if options.kl or options.drift_every else None

    def update(self, number: int) -> Update:
        """Update `number` (from 0): rollouts, advantage, RL step, and an ISR step when it is due.

        Each process answers its share of the prompts; rewards and confidences are gathered, because an advantage may
        depend on the whole batch.
        """
        self.environment.seconds = Seconds()
        batch = self._respond(number)
        clock = Clock()
        train_without_dropout(self.policy)
        first = self._measure(batch)
        anchors: Sequence[Tensor | None] = self._anchors(number, batch) or [None for _ in first]
        records = self._records(number, batch, first, anchors)
        table = sorted(processes.gather(records), key=lambda row: int(row["rollout_id"]))
        check_sampling(table)
        advantage = self.advantage(table, self.options)
        for row, value in zip(table, advantage.tolist()):
            row["advantage"] = value
        forward = clock.lap()
        curve: dict[str, Any] = {"update": number + 1, "lr": self.optimiser.lr}
        tokens = sum(row["tokens"] for row in table)
        isr = self.options.isr.every and (number + 1) % self.options.isr.every == 0
        # Beside the gradient of an ISR step, where a copy of the weights is affordable, a copy of a gradient is.
        remember = bool(isr) and self.reference is not None
        curve["grad_norm"] = self._reinforce(batch, first, anchors, advantage[batch.places], tokens, remember)
        backward = clock.lap()
        if isr:
            curve |= self._regularise((number + 1) // self.options.isr.every - 1)
        self.optimiser.advance()
        # Apart from the curves: these differ between runs that are otherwise the same to the last digit.
        costs = {"update": number + 1, **vars(self.environment.seconds), "forward": forward, "backward": backward,
                 "isr": clock.lap(), "peak_gb": peak_memory(self.policy.device)}  # fmt: skip
        components = dict.fromkeys(name for weights in self.environment.weights.values() for name in weights)
        return Update(curve | summarise(table, components), table, costs)

    def _respond(self, number: int) -> Batch:
        """Sample and score this process's share of the responses."""
        options = self.options
        positions = epoch_batch(len(self.rows), options.batch_size // options.group_size, number, self.seed)
        everything = [self.rows[position] for position in positions for _ in range(options.group_size)]
        places = processes.shard_indices(everything)
        rows = [everything[place] for place in places]
        prompts = self.environment.prompts(self.policy, rows)
        seeds = [response_seed(self.seed, number, place) for place in places]
        with sharding.gathered(self.policy):
            responses = self.environment.respond(self.policy, prompts, seeds, options.temperature)
            greedy = self.environment.greedy(self.policy, rows) if options.algorithm == "remax" else []
        rollouts = self.environment.score(rows, responses)
        return Batch(places, prompts, responses, rollouts, [rollout.reward.value for rollout in greedy])

    def _passes(self, batch: Batch) -> Iterator[TokenScores]:
        options = self.options
        return passes(self.policy, batch.prompts, batch.responses, options.micro_batch, options.temperature)

    def _measure(self, batch: Batch) -> list[TokenScores]:
        """Passes over all responses, before the step: an advantage may depend on the confidence of every one of them.

        Where one micro-batch holds them all, its graph waits for the step. More of them would fill the memory, so none
        is kept, and `_reinforce` passes over the responses once more.
        """
        with torch.set_grad_enabled(self._fits(batch)):
            return list(self._passes(batch))

    def _fits(self, batch: Batch) -> bool:
        """Whether one micro-batch holds all responses of this process."""
        return len(batch.places) <= self.options.micro_batch

    def _anchors(self, number: int, batch: Batch) -> list[Tensor]:
        """Log-probabilities under the SFT policy, one tensor a pass; none unless the loss or the drift needs them."""
        drift = self.options.drift_every and (number + 1) % self.options.drift_every == 0
        if self.reference is None or not (self.options.kl or drift):
            return []
        with torch.no_grad(), self.reference.in_place():
            return [one.logprobs for one in self._passes(batch)]

    def _records(
        self, number: int, batch: Batch, first: Sequence[TokenScores], anchors: Sequence[Tensor | None]
    ) -> list[dict[str, Any]]:
        """This process's rows of the rollouts table, but for the advantage."""
        records: list[dict[str, Any]] = [{} for _ in batch.places]
        for one, anchor in zip(first, anchors, strict=True):
            distance = None if anchor is None else divergence(one.logprobs.detach(), anchor)
            for row, own in enumerate(one.positions):
                rollout_id = number * self.options.batch_size + batch.places[own]
                records[own] = {"rollout_id": rollout_id, "update": number + 1}
                records[own] |= record(self.policy, batch.rollouts[own], one, row, self.options)
                records[own]["kl_to_sft"] = None if distance is None else one.own(row, distance).mean().item()
        for own_record, reward in zip(records, batch.greedy_rewards):
            own_record["greedy_reward"] = reward
        return records

    def _reinforce(
        self,
        batch: Batch,
        first: Sequence[TokenScores],
        anchors: Sequence[Tensor | None],
        advantage: Tensor,
        tokens: int,
        remember: bool,
    ) -> float:
        """Step on the objective `epochs` times; returns the norm of the last gradient, and remembers it if asked.

        A gradient that is not finite is not stepped on, and its norm is what is returned, whichever epoch it is of.
        """
        options = self.options
        old = [one.logprobs.detach() for one in first]
        norms = []
        for epoch in range(options.epochs):
            stepped = first if epoch == 0 and self._fits(batch) else self._passes(batch)
            for one, sampled, anchor in zip(stepped, old, anchors, strict=True):
                (loss(one, sampled, advantage, options.clip, anchor, options.kl) / tokens).backward()
            norms.append(self.optimiser.step(remember))
        return next((norm for norm in norms if not math.isfinite(norm)), norms[-1])

    def _regularise(self, taken: int) -> dict[str, float | None]:
        """The ISR step that follows `taken` others."""
        isr = self.options.isr
        self.policy.model.train()
        chosen = self.examples.pick(epoch_batch(len(self.examples), isr.batch_size, taken, self.seed + 1))
        value = sft.backward(self.policy, self.environment, chosen, self.options.micro_batch, isr.weight)
        norm = self.optimiser.step(regularising=True)
        return {"isr_loss": value, "isr_grad_norm": norm, "isr_cosine": self.optimiser.cosine}


def response_seed(seed: int, update: int, place: int) -> int:
    """The seed of one response: of the run, the update and the place in its batch, whoever samples it."""
    return int(np.random.SeedSequence((seed, update, place)).generate_state(1)[0])


def advantage_of(table: Sequence[dict[str, Any]], options: Cgpo) -> Tensor:
    """The line in which the algorithms differ: (n,) of a whole batch, in the order of its table."""

    def column(name: str) -> Tensor:
        return torch.tensor([record[name] for record in table])

    match options.algorithm:
        case "cgpo":
            tasks = [record["task"] for record in table]
            return advantages.cgpo(column("reward"), column("confidence"), options.normalise, tasks)
        case "reinforce_pp":
            return advantages.reinforce_pp(column("reward"))
        case "rloo":
            return advantages.rloo(column("reward"), options.group_size)
        case "grpo":
            return advantages.grpo(column("reward"), options.group_size)
        case "remax":
            return advantages.remax(column("reward"), column("greedy_reward"))
