"""The one way a picture becomes pixels: 8-bit RGB, upright, as a viewer shows it.

The importer stores what this gives, so that training and `predict` see the same pixels of the same file.
"""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin, features

from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import UNREAD, require_file, shown

# What the policy takes: Qwen2.5-VL's processor refuses a picture that is longer than this times its width.
MOST_ASPECT = 200
# Where Pillow calls a picture a decompression bomb: a file of kilobytes that fills gigabytes.
MOST_PIXELS = 178_956_970
_ORIENTATION = 0x0112  # EXIF
_DNG = 0xC612  # the tag of its version, which no other TIFF has
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HAS_AVIF = "avif" in features.modules and bool(features.check("avif"))  # a Pillow before 11.3 does not know it
# What is opened, by content: the formats of the names in `find.SUFFIXES`, and AVIF, which the web serves under them.
# Pillow knows more, and some of these start other programs (ghostscript for EPS).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", *["AVIF"] * _HAS_AVIF)
_DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras and scanners keep in files of 16
_OVERSHOOT = 0.1  # by which floats may lie outside of their range after scaling: what is cut off is not seen
_DIM = 32  # the least of the largest value of floats from 0 to 255: less may be a picture of another range


def open_whole(path: Path) -> Image.Image:
    """A file of one of the `FORMATS`, decoded completely and as it is stored; of several frames the first.

    Raises `InputError` for a file that is missing, no picture, half of one, or larger than `MOST_PIXELS`; `OSError` as
    the system gives it.
    """
    require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on damaged EXIF data, and on sizes that are checked here
            image = Image.open(path, formats=FORMATS)
            if image.width * image.height > MOST_PIXELS:
                image.close()
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, at most {MOST_PIXELS:,}")
            if isinstance(image, TiffImagePlugin.TiffImageFile) and _DNG in image.tag_v2:
                raise InputError(f"{shown(path)} is a raw picture (DNG), of which a preview alone is read: export it")
            turn = orientation(image) if image.format == "TIFF" else 1
            deep = any(";16" in mode for mode in _modes(image))
            image.load()
            if deep and len(image.getbands()) > 1 and _is_dark(image):
                raise InputError(
                    f"{shown(path)} has 16 bits in each of several channels, and values of {_DEPTHS[-2]} bits at most: "
                    "save it with 8 bits a channel"
                )
            return image if turn == 1 else _as_stored(image, turn)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if isinstance(error, Image.DecompressionBombError):
            raise InputError(f"{shown(path)} is too large to be opened ({error}): scale it down") from None
        found = _looks(path) or error or type(error).__name__
        raise InputError(f"{shown(path)} is not a readable image ({found})") from error


def _as_stored(image: Image.Image, turn: int) -> Image.Image:
    """A TIFF with its EXIF orientation, and pixels as in the file: Pillow turns those of this format by itself."""
    stored = image.transpose(_TURNS[{6: 8, 8: 6}.get(turn, turn)])
    stored.format = image.format
    stored.getexif()[_ORIENTATION] = turn
    return stored


def _looks(path: Path) -> str:
    """What people find in place of a picture, and what to do about it; empty for anything else."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "the file is empty: fetch or save it again"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS in its place: run `git lfs pull` where it came from"
    if start.lstrip().lower().startswith((b"<!doc", b"<html")):
        return "an HTML page in its place: fetch it again"
    avif = _HAS_AVIF and start[8:11] == b"avi"
    if (start[4:8] == b"ftyp" and not avif) or path.suffix.lower() in UNREAD:
        return "HEIC or another format that is not read here: convert it, to PNG or JPEG"
    return ""


def stored_modes(path: Path) -> list[str]:
    """How Pillow names what a readable file holds before it is decoded, such as `RGB;16B`; one name a part."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=FORMATS) as image:
            return _modes(image)


def _modes(image: ImageFile.ImageFile) -> list[str]:
    arguments = [part[3] for part in image.tile]
    return [one if isinstance(one, str) else str((one or ("",))[0]) for one in arguments]


