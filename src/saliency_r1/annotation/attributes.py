"""What can be said about an object: the attributes a data set carries, or those that its mask and pixels give away.

An object is a mapping with `id, colour, name, size, tone, place, salient`, as the rendered scenes store it; they add
other words for the name, `also`, and the word of its `family`. For a photograph without attributes all but the name is
measured, and it is called by its category, or just "region".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saliency_r1.annotation.wording import PLACES

# Everyday colour names by a typical sRGB value.
NAMED_COLOURS = {
    "red": (200, 40, 40), "green": (60, 140, 60), "blue": (50, 90, 200), "yellow": (225, 205, 60),
    "purple": (135, 60, 160), "orange": (235, 135, 40), "brown": (120, 80, 50), "pink": (230, 150, 170),
    "white": (235, 235, 235), "grey": (130, 130, 130), "black": (25, 25, 25),
}  # fmt: skip
KEYS = {"id", "colour", "name", "size", "tone", "place", "salient"}
LARGE = 0.04  # share of the image's area from which a region is called large
FAINT = 30.0  # mean sRGB distance to the surroundings below which a region is called faint
_BLOCK = 1 << 16  # pixels
_ID = re.compile(r"n\d{8}|\d*")  # of ImageNet, or a number
_NO_NAMES = ("group", "set", "class", "category")


def measure(image: Image.Image, mask: NDArray[np.bool_], number: int) -> dict[str, Any]:
    """Attributes of the region `mask` (bool, H x W, not empty) of an RGB image."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    inside, outside = pixels[mask].mean(0), pixels[~mask].mean(0) if (~mask).any() else np.zeros(3)
    rows, columns = np.nonzero(mask)
    third = (int(3 * rows.mean() / mask.shape[0]), int(3 * columns.mean() / mask.shape[1]))
    return {
        "id": number,
        "colour": dominant_colour(pixels[mask]),
        "name": "region",
        "size": "large" if mask.mean() >= LARGE else "small",
        "tone": "faint" if float(np.linalg.norm(inside - outside)) < FAINT else "vivid",
        "place": PLACES[3 * third[0] + third[1]],
        "salient": True,
    }


def dominant_colour(pixels: NDArray[np.float32]) -> str:
    """The colour name that most pixels (n x 3, sRGB) have; each has the name that is nearest in CIELAB.

    A vote and not a mean: the mean of a red and white sign is pink.
    """
    return list(NAMED_COLOURS)[int(colour_shares(pixels).argmax())]


def colour_shares(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of pixels (n x 3, sRGB, n > 0) that is nearest to each of `NAMED_COLOURS`."""
    named, votes = _lab(np.array(list(NAMED_COLOURS.values()))), np.zeros(len(NAMED_COLOURS), np.int64)
    for start in range(0, len(pixels), _BLOCK):  # all at once, a photograph would take gigabytes
        distances = np.linalg.norm(_lab(pixels[start : start + _BLOCK])[:, None] - named, axis=-1)
        votes += np.bincount(distances.argmin(1), minlength=len(votes))
    return votes / len(pixels)


def _lab(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """CIELAB (n x 3) of sRGB values (n x 3)."""
    scaled = (pixels / 255).astype(np.float32)[:, None]
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB)[:, 0], np.float32)


def category(group: str | None) -> str:
    """What a group of images is named after: `Cat-02` -> cat, `n02123394_Persian_cat` -> persian cat; else region."""
    words = [re.sub(r"(?<=\D)\d+$", "", word) for word in re.split(r"[\W_]+", group or "") if not _ID.fullmatch(word)]
    return " ".join(word for word in words if word.lower() not in _NO_NAMES).lower() or "region"


def objects_of(
    meta: str,
    images: Sequence[Image.Image],
    regions: Sequence[Mapping[int, NDArray[np.bool_]]],
    group: str | None,
) -> list[list[dict[str, Any]]]:
    """For each image its objects: those of the sample's `meta`, else one measured object for each region, by its id.

    The name is not measured. It comes from `meta`, as a `name` ("kayak") or a complete `phrase` ("the red kayak"); else
    it is the word that the group is named after.
    """
    known = [
        [_renamed(item) for item in objects] for objects in json.loads(meta).get("objects") or [[] for _ in images]
    ]
    if all(known) and all(item.keys() >= KEYS for objects in known for item in objects):
        return known
    told = [{item["id"]: item for item in objects} for objects in known]
    return [
        [
            _called(measure(image, mask, number), by_id.get(number, {}), group)
            for number, mask in own.items()
            if mask.any()
        ]
        for image, own, by_id in zip(images, regions, told)
    ]


def _renamed(item: dict[str, Any]) -> dict[str, Any]:
    """The object, by its key of today: version 0.1 called the name of a rendered thing its `shape`."""
    return {**item, "name": item["shape"]} if "shape" in item and "name" not in item else item


def _called(item: dict[str, Any], told: Mapping[str, Any], group: str | None) -> dict[str, Any]:
    """A measured object with its name; a phrase needs no colour beside it."""
    if phrase := told.get("phrase"):
        return {**item, "colour": "", "name": re.sub(r"^(the|an?) ", "", phrase.strip(), flags=re.IGNORECASE)}
    return {**item, "name": told.get("name") or category(group)}
