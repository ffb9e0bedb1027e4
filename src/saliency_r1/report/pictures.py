"""Pictures of scenes with masks on them: as SVG for the page, as pixels for files.

Outside of a mask the scene is darkened and the mask is outlined; what was found keeps its own colours, so that a red
apple under a red tint is never a question.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

MASK = "#ffffff"
INSTANCES = ("#ffffff", "#35e0ff", "#ff6fbf", "#c3ff5c", "#ffa53b", "#c4a1ff")
_EMBEDDED_BYTES = 40_000
_EMBEDDED_SIDE = 360
_DARK = 0.34  # brightness that is left outside of a mask

Mask = NDArray[np.bool_]


def colours(count: int, instances: bool) -> list[str]:
    """One colour a mask: by instance, or always the same."""
    return [INSTANCES[index % len(INSTANCES)] if instances else MASK for index in range(count)]


def data_uri(path: Path) -> str:
    """A picture file as a data URI: its own bytes when they are few, else a smaller JPEG."""
    content = path.read_bytes()
    kind = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}.get(path.suffix.lower())
    if kind is None or len(content) > _EMBEDDED_BYTES:
        with Image.open(path) as image:
            return jpeg_uri(image, _EMBEDDED_SIDE)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def jpeg_uri(image: Image.Image, side: int) -> str:
    """A picture as the data URI of a JPEG whose sides are at most `side` pixels."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def svg(
    key: str,
    size: tuple[int, int],
    uri: str = "",
    masks: Sequence[Mask] | None = None,
    truth: Sequence[Mask] = (),
    instances: bool = False,
    title: str = "",
) -> Markup:
    """A picture of (height, width) `size`. With `uri` it defines the scene under `key`, without it refers to that.

    `masks` are kept bright and outlined, `truth` is drawn as a dashed line; `masks=None` shows the scene as it is.
    """
    height, width = size
    scene = Markup('<image id="{}" width="{}" height="{}" href="{}"/>').format(key, width, height, uri)
    parts = [scene if uri else Markup('<use href="#{}"/>').format(key)]
    if masks is not None:
        paths = [outline(mask) for mask in masks]
        frame = f"M0 0H{width}V{height}H0Z"
        union = outline(np.any(masks, axis=0)) if len(masks) else ""
        parts.append(Markup('<path class="shade" d="{}{}"/>').format(frame, union))
        for path, colour in zip(paths, colours(len(paths), instances)):
            parts.append(Markup('<path class="outline" stroke="{}" d="{}"/>').format(colour, path))
    for mask in truth:
        parts.append(Markup('<path class="truth" d="{}"/>').format(outline(mask)))
    if masks is not None and not any(mask.any() for mask in masks):
        parts.append(Markup('<text class="nothing" x="50%" y="93%" font-size="{}">nothing</text>').format(width // 12))
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup("").join(parts)
    )


def outline(mask: Mask) -> str:
    """The outlines of a mask as SVG path data in pixels of the mask, holes included (fill rule: even-odd)."""
    scale = max(1, min(4, 640 // max(mask.shape)))
    return "".join(
        "M" + "L".join(f"{x:g} {y:g}" for x, y in ((line + 0.5) / scale).round(1)) + "Z"
        for line in _contours(mask, scale)
    )


def _contours(mask: Mask, scale: int) -> list[NDArray[Any]]:
    """Closed lines (points x 2) around a mask that was enlarged smoothly; a pixel of tolerance at that scale."""
    height, width = mask.shape
    large = _enlarged(mask, (width * scale, height * scale))
    found, _ = cv2.findContours(large.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [line for line in (cv2.approxPolyDP(line, 0.8, True)[:, 0] for line in found) if len(line) > 2]


def _enlarged(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at another (width, height), smoothly; itself where it has that size."""
    if mask.shape == size[::-1]:
        return mask
    larger: Mask = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) >= 0.5
    return larger


def paint(
    image: Image.Image, masks: Sequence[Mask] | None, instances: bool = False, scale: int = 1, line: int = 2
) -> Image.Image:
    """The same picture in pixels, enlarged `scale` times: dark outside of the masks, outlined around them."""
    large = image.convert("RGB")
    if scale != 1:
        large = large.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    if masks is None:
        return large
    union = np.any(masks, axis=0) if len(masks) else np.zeros((image.height, image.width), bool)
    canvas = np.array(large)
    # In 8 bits throughout: in floating point this took 46 bytes a pixel, and takes 8.
    dark = cv2.LUT(canvas, (np.arange(256) * _DARK).astype(np.uint8))
    np.copyto(canvas, dark, where=~_enlarged(union, large.size)[..., None])
    for mask, colour in zip(masks, colours(len(masks), instances)):
        rgb = tuple(int(colour[start : start + 2], 16) for start in (1, 3, 5))
        cv2.polylines(canvas, _contours(mask, scale), True, rgb, line, cv2.LINE_AA)
    return Image.fromarray(canvas)
