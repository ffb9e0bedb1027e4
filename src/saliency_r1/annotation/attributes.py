"""What can be said about an object: the attributes a data set carries, or those that its mask and pixels give away.

An object is a mapping with `id, colour, shape, size, tone, place, salient`, as the rendered scenes store it. For a
photograph without attributes the shape is just "region" and the rest is measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saliency_r1.data.scenes import PLACES

# Everyday colour names by a typical sRGB value.
NAMED_COLOURS = {
    "red": (200, 40, 40), "green": (60, 140, 60), "blue": (50, 90, 200), "yellow": (225, 205, 60),
    "purple": (135, 60, 160), "orange": (235, 135, 40), "brown": (120, 80, 50), "pink": (230, 150, 170),
    "white": (235, 235, 235), "grey": (130, 130, 130), "black": (25, 25, 25),
}  # fmt: skip
LARGE = 0.04  # share of the image's area from which a region is called large
FAINT = 30.0  # mean sRGB distance to the surroundings below which a region is called faint


def measure(image: Image.Image, mask: NDArray[np.bool_], number: int) -> dict[str, Any]:
    """Attributes of the region `mask` (bool, H x W, not empty) of an RGB image."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    inside, outside = pixels[mask].mean(0), pixels[~mask].mean(0) if (~mask).any() else np.zeros(3)
    names = list(NAMED_COLOURS)
    distances = np.linalg.norm(np.array([NAMED_COLOURS[name] for name in names]) - inside, axis=1)
    rows, columns = np.nonzero(mask)
    third = (int(3 * rows.mean() / mask.shape[0]), int(3 * columns.mean() / mask.shape[1]))
    return {
        "id": number,
        "colour": names[int(distances.argmin())],
        "shape": "region",
        "size": "large" if mask.mean() >= LARGE else "small",
        "tone": "faint" if float(np.linalg.norm(inside - outside)) < FAINT else "vivid",
        "place": PLACES[3 * third[0] + third[1]],
        "salient": True,
    }


def objects_of(
    meta: str, images: Sequence[Image.Image], masks: Sequence[Sequence[NDArray[np.bool_]]]
) -> list[list[dict[str, Any]]]:
    """For each image its objects: those of the sample's `meta`, else one measured object for each mask."""
    known = json.loads(meta).get("objects")
    if known:
        return [list(objects) for objects in known]
    return [
        [measure(image, mask, number) for number, mask in enumerate(regions, start=1) if mask.any()]
        for image, regions in zip(images, masks)
    ]