def _is_dark(image: Image.Image) -> bool:
    """Whether colours of 16 bits, of which Pillow keeps the upper 8, have values of 14 bits at most."""
    colours = [place for place, band in enumerate(image.getbands()) if band != "A"]
    return bool(np.asarray(image)[..., colours].max() < 1 << _DEPTHS[-2] - 8)


def has_more_frames(image: Image.Image, path: Path) -> bool:
    """Whether a file that was opened holds further frames or pages of the size of the first; overviews are smaller.

    Not those of an MPO: what cameras add to a JPEG. What cannot be read of a further frame is none.
    """
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return False
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # Pillow raises whatever it stumbles over
        warnings.simplefilter("ignore")
        with Image.open(path, formats=FORMATS) as again:
            again.seek(1)
            return again.size == image.size
    return False


def read_picture(path: Path) -> Image.Image:
    """A picture as 8-bit RGB, upright, transparency on white, 16 bits scaled (see `to_rgb`).

    Raises `InputError` as `open_whole` does, and for a shape that the policy does not take.
    """
    image = open_whole(path)
    check_shape(image.size, shown(path))
    try:
        return to_rgb(image)
    except InputError as error:
        raise InputError(f"{shown(path)}: {error}") from None


def check_shape(size: tuple[int, int], name: str) -> None:
    """Raise `InputError` for a (width, height) that a later stage cannot take."""
    if min(size) < 1:
        raise InputError(f"{name}: a picture of {size[0]} x {size[1]} pixels")
    if max(size) > MOST_ASPECT * min(size):
        raise InputError(
            f"{name}: {size[0]} x {size[1]} pixels, one side more than {MOST_ASPECT} times the other, which the policy "
            "does not take: crop or pad the picture"
        )


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a picture, 1 (upright) to 8; what cannot be read or is none of these counts as 1."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF: Pillow raises whatever it stumbles over, and the pixels are good
        return 1
    return value if value in _TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    image.load()  # which turns a TIFF
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def is_plain(image: Image.Image) -> bool:
    """Whether every reader sees the same in a picture: 8 bits, upright, opaque."""
    return image.mode in ("RGB", "L") and orientation(image) == 1 and not image.has_transparency_data


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as 8-bit RGB, the way a viewer shows it.

    EXIF orientation is applied; greys of more than 8 bits are scaled by the least of 8, 10, 12, 14 or 16 bits that
    holds them, floats from [0, 1] or else [0, 255], a tenth beyond is cut off; transparency is laid on white; palettes,
    greys and CMYK are converted. The result knows nothing of the file it came from: a second call changes nothing.

    Raises:
        InputError: the picture has no pixels, or values in no such range.
    """
    if min(image.size) < 1:
        raise InputError(f"picture of {image.width} x {image.height} pixels")
    image = upright(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_scaled(np.asarray(image, dtype=np.float64), floats=image.mode == "F"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    rgb = image.convert("RGB")
    rgb.info.clear()
    return rgb


def _scaled(values: NDArray[np.float64], floats: bool) -> NDArray[np.uint8]:
    """Greys of more than 8 bits as 8 bits. Raises `InputError` for values that no range fits."""
    least, most = values.min(), values.max()
    tops = [1.0, 255.0] if floats else [float(2**bits - 1) for bits in _DEPTHS]
    beyond = _OVERSHOOT if floats else 0.0
    top = next((top for top in tops if -beyond * top <= least and most <= (1 + beyond) * top), None)
    if top is None or (top == 255 and floats and most < _DIM):
        expected = f"0 to 1, or 0 to 255 with {_DIM} or more" if floats else "0 to 65535"
        raise InputError(
            f"grey values from {least:g} to {most:g}, expected {expected}: save it as grey of 8 or 16 bits"
        )
    return (values / top * 255).round().clip(0, 255).astype(np.uint8)
