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

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency_r1 import processes
from saliency_r1.params import Cgpo
from saliency_r1.policy import Policy
from saliency_r1.training import advantages, checkpoints, confidence, sft
from saliency_r1.training.adapter import Optimiser, TrainingError, check_finite, restore, state_of
from saliency_r1.training.batches import buckets, epoch_batch
from saliency_r1.training.diagnostics import summarise
from saliency_r1.training.rollouts import Environment, Rollout, Row, Seconds


@dataclass(frozen=True)
class Update:
    """What one update leaves behind: a row of the curves, the rows of the rollouts table, where the time went."""

    curve: dict[str, Any]
    rollouts: list[dict[str, Any]]
    seconds: dict[str, Any]


@dataclass
class Forward:
    """The training forward pass over one batch of rollouts; all tensors are (n,) in the order of the rollouts.

    `logprob` is the sum of the tokens' log-probabilities and carries the gradient; the others do not.
    """

    logprob: Tensor
    confidence: Tensor
    entropy: Tensor


def check(options: Cgpo, rows: Sequence[Row]) -> None:
    """Refuse what cannot work before the first update."""
    grouped = options.algorithm in ("grpo", "rloo")
    if not rows:
        raise TrainingError("there is no training sample; look at the checks of the stage annotate")
    if grouped and (options.group_size < 2 or options.batch_size % options.group_size):
        raise TrainingError(
            f"cgpo.group_size = {options.group_size} with batch_size = {options.batch_size}: {options.algorithm} needs "
            "groups of two or more that divide the batch"
        )
    if options.algorithm == "cgpo" and options.group_size != 1:
        raise TrainingError(f"cgpo.group_size = {options.group_size}: CGPO samples one response a prompt, set it to 1")
    if options.batch_size // options.group_size > len(rows):
        raise TrainingError(f"cgpo.batch_size = {options.batch_size} is larger than the {len(rows)} training samples")


def train(
    policy: Policy, environment: Environment, examples: sft.Examples, options: Cgpo, seed: int, runs: Path
) -> Iterator[Update]:
    """Train the policy's adapter in place on the samples of `examples`; yields every update, resumed ones included."""
    check(options, examples.rows)
    optimiser = Optimiser(policy, options, options.updates)
    done: list[Update] = []
    if state := checkpoints.load(runs):
        restore(policy, optimiser, state)
        done = [Update(**update) for update in state["updates"]]
    yield from done
    for number in range(len(done), options.updates):
        torch.manual_seed(seed * 1_000_003 + number)  # of dropout; responses have seeds of their own
        update = _update(policy, environment, examples, options, optimiser, number, seed)
        done.append(update)
        check_finite([u.curve["grad_norm"] for u in done[-3:]], (row["sample_id"] for row in update.rollouts))
        if (number + 1) % options.checkpoint_every == 0 and processes.is_main():
            checkpoints.save(runs, number + 1, {**state_of(policy, optimiser), "updates": [vars(u) for u in done]})
        yield update
    policy.model.eval()


