"""One pair on its way into the sample table: opened once, checked, stored."""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from saliency_r1.data.catalogue import MaskRule
from saliency_r1.data.images import Refused, open_image, thumbnail, turned
from saliency_r1.data.importers import Item, Layout, Problem
from saliency_r1.runtime.files import link, sha256

Place = Callable[[Path, Path], object]

_KEPT_AS_THEY_ARE = {"JPEG": ".jpg", "PNG": ".png"}
_ORIENTATION = 0x0112  # EXIF


@dataclass(frozen=True)
class Imported:
    """One stored pair. Paths are relative to the target folder.

    `sha256` is that of the image as it came, `source` that of image and ground truth, `stored` that of the two files
    in the target, `thumbnail` 16 x 16 RGB bytes for finding look-alikes. `ids` are the instances of an instance map,
    ascending.
    """

    name: str
    group: str | None
    image: str
    mask: str
    height: int
    width: int
    sha256: str
    source: str
    stored: str
    thumbnail: bytes
    instances: int
    ids: tuple[int, ...]
    oriented: bool


def import_item(item: Item, layout: Layout, rule: MaskRule, target: Path, place: Place = link) -> Imported | Problem:
    """Open, check and store one pair as `images/<name>.<jpg|png>` and `masks/<name>.png` under `target`.

    The image's EXIF orientation is applied to image and mask alike: a mask that has the size of the stored pixels lies
    on them. Files that are fine as they are get placed (linked or copied), not rewritten. A pair that is not fine
    becomes a `Problem`.
    """
    try:
        image = open_image(item.image)
        orientation = image.getexif().get(_ORIENTATION, 1)
        upright = ImageOps.exif_transpose(image) if orientation != 1 else image
        _check_size(item.size or image.size, image.size, upright.size)
        truth = layout.mask(item.truth, rule)
        mask = _fitted(truth, image.size, upright.size, orientation)
    except Refused as error:
        return Problem(item.name, str(error))
    unchanged = mask is truth and rule.rule == "binary"
    ids = _instance_ids(mask)
    image_path = _store_image(item, image, upright, target, place)
    mask_path = _store_mask(item, mask, unchanged, target, place)
    return Imported(
        name=item.name,
        group=item.group,
        image=image_path,
        mask=mask_path,
        height=upright.height,
        width=upright.width,
        sha256=sha256(item.image),
        source=source_digest(item),
        stored=stored_digest(target, image_path, mask_path),
        thumbnail=thumbnail(upright),
        instances=len(ids) if mask.dtype == np.uint16 else int(mask.any()),
        ids=ids,
        oriented=orientation != 1,
    )


def source_digest(item: Item) -> str:
    """The SHA-256 of an image and its ground truth as they came."""
    truth = item.truth.read_bytes() if isinstance(item.truth, Path) else pickle.dumps(item.truth)
    return hashlib.sha256(item.image.read_bytes() + truth).hexdigest()


def stored_digest(target: Path, image: str, mask: str) -> str:
    """The SHA-256 of a stored image followed by its mask."""
    return hashlib.sha256((target / image).read_bytes() + (target / mask).read_bytes()).hexdigest()


def _instance_ids(mask: np.ndarray) -> tuple[int, ...]:
    """The ids of an instance map, ascending; none for a binary mask."""
    if mask.dtype != np.uint16:
        return ()
    return tuple((np.flatnonzero(np.bincount(mask.ravel())[1:]) + 1).tolist())


def _fitted(mask: np.ndarray, stored: tuple[int, int], upright: tuple[int, int], orientation: int) -> np.ndarray:
    """The mask on the upright image; sizes are (width, height)."""
    size = mask.shape[::-1]
    _check_size(size, stored, upright)
    return turned(mask, orientation) if size == stored else mask


def _check_size(size: tuple[int, ...], stored: tuple[int, int], upright: tuple[int, int]) -> None:
    if size not in (stored, upright):
        raise Refused(f"the mask is {size[0]} x {size[1]}, the image {upright[0]} x {upright[1]}")


def _store_image(item: Item, image: Image.Image, upright: Image.Image, target: Path, place: Place) -> str:
    suffix = _KEPT_AS_THEY_ARE.get(image.format or "") if upright is image else None
    path = target / "images" / f"{item.name}{suffix or '.png'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix:
        place(item.image, path)
    else:  # PNG loses nothing more, and every reader sees it upright
        plain = upright if upright.mode in ("RGB", "L") else upright.convert("RGB")
        plain.info.clear()
        plain.save(path)
    return path.relative_to(target).as_posix()


def _store_mask(item: Item, mask: np.ndarray, unchanged: bool, target: Path, place: Place) -> str:
    path = target / "masks" / f"{item.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    if unchanged and isinstance(item.truth, Path) and _is_plain(item.truth):
        place(item.truth, path)
    else:
        Image.fromarray(mask).save(path)
    return path.relative_to(target).as_posix()


def _is_plain(path: Path) -> bool:
    """Whether a mask file has the form in which masks are stored: an 8-bit grey PNG."""
    with Image.open(path) as image:
        return image.format == "PNG" and image.mode == "L"
