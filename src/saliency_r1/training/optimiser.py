"""What SFT and CGPO optimise: a LoRA adapter, its optimiser and its schedule."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from saliency_r1.params import Lora
from saliency_r1.policy import Policy
from saliency_r1.policy.network import in_language_model, language_weights, shares_embedding, spare_inputs
from saliency_r1.runtime import processes
from saliency_r1.training import sharding
from saliency_r1.training.errors import TrainingError


def check_finite(norms: Iterable[float], sample_ids: Iterable[str]) -> None:
    """Raise `TrainingError` when the last three gradients were not finite; names the samples of the last step."""
    last = list(norms)[-3:]
    if len(last) == 3 and not any(map(math.isfinite, last)):
        raise TrainingError(
            "three steps in a row had a gradient that is not finite, and were not taken; the last one saw "
            f"{', '.join(list(sample_ids)[:10])}. Lower the learning rate, or look at these samples"
        )


class Optimisation(Protocol):
    """The parameters both trainers share (sections `sft` and `cgpo`)."""

    lr: float
    warmup: int
    weight_decay: float
    adam_epsilon: float
    max_grad_norm: float
    average: float


def wrap(policy: Policy, lora: Lora | None, seed: int) -> Policy:
    """Put a fresh LoRA adapter on a base policy: on the modules of its language model that `lora.targets` matches.

    Without `lora` the policy is returned as it is: all of its language model is trained.

    Raises `TrainingError` when the expression, over whole names of modules, matches none there, and when
    `lora.modules_to_save` names what is not of the language model: all else stays frozen.
    """
    if lora is None:
        return policy
    from peft import LoraConfig, get_peft_model

    targets = in_language_model(policy.model, lora.targets)
    if not any(re.fullmatch(targets, name) for name, _ in policy.model.named_modules()):
        linear = {name.rpartition(".")[2] for name, module in policy.model.get_decoder().named_modules()
                  if isinstance(module, nn.Linear)}  # fmt: skip
        raise TrainingError(
            f"sft.lora.targets = {lora.targets!r} matches no module of the language model; its linear layers are "
            f"{', '.join(sorted(linear))}"
        )
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        modules_to_save=list(lora.modules_to_save) or None,
        # An output layer that shares its weights with the embedding goes on sharing them.
        ensure_weight_tying=bool(lora.modules_to_save) and shares_embedding(policy.model),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(policy.model, config)
    own = language_weights(model.get_base_model())
    touched = [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in own]
    if touched:
        raise TrainingError(
            f"sft.lora.modules_to_save = {list(lora.modules_to_save)} trains {touched[0]}, "
            "which is not of the language model"
        )
    spare_inputs(model)
    return Policy(model, policy.processor, policy.device, policy.autocast)


def seed_step(seed: int, step: int) -> None:
    """Let chance in step `step` (from 0), that of dropout, follow from the seed of the run and the step alone."""
    torch.manual_seed(seed * 1_000_003 + step)


def train_without_dropout(policy: Policy) -> None:
    """Training mode, as gradient checkpointing needs it, in which the policy is still the one that was sampled from."""
    policy.model.train()
    for module in policy.model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()


class Optimiser:
    """AdamW with linear warm-up and linear decay to a tenth, over the trainable parameters of a policy.

    Adam normalises even gradients that are pure rounding noise (1e-9) to full steps, so runs with one and two processes
    diverge; `options.adam_epsilon` must exceed that noise, and stay far below gradients that mean something, which get
    smaller with the number of parameters. Raises `TrainingError` for weights in which a small step is lost to rounding.

    `own_moments` gives the steps of `regularising` Adam moments of their own. Shared ones fill with the larger of two
    kinds of gradients, and the smaller kind, divided by them, hardly moves anything.

    `options.average` is the weight of the past in a running average of the weights (0: none is kept). Small batches
    make the last weights a matter of chance, their average much less so; `settle` puts it in their place. `cosine` is
    that of the last gradient and the one before it, in [-1, 1], where that one was remembered.
    """

    def __init__(self, policy: Policy, options: Optimisation, steps: int, own_moments: bool = False) -> None:
        self.parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
        self.options = options
        self.steps = steps
        if coarse := {parameter.dtype for parameter in self.parameters} - {torch.float32, torch.float64}:
            raise TrainingError(
                f"weights of type {coarse.pop()} would be trained, which hold no step of lr = {options.lr:g}: set "
                "runtime.dtype: float32 and policy.autocast: true, or train LoRA alone (sft.lora.modules_to_save: [])"
            )
        self.cosine: float | None = None
        self._remembered: list[Tensor] = []
        self.done = 0  # steps of the schedule, which moves on even when a gradient is dropped
        self.average = [parameter.detach().clone() for parameter in self.parameters] if options.average else []
        # Tensor by tensor: all at once, as is usual on GPUs, a step needs room for one more copy of what is trained.
        self.adamws = [
            torch.optim.AdamW(
                self.parameters,
                lr=options.lr,
                eps=options.adam_epsilon,
                weight_decay=options.weight_decay,
                foreach=False,
            )
            for _ in range(2 if own_moments else 1)
        ]

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        warmup = self.options.warmup
        warm = min(1.0, (self.done + 1) / (warmup + 1))
        return self.options.lr * warm * (1.0 - 0.9 * max(0, self.done - warmup) / max(1, self.steps - warmup))

    def step(self, remember: bool = False, regularising: bool = False) -> float:
        """Sum the gradients of all processes, clip, apply and clear them; returns their norm before clipping.

        A gradient that is not finite is dropped, and its norm tells. Every process must call this: one without a share
        of the batch adds nothing. `remember` keeps a copy until the next step, to compare the two.
        """
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        processes.add_up([gradient for gradient in gradients if not sharding.is_split(gradient)])  # FSDP has done so
        self.cosine = _cosine(self._remembered, gradients) if self._remembered else None
        self._remembered = [gradient.clone() for gradient in gradients] if remember else []
        norm = float(sharding.full_tensor(nn.utils.clip_grad_norm_(self.parameters, self.options.max_grad_norm)))
        adamw = self.adamws[-1 if regularising else 0]
        if math.isfinite(norm):
            for group in adamw.param_groups:
                group["lr"] = self.lr
            adamw.step()
        adamw.zero_grad(set_to_none=True)
        return norm

    def advance(self) -> None:
        """Move the schedule and the running average on by one step."""
        self.done += 1
        # At first the average reaches back over a part of the run only, or it would keep the start in mind.
        past = min(self.options.average, self.done / (self.done + 9))
        for mean, parameter in zip(self.average, self.parameters):
            mean.lerp_(parameter.detach(), 1 - past)

    @torch.no_grad()
    def settle(self) -> None:
        """End the training: the running average, if one is kept, becomes the policy."""
        for mean, parameter in zip(self.average, self.parameters):
            parameter.copy_(mean)


def _cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> float | None:
    """The cosine of two lists of tensors taken as vectors; None where one of them is zero or not finite."""

    def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
        return float(sum(sharding.full_tensor((x * y).sum()).double() for x, y in zip(a, b)))

    length = math.sqrt(inner(one, one) * inner(other, other))
    return inner(one, other) / length if 0 < length < math.inf else None


class Snapshot:
    """A copy of a policy's trainable weights, to look back at what it was."""

    def __init__(self, policy: Policy) -> None:
        self.parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
        self.values = [sharding.local_part(parameter.detach()).clone() for parameter in self.parameters]

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The policy is what it was inside the block, and itself again afterwards."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for value, parameter in zip(self.values, self.parameters):
            # Unseen by autograd: graphs wait for their backward pass meanwhile.
            place = sharding.local_part(parameter).data
            now = place.clone()
            place.copy_(value)
            value.copy_(now)


