"""The sizes of a policy and a segmenter, counted in the networks themselves, which are built without any weights.

A model is named as in `download.policy`: a folder with its config.json, or a published model of `published.yaml`.
"""

from __future__ import annotations

import contextlib
import json
import re
import reprlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saliency_r1.params import Lora
from saliency_r1.plan.errors import PlanError
from saliency_r1.yaml_loader import load_yaml

if TYPE_CHECKING:
    import torch

    from saliency_r1.segmenter.evf_sam import EvfSamConfig

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", tuple: "a list of numbers"}
_SECTIONS = frozenset({"beit3", "sam_image_encoder", "sam_prompt_encoder", "sam_mask_decoder", "projector"})
PUBLISHED = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class PolicyShape:
    """A policy: numbers of parameters and what decides activations.

    `trained` are parameters, in `modules` places: the adapter's, or without one those of the language model. `shared`
    of them lie in the policy's own weights (full fine-tuning) and take no room beside them. `text` and `vision` are
    the sections of the configuration; `unit` is the side, in pixels, of the square that one token of an image shows.
    Of what FSDP splits, `layer` parameters are those of the largest layer, gathered one after the other, and `root`
    those of no layer (embeddings, output layer, merger), which are whole throughout a pass.
    """

    parameters: int
    trained: int
    modules: int
    shared: bool
    vocabulary: int
    unit: int
    root: int
    layer: int
    text: Any
    vision: Any


@dataclass(frozen=True)
class SegmenterShape:
    """A segmenter: number of parameters, bytes of its stored weights on the device, and its configuration."""

    parameters: int
    resident: int
    config: EvfSamConfig


def read_config(name: str, folders: list[Path]) -> dict[str, Any]:
    """The configuration of a model: from the first of `folders` that has one, or the published one of that name.

    Raises `PlanError` where there is neither.
    """
    for folder in folders:
        file = folder / "config.json"
        if file.is_file():
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise PlanError(f"{file}: not a configuration: {error}") from None
            if not isinstance(found, dict):
                raise PlanError(f"{file}: expected an object with the sizes of a model")
            return found
    published = load_yaml(PUBLISHED)
    plain = name.partition("@")[0]
    if plain in published:
        return dict(published[plain])
    looked = ", ".join(map(str, folders))
    raise PlanError(
        f"the sizes of {plain} are not known: no config.json in {looked}. Name a folder that has one "
        f"(--policy, --segmenter), or use one of {', '.join(published)}"
    )


def policy_shape(config: dict[str, Any], lora: Lora | None) -> PolicyShape:
    """Count a policy and what `sft.lora` would train of it.

    Raises `PlanError` for another kind of model, sizes that make none, and `sft.lora.targets` that fit nothing.
    """
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from saliency_r1.policy.network import language_weights

    if config.get("model_type") != "qwen2_5_vl":
        raise PlanError(f"a policy of type {config.get('model_type')!r}, expected 'qwen2_5_vl'")
    with _sizes("policy"), torch.device("meta"):
        known = Qwen2_5_VLConfig(**{key: value for key, value in config.items() if key != "model_type"})
        model: Any = Qwen2_5_VLForConditionalGeneration(known)
    if lora is None:
        own = language_weights(model)
        weights = [value.numel() for value in model.parameters() if id(value) in own]
        trained, modules = sum(weights), len(weights)
    else:
        trained, modules = _adapter(model, lora)
    layers = [list(one.parameters()) for one in model.modules() if type(one).__name__ in model._no_split_modules]
    in_layers = {id(value) for layer in layers for value in layer}
    text: Any = known.get_text_config()
    vision: Any = known.vision_config
    return PolicyShape(
        parameters=sum(value.numel() for value in model.parameters()),
        trained=trained,
        modules=modules,
        shared=lora is None,
        vocabulary=text.vocab_size,
        unit=vision.patch_size * vision.spatial_merge_size,
        root=sum(value.numel() for value in model.parameters() if id(value) not in in_layers),
        layer=max((sum(value.numel() for value in layer) for layer in layers), default=0),
        text=text,
        vision=vision,
    )


@contextlib.contextmanager
def _sizes(kind: str) -> Iterator[None]:
    """Turn what a network says to sizes that it cannot be built with into a `PlanError` of one line."""
    try:
        yield
    except Exception as error:  # the networks check little of it, and raise whatever they stumble over
        cause = error.__cause__ or error  # transformers wraps what says the key and what was expected of it
        said = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        raise PlanError(f"the {kind}'s config.json: expected sizes that make a network ({said})") from error


def _mistyped(found: dict[str, Any], usual: dict[str, Any], where: str = "") -> str | None:
    """The first value that is of another type than the usual one of its key, and what was expected."""
    for key, one in usual.items():
        expected = (int, float) if isinstance(one, float) else type(one)
        if isinstance(one, dict) and isinstance(found[key], dict):
            if said := _mistyped(found[key], one, f"{where}{key}."):
                return said
        elif not isinstance(found[key], expected):
            return f"{where}{key} = {reprlib.repr(found[key])}, expected {_KINDS[type(one)]}"
    return None


def _adapter(model: Any, lora: Lora) -> tuple[int, int]:
    """Parameters of a LoRA adapter, modules trained as they are included, and the number of places it is put on."""
    from saliency_r1.policy.network import in_language_model

    try:
        targets = re.compile(in_language_model(model, lora.targets))
    except re.error as error:
        raise PlanError(
            f"sft.lora.targets = {lora.targets!r}: expected a regular expression over module names ({error.msg})"
        ) from None
    count = modules = 0
    for name, module in model.named_modules():
        if targets.fullmatch(name) and hasattr(module, "in_features"):
            count += lora.r * (module.in_features + module.out_features)
            modules += 1
        elif name.rpartition(".")[2] in lora.modules_to_save:
            count += sum(value.numel() for value in module.parameters())
            modules += 1
    if not modules:
        raise PlanError(f"sft.lora.targets = {lora.targets!r} matches no linear layer of the policy")
    return count, modules


def segmenter_shape(config: dict[str, Any], dtype: torch.dtype) -> SegmenterShape:
    """Count a segmenter whose encoders compute in `dtype`; what stays float32 is counted as such."""
    import torch

    from saliency_r1.segmenter.backend import lower_precision
    from saliency_r1.segmenter.evf_sam import EvfSam, EvfSamConfig

    for key in config.keys() & _SECTIONS if "beit3" in config else ():
        if not isinstance(config[key], dict):
            raise PlanError(
                f"the segmenter's config.json: {key} = {reprlib.repr(config[key])}, expected an object with sizes"
            )
    try:
        known = EvfSamConfig.from_dict(config)
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"not a segmenter that this project knows: {error}") from None
    if said := _mistyped(asdict(known), asdict(EvfSamConfig())):
        raise PlanError(f"the segmenter's config.json: {said}")
    with _sizes("segmenter"), torch.device("meta"):
        model = EvfSam(known)
    parameters = sum(value.numel() for value in model.parameters())
    model = lower_precision(model, dtype)
    held = [*model.parameters(), *model.buffers()]
    return SegmenterShape(parameters, sum(value.numel() * value.element_size() for value in held), known)
