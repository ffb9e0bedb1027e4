"""Pictures that somebody dropped on the page: how many, how large, and how they are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from saliency_r1.inputs.pictures import FORMATS
from saliency_r1.prediction.predictor import PredictError, read_image, task_named

MOST_BYTES = 20_000_000  # of one file
MOST_PIXELS = 40_000_000  # of one picture, decoded


class Upload(NamedTuple):
    """A picture under the name of its file, without extension."""

    name: str
    picture: Image.Image


def read_uploads(files: Sequence[str | Path], task: str, most: int) -> list[Upload]:
    """The pictures of one prompt: one for `sod` and `sis`, 1 to `most` for `cosod`.

    Raises `PredictError` for an unknown task, too few or too many files, one that is too large or no picture. A file
    is measured before it is decoded. The names are made different, for each becomes a file of its own.
    """
    task_named(task)
    limit = most if task == "cosod" else 1
    if not files:
        raise PredictError("there is no picture yet: drop one")
    if len(files) > limit:
        raise PredictError(
            f"{task} takes one picture at a time, here are {len(files)}: take the others away, or ask for cosod"
            if task != "cosod"
            else f"a group has at most {limit} pictures here (download.cosod_chunk), these are {len(files)}"
        )
    uploads: list[Upload] = []
    for path in map(Path, files):
        name, taken = path.stem, {upload.name for upload in uploads}
        unique = next(one for one in (name, *(f"{name}-{n}" for n in range(2, limit + 2))) if one not in taken)
        uploads.append(Upload(unique, _read(path)))
    return uploads


def _read(path: Path) -> Image.Image:
    if path.is_file() and (size := path.stat().st_size) > MOST_BYTES:
        raise PredictError(f"{path.name} has {size / 1e6:.0f} MB, at most {MOST_BYTES / 1e6:.0f} are taken here")
    if (pixels := _pixels(path)) > MOST_PIXELS:
        raise PredictError(
            f"{path.name} has {pixels / 1e6:.0f} million pixels, at most {MOST_PIXELS / 1e6:.0f} are taken here"
        )
    try:
        return read_image(path)
    except PredictError as error:
        # The page shows the name that was dropped, not where the server keeps the file.
        raise PredictError(str(error).replace(str(path), path.name)) from error


def _pixels(path: Path) -> int:
    """The number of pixels that a file announces; 0 where it is no picture, which the reader will say."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # Pillow raises whatever it stumbles over
        return 0
