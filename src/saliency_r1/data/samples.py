"""Reading what a row of the sample table points at. The table's paths are relative to its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

T = TypeVar("T")


def read_images(row: Mapping[str, Any], folder: Path) -> list[Image.Image]:
    """The sample's images, RGB. An image that is gone raises `FileNotFoundError` with its path."""
    images = []
    for path in row["images"]:
        with Image.open(folder / path) as image:
            images.append(image.convert("RGB"))
    return images


def read_masks(row: Mapping[str, Any], folder: Path) -> list[NDArray[Any]]:
    """The sample's masks as stored: uint8 {0, 255}, or 16-bit instance ids."""
    masks = []
    for path in row["masks"]:
        with Image.open(folder / path) as image:
            masks.append(np.array(image))
    return masks


def chunks(group: Sequence[T], size: int) -> list[list[T]]:
    """A group of images cut into the prompts that ask about it, of at most `size` images each.

    As few parts as can be, of nearly one size, larger ones first: of at most 4, 5 are 3 + 2 and 4 are one.
    """
    parts = np.array_split(np.arange(len(group)), -(-len(group) // size)) if group else []
    return [[group[place] for place in part] for part in parts]