def _update(
    policy: Policy,
    environment: Environment,
    examples: sft.Examples,
    options: Cgpo,
    optimiser: Optimiser,
    number: int,
    seed: int,
) -> Update:
    """One update: rollouts, advantage, RL step, and an ISR step when it is due.

    Each process answers its share of the prompts; rewards and confidences are gathered, because an advantage may
    depend on the whole batch.
    """
    environment.seconds = Seconds()
    positions = epoch_batch(len(examples), options.batch_size // options.group_size, number, seed)
    batch = [examples.rows[position] for position in positions for _ in range(options.group_size)]
    mine = processes.share([len(row["images"]) for row in batch])
    rows = [batch[place] for place in mine]
    prompts = environment.prompts(policy, rows)
    seeds = [response_seed(seed, number, place) for place in mine]
    responses = environment.respond(policy, prompts, seeds, options.temperature)
    rollouts = environment.score(rows, responses)

    start = time.perf_counter()
    policy.model.train()
    forward = _forward(policy, environment, rollouts, prompts, options)
    records = [
        {
            "rollout_id": number * options.batch_size + place,
            "update": number + 1,
            **rollout.record(),
            "confidence": forward.confidence[own].item(),
            "entropy": forward.entropy[own].item(),
            "tokens": len(rollout.response.ids),
            "ended": rollout.response.ended,
            "expressions": len(rollout.parsed.expressions),
            **{f"reward_{name}": value for name, value in rollout.reward.components.items()},
        }
        for own, (place, rollout) in enumerate(zip(mine, rollouts))
    ]
    if options.algorithm == "remax":
        greedy = environment.score(rows, environment.respond(policy, prompts))
        records = [{**record, "greedy_reward": g.reward.value} for record, g in zip(records, greedy)]
    table = sorted(processes.gather(records), key=lambda record: record["rollout_id"])
    advantage = _advantage(table, options)
    for record, value in zip(table, advantage.tolist()):
        record["advantage"] = value

    tokens = sum(record["tokens"] for record in table)
    (-(advantage[mine].to(forward.logprob) * forward.logprob).sum() / tokens).backward()
    curve: dict[str, Any] = {"update": number + 1, "lr": optimiser.lr, "grad_norm": optimiser.step()}
    if options.isr.every and (number + 1) % options.isr.every == 0:
        taken = (number + 1) // options.isr.every - 1
        chosen = examples.pick(epoch_batch(len(examples), options.isr.batch_size, taken, seed + 1))
        curve["isr_loss"] = sft.backward(policy, environment, chosen, options.micro_batch, options.isr.weight)
        curve["isr_grad_norm"] = optimiser.step()
    optimiser.advance()
    # Apart from the curves: wall time differs between runs that are otherwise the same to the last digit.
    seconds = {"update": number + 1, **vars(environment.seconds), "train": time.perf_counter() - start}
    return Update(curve | summarise(table), table, seconds)


def response_seed(seed: int, update: int, place: int) -> int:
    """The seed of one response: of the run, the update and the place in its batch, whoever samples it."""
    return int(np.random.SeedSequence((seed, update, place)).generate_state(1)[0])


def _forward(
    policy: Policy, environment: Environment, rollouts: Sequence[Rollout], prompts: Sequence[Any], options: Cgpo
) -> Forward:
    """Log-probabilities of all responses with gradient, confidence and entropy without."""
    responses = [rollout.response for rollout in rollouts]
    counted = confidence.counted(policy, responses, options.confidence)
    logprob: dict[int, Tensor] = {}
    sure: dict[int, Tensor] = {}
    spread: dict[int, Tensor] = {}
    lengths = [len(prompt.input_ids) + len(response.ids) for prompt, response in zip(prompts, responses)]
    for positions in buckets(lengths, options.micro_batch):
        batch = policy.collate([prompts[p] for p in positions], [responses[p].ids for p in positions])
        logprobs, mask, entropy = policy.logprobs_and_entropy(batch, options.temperature)
        chosen = torch.zeros_like(mask)
        for row, position in enumerate(positions):
            chosen[row, mask[row]] = counted[position].to(mask.device)
        certain = confidence.mean_probability(logprobs, chosen)
        means = (entropy * mask).sum(-1) / mask.sum(-1)
        for row, position in enumerate(positions):
            logprob[position] = logprobs[row].sum()
            sure[position], spread[position] = certain[row].cpu(), means[row].cpu()
    if not rollouts:  # a process without a share of the batch
        none = torch.zeros(0)
        return Forward(none.requires_grad_(), none, none)
    return Forward(*(torch.stack([part[place] for place in range(len(rollouts))]) for part in (logprob, sure, spread)))


def _advantage(table: Sequence[dict[str, Any]], options: Cgpo) -> Tensor:
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
