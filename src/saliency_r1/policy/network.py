"""Where the language model lies in a multimodal one, and what is done to it: freezing, checkpointing, adapters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from saliency_r1.policy.errors import PolicyError


def language_weights(model: Any) -> set[int]:
    """The `id` of every parameter of the language model: what lies under the decoder, and the output layer."""
    parts = (model.get_decoder(), model.get_output_embeddings())
    return {id(parameter) for part in parts for parameter in part.parameters()}


def freeze_vision(model: Any) -> None:
    """Leave only the language model's weights trainable: neither the vision tower nor what leads from it to there."""
    trained = language_weights(model)
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)


def in_language_model(model: Any, expression: str) -> str:
    """A regular expression over module names, narrowed to modules under the decoder."""
    decoder = model.get_decoder()
    place = next(name for name, module in model.named_modules() if module is decoder)
    return rf"(?={re.escape(place)}\.)(?:{expression})"


def checkpoint_layers(model: Any) -> None:
    """Compute the language model's layers again in the backward pass instead of keeping what they left."""
    model.get_decoder().activation_checkpointing_enable({"use_reentrant": False})


def spare_inputs(model: nn.Module) -> None:
    """Take back that inputs have a gradient, which transformers and PEFT ask for beside `checkpoint_layers`.

    Only reentrant checkpoints need it; here the frozen vision tower would be differentiated for nothing.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.disable_input_require_grads()


def put_on(model: Any, lora: Path, trainable: bool, folder: Path) -> Any:
    """The model of `folder` with a stored adapter on it; PEFT alone would pass over what fits nowhere."""
    from peft import PeftModel, get_peft_model_state_dict

    try:
        model = PeftModel.from_pretrained(model, lora, is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        raise PolicyError(f"{lora} is not an adapter of {folder}: {str(error).strip().splitlines()[-1]}") from error
    with safe_open(lora / "adapter_model.safetensors", "pt") as file:
        stored = set(file.keys())
    # Said, since PEFT would ask the hub whether the base's vocabulary has grown.
    embeddings = any(".lora_embedding_" in name for name in stored)
    if stray := stored ^ set(get_peft_model_state_dict(model, save_embedding_layers=embeddings)):
        raise PolicyError(f"{lora} is not an adapter of {folder}: only one of the two has {min(stray)}")
    return model
