"""Weights, gradients and moments split over the processes of a training: FSDP, for what one device cannot hold.

It is on when the launcher asks for it, `accelerate launch --use_fsdp` or `env ACCELERATE_USE_FSDP=true torchrun`, and
changes nothing but memory: otherwise every process holds the whole policy. Sampling takes the weights whole, gathered
once for all responses of an update, because answers end at different times and a layer that is split can only be used
by all processes together. For the same reason every process needs as many forward passes as the others, and hence
a share of the same size.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from saliency_r1.runtime import processes
from saliency_r1.training.errors import TrainingError

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

    from saliency_r1.policy import Policy


def asked() -> bool:
    """Whether the launcher asks for it, and there is somebody to share with."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true") and processes.count() > 1


def shard(policy: Policy, batches: Mapping[str, int]) -> None:
    """Split the policy over the processes, if the launcher asks for it; each holds its part of every weight.

    `batches` are the sizes of all batches by their parameter's name. Raises `TrainingError` if one cannot be dealt out
    in equal shares.
    """
    if not asked():
        return
    for name, size in batches.items():
        if size % processes.count():
            raise TrainingError(
                f"{name} = {size} with {processes.count()} processes: FSDP needs a multiple of their number"
            )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(policy.device.type, (processes.count(),))
    # Inside of PEFT, whose own module is passed by when answers are generated.
    model = getattr(policy.model, "get_base_model", lambda: policy.model)()
    for module in model.modules():
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for unit in _units(policy):  # gradients are summed: a share's loss is divided by the whole batch's tokens already
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    # FSDP takes what it first sees in use for the root; generating begins with the layers of the vision tower.
    with torch.no_grad():
        model(input_ids=torch.tensor([[policy.end_id]], device=policy.device))


def unshard(policy: Policy) -> None:
    """Give every process the whole of a split policy, as long as nothing is trained."""
    for unit in _units(policy):
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()


@contextlib.contextmanager
def gathered(policy: Policy) -> Iterator[None]:
    """The policy is whole inside the block and split again afterwards; all processes come here together."""
    unshard(policy)
    try:
        yield
    finally:
        for unit in _units(policy):
            unit.reshard()
            unit.set_reshard_after_forward(True, recurse=False)


def is_split(tensor: Tensor) -> bool:
    """Whether this process holds a part of the tensor."""
    return isinstance(tensor, DTensor)


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that may be split."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor that may be split, whole; all processes come here together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, split as the other one of its shape is."""
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


def _units(policy: Policy) -> list[FSDPModule]:
    """What is gathered at once: the layers, and the rest of the model."""
    if not asked():
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in policy.model.modules() if isinstance(module, FSDPModule)]
