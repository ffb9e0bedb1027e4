"""One pair on its way into the sample table: opened once, checked, stored."""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_r1.data.catalogue import MaskRule
from saliency_r1.data.images import thumbnail, turned
from saliency_r1.data.importers import Item, Layout, Problem
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import reading, require_file, shown
from saliency_r1.inputs.pictures import check_shape, is_plain, open_whole, orientation, to_rgb
from saliency_r1.runtime.files import link, sha256

Place = Callable[[Path, Path], object]

_KEPT_AS_THEY_ARE = {"JPEG": ".jpg", "PNG": ".png"}


@dataclass(frozen=True)
class Imported:
    """One stored pair. Paths are relative to the target folder.

    `sha256` is that of the image as it came, `source` that of image and ground truth, `stored` that of the two files
    in the target, `thumbnail` 16 x 16 RGB bytes for finding look-alikes. `ids` are the instances of an instance map,
    ascending. `oriented`: the image had an EXIF orientation; `turned`: its mask lay on the stored pixels and was turned
    along.
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
    turned: bool


def import_item(item: Item, layout: Layout, rule: MaskRule, target: Path, place: Place = link) -> Imported | Problem:
    """Open, check and store one pair as `images/<name>.<jpg|png>` and `masks/<name>.png` under `target`.

    The image becomes what `to_rgb` makes of it, which `predict` shows to the models as well. Files that are fine as
    they are get placed (linked or copied), not rewritten. A pair that is not fine becomes a `Problem`.
    """
    try:
        with reading(item.image):
            image, came_as = open_whole(item.image), sha256(item.image)
        check_shape(image.size, shown(item.image))
        upright = to_rgb(image)
        _check_size(item.size or image.size, image.size, upright.size)
        with reading(item.truth if isinstance(item.truth, Path) else item.image):
            truth = layout.mask(item.truth, rule)
        source = source_digest(item)
        mask = _fitted(truth, image.size, upright.size, orientation(image), rule)
    except InputError as error:
        return Problem(item.name, str(error))
    unchanged = mask is truth and rule.rule == "binary" and rule.void is None
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
        sha256=came_as,
        source=source,
        stored=stored_digest(target, image_path, mask_path),
        thumbnail=thumbnail(upright),
        instances=len(ids) if mask.dtype == np.uint16 else int(mask.any()),
        ids=ids,
        oriented=orientation(image) != 1,
        turned=mask is not truth,
    )


def source_digest(item: Item) -> str:
    """The SHA-256 of an image and its ground truth as they came. Raises `InputError` for what cannot be read."""
    digest = hashlib.sha256()
    for part in (item.image, item.truth):
        if isinstance(part, Path):
            require_file(part)
            with reading(part):
                digest.update(part.read_bytes())
        else:
            digest.update(pickle.dumps(part))
    return digest.hexdigest()


def stored_digest(target: Path, image: str, mask: str) -> str:
    """The SHA-256 of a stored image followed by its mask."""
    return hashlib.sha256((target / image).read_bytes() + (target / mask).read_bytes()).hexdigest()


def _instance_ids(mask: np.ndarray) -> tuple[int, ...]:
    """The ids of an instance map, ascending; none for a binary mask."""
    if mask.dtype != np.uint16:
        return ()
    return tuple((np.flatnonzero(np.bincount(mask.ravel())[1:]) + 1).tolist())


def _fitted(
    mask: np.ndarray, stored: tuple[int, int], upright: tuple[int, int], turn: int, rule: MaskRule
) -> np.ndarray:
    """The mask on the upright image; sizes are (width, height), `turn` is the EXIF orientation of the stored pixels.

    Where both sizes are the same, the mask lies on the upright image unless `rule.orientation` says otherwise.
    """
    size = mask.shape[::-1]
    _check_size(size, stored, upright)
    if size == upright and (turn == 1 or rule.orientation != "stored"):
        return mask
    if size == stored and rule.orientation != "upright":
        return turned(mask, turn)
    raise InputError(
        f"the mask is {size[0]} x {size[1]}, the image {upright[0]} x {upright[1]}, and mask: {{orientation: "
        f"{rule.orientation}}} is declared in the catalogue"
    )


def _check_size(size: tuple[int, ...], stored: tuple[int, int], upright: tuple[int, int]) -> None:
    if size not in (stored, upright):
        raise InputError(f"the mask is {size[0]} x {size[1]}, the image {upright[0]} x {upright[1]}")


def _store_image(item: Item, image: Image.Image, upright: Image.Image, target: Path, place: Place) -> str:
    suffix = _KEPT_AS_THEY_ARE.get(image.format or "") if is_plain(image) else None
    path = target / "images" / f"{item.name}{suffix or '.png'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix:
        place(item.image, path)
    else:  # PNG loses nothing more, and every reader sees the same in it
        upright.save(path)
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
        return image.format == "PNG" and image.mode == "L" and not image.has_transparency_data
