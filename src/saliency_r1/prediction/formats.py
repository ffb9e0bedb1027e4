"""The files that an answer is written to: one folder a format, one file a picture, the picture's name.

    map      maps/        the saliency map, 8 bits; for SIS the map of instance ids
    mask     masks/       0 or 255: what stands out, instances united
    rgba     rgba/        the picture, as transparent as the map is dark
    cutout   cutouts/     the same, cut to the box of what stands out
    overlay  overlays/    the picture, dark outside of what stands out, outlined
    labelme  labelme/     one JSON file a picture for labelme, shapes of the kind `mask`
    coco     coco.json    all pictures as one COCO data set with run lengths and scores
    jsonl    answers.jsonl  one line a picture: what was said and where it is

The last two, and `response.json`, are written at the end (`prediction.record`).
"""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import json
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saliency_r1.prediction.maps import write_map
from saliency_r1.prediction.predictor import Answer, PredictError
from saliency_r1.prediction.work import Picture
from saliency_r1.runtime.files import replacing


class Format(NamedTuple):
    """Where the files of a format lie, their suffix, and what writes one: (answer, index, image, source, file)."""

    folder: str
    suffix: str
    write: Callable[[Answer, int, Image.Image, Path, Path], None]

    def path(self, name: str) -> str:
        """The file of a picture, within the folder of results."""
        return f"{self.folder}/{name}{self.suffix}"

    def place(self, out: Path, name: str) -> Path:
        """The file of a picture."""
        return out / self.path(name)


COCO, LINES = "coco.json", "answers.jsonl"
WHOLE = {"coco": COCO, "jsonl": LINES}  # the formats of one file for all pictures


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats of a list with commas, in order. Raises `PredictError` that names the known ones."""
    asked = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    known = [*FORMATS, *WHOLE]
    if unknown := [one for one in asked if one not in known]:
        raise PredictError(f"unknown format {unknown[0]!r}, expected some of {', '.join(known)} with commas between")
    if not asked:
        raise PredictError(f"no format is named, expected some of {', '.join(known)} with commas between")
    return asked


def write_files(answer: Answer, images: Sequence[Image.Image], prompt: Sequence[Picture], asked: Sequence[str],
                out: Path) -> None:  # fmt: skip
    """Write every file of an answer, each whole or not at all.

    Raises `PredictError` before any is written where there is no place for one of them.
    """
    formats = [FORMATS[name] for name in asked if name not in WHOLE]
    for one in formats:
        for picture in prompt:
            _make_room(one.place(out, picture.name), picture)
    for one in formats:
        for index, (image, picture) in enumerate(zip(images, prompt, strict=True)):
            with replacing(one.place(out, picture.name)) as aside:
                one.write(answer, index, image, picture.path, aside)


def _make_room(file: Path, picture: Picture) -> None:
    """Make the folder of a result. `PredictError` where there is no place for it: its name is too long for the file
    system, a file is where its folder has to be, or a folder in its own place.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(file.lstat().st_mode):
                raise PredictError(f"{picture.path}: {file} is a folder, where its result is to be written; move it")
    except (FileExistsError, NotADirectoryError):
        raise PredictError(
            f"{picture.path}: {file.parent} is no folder, which its result needs; move it away"
        ) from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise PredictError(
            f"{picture.path}: the name is too long for a file in {file.parent} that ends in {file.suffix}; shorten it"
        ) from None


def alpha(answer: Answer, index: int) -> NDArray[np.uint8]:
    """How opaque each pixel of what stands out is, uint8 H x W: the map, or the union of the instances."""
    from saliency_r1.metrics.saliency import to_levels

    return to_levels(answer.maps[index]) if answer.maps else union(answer, index).astype(np.uint8) * 255


def union(answer: Answer, index: int) -> NDArray[np.bool_]:
    """What stands out, bool H x W: the map above one half, or all instances."""
    masks = answer.masks[index]
    return np.any(masks, axis=0) if masks else np.zeros(answer.sizes[index], bool)


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of a mask, the last two exclusive; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _map(answer: Answer, index: int, image: Image.Image, source: Path, file: Path) -> None:
    if answer.maps:
        write_map(answer.maps[index], file)
    else:
        Image.fromarray(answer.ids).save(file)


def _mask(answer: Answer, index: int, image: Image.Image, source: Path, file: Path) -> None:
    Image.fromarray(union(answer, index).astype(np.uint8) * 255).save(file)


def _rgba(answer: Answer, index: int, image: Image.Image, source: Path, file: Path) -> None:
    _transparent(answer, index, image).save(file)


def _cutout(answer: Answer, index: int, image: Image.Image, source: Path, file: Path) -> None:
    """Where nothing stands out, the whole picture, invisible."""
    _transparent(answer, index, image).crop(box_of(union(answer, index))).save(file)


def _transparent(answer: Answer, index: int, image: Image.Image) -> Image.Image:
    cut = image.convert("RGB")
    cut.putalpha(Image.fromarray(alpha(answer, index)))
    return cut


def _overlay(answer: Answer, index: int, image: Image.Image, source: Path, file: Path) -> None:
    from saliency_r1.report.pictures import paint

    paint(image, answer.masks[index], not answer.maps, max(1, 512 // max(image.size))).save(file)


def _labelme(answer: Answer, index: int, image: Image.Image, source: Path, file: Path) -> None:
    shapes: list[dict[str, Any]] = []
    for region in answer.regions[index]:
        box = box_of(region.mask)
        if box is None:
            continue
        left, top, right, bottom = box
        buffer = io.BytesIO()
        Image.fromarray(region.mask[top:bottom, left:right]).save(buffer, "PNG")
        shapes.append(
            {
                "label": "salient",
                "description": region.text,
                "points": [[left, top], [right - 1, bottom - 1]],  # both inside, as labelme counts
                "group_id": None,
                "shape_type": "mask",
                "flags": {},
                "mask": base64.b64encode(buffer.getvalue()).decode("ascii"),
            }
        )
    content: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": Path(os.path.relpath(source.resolve(), file.parent.resolve())).as_posix(),
        "imageData": None,
        "imageHeight": image.height,
        "imageWidth": image.width,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8", errors="backslashreplace")


FORMATS = {
    "map": Format("maps", ".png", _map),
    "mask": Format("masks", ".png", _mask),
    "rgba": Format("rgba", ".png", _rgba),
    "cutout": Format("cutouts", ".png", _cutout),
    "overlay": Format("overlays", ".png", _overlay),
    "labelme": Format("labelme", ".json", _labelme),
}