def state_of(policy: Policy, optimiser: Optimiser) -> dict[str, Any]:
    """Everything a resumed run needs to go on exactly: trainable weights, moments, schedule.

    All processes come here together, and only the first, which writes the checkpoint, holds the tensors; with however
    many the run is resumed.
    """

    def kept(tensor: Tensor) -> Tensor | None:
        value = sharding.full_tensor(tensor)
        return value.cpu() if processes.is_main() else None

    def moments(adamw: torch.optim.AdamW) -> dict[str, Any]:
        state = adamw.state_dict()
        kept_state = {place: {key: kept(value) for key, value in own.items()} for place, own in state["state"].items()}
        return {**state, "state": kept_state}

    return {
        "weights": {name: kept(p.detach()) for name, p in policy.model.named_parameters() if p.requires_grad},
        "optimisers": [moments(adamw) for adamw in optimiser.adamws],
        "done": optimiser.done,
        "average": [kept(mean) for mean in optimiser.average],
    }


@torch.no_grad()
def restore(policy: Policy, optimiser: Optimiser, state: dict[str, Any]) -> None:
    """Put a state of `state_of` back."""
    own: dict[str, Tensor] = {name: p for name, p in policy.model.named_parameters() if p.requires_grad}
    if set(own) != set(state["weights"]):
        raise TrainingError("the checkpoint is of another adapter; delete its folder under runs/ to start anew")
    for name, parameter in own.items():
        parameter.copy_(sharding.shard_like(state["weights"][name], parameter))
    for adamw, stored in zip(optimiser.adamws, state["optimisers"], strict=True):
        moments = {
            place: {key: sharding.shard_like(value, parameter) if value.ndim else value for key, value in own.items()}
            for (place, own), parameter in zip(stored["state"].items(), optimiser.parameters)
        }
        adamw.load_state_dict({**stored, "state": moments})
    optimiser.done = state["done"]
    for mean, value in zip(optimiser.average, state["average"], strict=True):
        mean.copy_(sharding.shard_like(value, mean))


def save_adapter(policy: Policy, folder: Path) -> None:
    """Write what was trained: the PEFT folder, or the whole model after full fine-tuning."""
    # By parameters: asked for its state_dict, FSDP would split again what was gathered.
    weights = {name: p.detach() for name, p in policy.model.named_parameters(remove_duplicate=False)}
    policy.model.save_pretrained(folder, state_dict=weights)
    readme = folder / "README.md"
    readme.unlink(missing_ok=True)
