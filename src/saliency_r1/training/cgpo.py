"""CGPO: confidence-guided policy optimisation (arXiv 2511.00396), readable as its pseudo-code.

    for each update:
        sample one response for each prompt                          (a group of them for GRPO and RLOO)
        r = reward of the masks the response leads to, in [0, 1]
        c = mean probability of the response's tokens, from the training forward pass
        A = r - c                                                    (normalised as `cgpo.normalise` says)
        step on  - sum_i A_i sum_t log p(token_it) / number of tokens
        every `isr.every` updates: one SFT step                      (interleaved SFT regularisation, instead of a KL)

There is no group, no value network, no reference model. The other algorithms differ in the line of A alone. Each update
seeds itself from (seed, update), so that a resumed run draws the very same responses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saliency_r1.params import Cgpo
from saliency_r1.policy import Policy
from saliency_r1.training import advantages, checkpoints, confidence, sft
from saliency_r1.training.adapter import Optimiser, restore, state_of
from saliency_r1.training.batches import buckets, epoch_batch
from saliency_r1.training.diagnostics import summarise
from saliency_r1.training.rollouts import Environment, Rollout, Row, Seconds


class CgpoError(ValueError):
    """A run that cannot start or go on; the message names what is wrong and where."""


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
    tokens: int


def check(options: Cgpo, rows: Sequence[Row]) -> None:
    """Refuse what cannot work before the first update."""
    grouped = options.algorithm in ("grpo", "rloo")
    if not rows:
        raise CgpoError("there is no training sample; look at the checks of the stage annotate")
    if grouped and (options.group_size < 2 or options.batch_size % options.group_size):
        raise CgpoError(
            f"cgpo.group_size = {options.group_size} with batch_size = {options.batch_size}: {options.algorithm} needs "
            "groups of two or more that divide the batch"
        )
    if options.algorithm == "cgpo" and options.group_size != 1:
        raise CgpoError(f"cgpo.group_size = {options.group_size}: CGPO samples one response a prompt, set it to 1")
    if options.batch_size // options.group_size > len(rows):
        raise CgpoError(f"cgpo.batch_size = {options.batch_size} is larger than the {len(rows)} training samples")


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
    failures = 0
    for number in range(len(done), options.updates):
        torch.manual_seed(seed * 1_000_003 + number)
        update, rollouts = _update(policy, environment, examples, options, optimiser, number, seed)
        failures = 0 if math.isfinite(update.curve["grad_norm"]) else failures + 1
        if failures == 3:
            ids = ", ".join(str(rollout.row["sample_id"]) for rollout in rollouts[:10])
            raise CgpoError(f"three updates in a row had a gradient that is not finite; the last one saw {ids}")
        done.append(update)
        if (number + 1) % options.checkpoint_every == 0:
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
) -> tuple[Update, list[Rollout]]:
    """One update: rollouts, advantage, RL step, and an ISR step when it is due."""
    environment.seconds = Seconds()
    prompts_wanted = options.batch_size // options.group_size
    positions = epoch_batch(len(examples), prompts_wanted, number, seed)
    rows = [examples.rows[p] for p in positions for _ in range(options.group_size)]
    prompts = environment.prompts(policy, rows)
    responses = environment.respond(policy, prompts, sample=True, temperature=options.temperature)
    rollouts = environment.score(rows, responses)

    start = time.perf_counter()
    policy.model.train()
    rewards = torch.tensor([rollout.reward.value for rollout in rollouts])
    forward = _forward(policy, environment, rollouts, prompts, options)
    advantage = _advantage(policy, environment, rows, prompts, rewards, forward.confidence, options)
    (-(advantage * forward.logprob).sum() / forward.tokens).backward()
    curve: dict[str, Any] = {"update": number + 1, "lr": optimiser.lr}
    curve["grad_norm"] = _step_if_finite(optimiser)
    if options.isr.every and (number + 1) % options.isr.every == 0:
        taken = (number + 1) // options.isr.every - 1
        chosen = examples.pick(epoch_batch(len(examples), options.isr.batch_size, taken, seed + 1))
        curve["isr_loss"] = sft.backward(policy, environment, chosen, options.micro_batch, options.isr.weight)
        curve["isr_grad_norm"] = _step_if_finite(optimiser)
    optimiser.advance()
    curve |= summarise(rollouts, forward.confidence, advantage, forward.entropy, options.isr.every > 0)
    # Apart from the curves: wall time differs between runs that are otherwise the same to the last digit.
    seconds = {"update": number + 1, **vars(environment.seconds), "train": time.perf_counter() - start}
    table = [
        {
            "rollout_id": number * options.batch_size + index,
            "update": number + 1,
            **rollout.record(),
            "confidence": forward.confidence[index].item(),
            "advantage": advantage[index].item(),
            "tokens": len(rollout.response.ids),
            **{f"reward_{name}": value for name, value in rollout.reward.components.items()},
        }
        for index, rollout in enumerate(rollouts)
    ]
    return Update(curve, table, seconds), rollouts


def _step_if_finite(optimiser: Optimiser) -> float:
    """Step, unless the gradient is not finite: then it is dropped and its norm tells."""
    norm = torch.nn.utils.get_total_norm(p.grad for p in optimiser.parameters if p.grad is not None)
    if torch.isfinite(norm):
        return optimiser.step()
    optimiser.adamw.zero_grad(set_to_none=True)
    return float(norm)


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
    order = range(len(rollouts))
    return Forward(
        torch.stack([logprob[i] for i in order]),
        torch.stack([sure[i] for i in order]),
        torch.stack([spread[i] for i in order]),
        sum(len(response.ids) for response in responses),
    )


def _advantage(
    policy: Policy,
    environment: Environment,
    rows: Sequence[Row],
    prompts: Sequence[Any],
    rewards: Tensor,
    confidences: Tensor,
    options: Cgpo,
) -> Tensor:
    """The line in which the algorithms differ."""
    match options.algorithm:
        case "cgpo":
            return advantages.cgpo(rewards, confidences, options.normalise)
        case "reinforce_pp":
            return advantages.reinforce_pp(rewards)
        case "rloo":
            return advantages.rloo(rewards, options.group_size)
        case "grpo":
            return advantages.grpo(rewards, options.group_size)
        case "remax":
            greedy = environment.score(rows, environment.respond(policy, prompts, sample=False))
            return advantages.remax(rewards, torch.tensor([rollout.reward.value for rollout in greedy]))
