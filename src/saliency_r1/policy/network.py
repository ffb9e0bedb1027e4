"""Where the language model lies in a multimodal one, and what is done to it: freezing, checkpointing, adapters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForImageTextToText, GenerationConfig, PreTrainedModel

from saliency_r1.policy.errors import PolicyError

_POINTER = "; a file of some hundred bytes is a note of Git LFS, for which `git lfs pull` brings the weights"


def read_network(folder: str | Path, dtype: torch.dtype, attention: str | None = None) -> Any:
    """The network of a folder with all of its weights: transformers would draw at random what the files lack.

    Its generation config is not used: beams, forbidden repetitions and the like would change the answers.

    Raises `PolicyError` for weights that cannot be read, are not those of the configuration, or not all of them.
    """
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, attn_implementation=attention, output_loading_info=True
        )
    except (SafetensorError, RuntimeError, ValueError) as error:
        hint = _POINTER if isinstance(error, SafetensorError) else ""
        why = " ".join(str(error).split())[:300]
        raise PolicyError(f"{folder}: config.json and weights make no model ({why}){hint}") from error
    network, about = loaded
    if missing := about["missing_keys"]:
        raise PolicyError(
            f"{folder}: {len(missing)} of the weights that config.json asks for are in none of its files, such as "
            f"{min(missing)}; is the download complete, and are the weights those of this model?"
        )
    network.generation_config = GenerationConfig()  # `generate` reads from it whatever its call leaves out
    return network


def language_weights(model: Any) -> set[int]:
    """The `id` of every parameter of the language model: what lies under the decoder, and the output layer."""
    parts = (model.get_decoder(), model.get_output_embeddings())
    return {id(parameter) for part in parts for parameter in part.parameters()}


def shares_embedding(model: Any) -> bool:
    """Whether the output layer has the embedding's weights; families write that in different places, or nowhere."""
    return model.get_input_embeddings().weight is model.get_output_embeddings().weight


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

    weights = lora / "adapter_model.safetensors"
    if not weights.is_file():
        raise PolicyError(f"{lora}: an adapter's weights are read from {weights.name}, which is not there")
    try:
        model = PeftModel.from_pretrained(model, lora, is_trainable=trainable)
    except SafetensorError as error:
        raise PolicyError(f"{weights} cannot be read: {error}{_POINTER}") from error
    except (RuntimeError, ValueError, KeyError) as error:
        raise PolicyError(f"{lora} is not an adapter of {folder}: {str(error).strip().splitlines()[-1]}") from error
    with safe_open(weights, "pt") as file:
        stored = set(file.keys())
    # Said, since PEFT would ask the hub whether the base's vocabulary has grown.
    embeddings = any(".lora_embedding_" in name for name in stored)
    if stray := stored ^ set(get_peft_model_state_dict(model, save_embedding_layers=embeddings)):
        raise PolicyError(f"{lora} is not an adapter of {folder}: only one of the two has {min(stray)}")
    return model
