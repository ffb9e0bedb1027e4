"""What differs between the families of multimodal language models, one record for each `model_type` of a config.json.

Everything else is asked of the model and its processor: where the language model lies, which tokens an image becomes,
which tensors it is passed as.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saliency_r1.policy.errors import PolicyError

_QWEN = (
    "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<|im_start|>",
    "<|endoftext|>",
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One family: its tokens, and how it is told what is an image.

    Attributes:
        name: as people say it.
        end: the token that ends an answer.
        pad: the token that fills up a batch.
        never: tokens that no answer may have, those of images first; a tokenizer may lack some of them.
        marks: the model's input that marks the tokens of images with 1, all others with 0; None where it has none.
        limit: bounds the pixels of an image, (image processor, least, most); None where all images become one size.
        reasoning: the tags around its reasoning. `cot` reads all of them; where the family's chat template opens one,
            that is left to the answer.
    """

    name: str
    end: str
    pad: str
    never: tuple[str, ...]
    marks: str | None = None
    limit: Callable[[Any, int, int], None] | None = None
    reasoning: tuple[str, ...] = ("think",)


def _by_area(images: Any, least: int, most: int) -> None:
    """The area of an image lies between the two."""
    images.size = {"shortest_edge": least, "longest_edge": most}


def _by_tiles(images: Any, least: int, most: int) -> None:
    """An image is cut into tiles of one size, as many as have room in `most`, at least one; a small one is enlarged."""
    images.max_patches = max(1, most // (images.size["height"] * images.size["width"]))


def _by_edge(images: Any, least: int, most: int) -> None:
    """The longer side becomes a multiple of a tile's, such that a square of it has room in `most`."""
    tile = images.max_image_size["longest_edge"]
    images.size = {"longest_edge": tile * max(1, math.isqrt(most) // tile)}


FAMILIES = {
    "qwen2_5_vl": Family("Qwen2.5-VL", "<|im_end|>", "<|endoftext|>", _QWEN, "mm_token_type_ids", _by_area),
    "qwen3_vl": Family(
        "Qwen3-VL", "<|im_end|>", "<|endoftext|>", _QWEN, "mm_token_type_ids", _by_area, ("think", "thinking")
    ),
    "internvl": Family(
        "InternVL",
        "<|im_end|>",
        "<|endoftext|>",
        ("<IMG_CONTEXT>", "<img>", "</img>", "<video>", *_QWEN),
        limit=_by_tiles,
    ),
    "smolvlm": Family(
        "SmolVLM2",
        "<end_of_utterance>",
        "<|im_end|>",
        (
            *("<image>", "<fake_token_around_image>", "<global-img>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"),
            *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
        ),
        limit=_by_edge,
    ),
    "gemma3": Family(
        "Gemma 3",
        "<end_of_turn>",
        "<pad>",
        ("<image_soft_token>", "<start_of_image>", "<end_of_image>", "<start_of_turn>", "<bos>", "<eos>", "<pad>"),
        marks="token_type_ids",
    ),
}


def family_of(model_type: str | None, folder: str | Path) -> Family:
    """The record of a model's type; `folder` is for the message of the `PolicyError` that refuses an unknown one."""
    if model_type not in FAMILIES:
        known = ", ".join(f"{kind} ({family.name})" for kind, family in FAMILIES.items())
        raise PolicyError(f"{folder}: a policy of model_type {model_type!r}; known are {known}")
    return FAMILIES[model_type]
