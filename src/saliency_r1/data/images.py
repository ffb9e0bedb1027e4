"""Reading pictures and masks without surprises: whole or refused, upright, with the values that were declared."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_r1.data.catalogue import MaskRule

THUMBNAIL = 16  # pixels a side


class Refused(ValueError):
    """One image that cannot be imported; the message is the reason and the remedy."""


def open_image(path: Path) -> Image.Image:
    """Read a picture completely; `Refused` with a reason if it is none, or only a part of one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on damaged EXIF data; the pixels count
            image = Image.open(path)
            image.load()
            return image
    except FileNotFoundError:
        raise Refused(f"{path.name} is missing") from None
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Refused(f"{path.name} is not a readable image ({error})") from error


def binary(values: np.ndarray, rule: MaskRule) -> np.ndarray:
    """Apply a rule to grey values (uint8 H x W): {0, 255} out, or `Refused` with the remedy."""
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    if present[-1] == 1 and rule.threshold > 1:
        raise Refused("the mask has the values 0 and 1, not 0 and 255: declare mask: {rule: threshold, threshold: 1}")
    if rule.rule == "threshold":
        return np.where(values >= rule.threshold, 255, 0).astype(np.uint8)
    if not set(present.tolist()) <= {0, 255}:
        odd = [int(value) for value in present if value not in (0, 255)]
        raise Refused(
            f"the mask has values beside 0 and 255 ({len(odd)}, from {odd[0]} to {odd[-1]}): "
            "declare mask: {rule: threshold, threshold: 128}"
        )
    return values


def thumbnail(image: Image.Image) -> bytes:
    """The picture as 16 x 16 x 3 bytes (RGB, averaged): nearly the same after scaling or saving it again."""
    return image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes()


def grey(image: Image.Image) -> np.ndarray:
    """Grey values, uint8 H x W; 16-bit ones are scaled down, colours weighted as usual."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        return (values >> 8 if values.max(initial=0) > 255 else values).astype(np.uint8)
    return np.asarray(image.convert("L"))


def turned(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8) to an array, as `ImageOps.exif_transpose` does to a picture."""
    if orientation == 1:
        return mask
    if orientation in (5, 6, 7, 8):
        mask = mask.T
    if orientation in (2, 3, 6, 7):
        mask = mask[:, ::-1]
    if orientation in (3, 4, 7, 8):
        mask = mask[::-1]
    return np.ascontiguousarray(mask)
