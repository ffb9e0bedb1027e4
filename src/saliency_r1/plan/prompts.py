"""How many tokens a prompt has: images as the processor scales them, and the words around them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from saliency_r1 import tasks
from saliency_r1.params import Params

CHARACTERS = 4.5  # of a token of English text
TEMPLATE = 25  # tokens of the chat template: the system's turn, and where a turn begins and ends
AROUND = 2  # tokens before and after the tokens of an image


@dataclass(frozen=True)
class PromptSize:
    """Tokens of a prompt in all, and those of its images among them."""

    tokens: int
    images_tokens: int


def image_tokens(width: int, height: int, unit: int, min_pixels: int, max_pixels: int) -> int:
    """Tokens of an image: its sides rounded to multiples of `unit`, then scaled to an area between the two."""
    high, wide = (max(unit, round(side / unit) * unit) for side in (height, width))
    if high * wide > max_pixels:
        factor = math.sqrt(height * width / max_pixels)
        high, wide = (max(unit, math.floor(side / factor / unit) * unit) for side in (height, width))
    elif high * wide < min_pixels:
        factor = math.sqrt(min_pixels / (height * width))
        high, wide = (math.ceil(side * factor / unit) * unit for side in (height, width))
    return high * wide // unit**2


def prompt_size(task: str, images: int, tokens_each: int) -> PromptSize:
    """The size of a task's prompt with so many images of so many tokens each."""
    words = round(len(tasks.get(task).instruction) / CHARACTERS)
    return PromptSize(TEMPLATE + words + images * (tokens_each + AROUND), images * tokens_each)


def longest_prompt(params: Params, unit: int) -> PromptSize:
    """A group of as many images as a prompt may show, all of them as large as the policy sees them."""
    return prompt_size("cosod", params.download.cosod_chunk, params.policy.max_pixels // unit**2)
