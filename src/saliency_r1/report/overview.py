"""The picture for the README: a few scenes, what is true, and what every model sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from saliency_r1.report.examples import Example
from saliency_r1.report.pictures import paint
from saliency_r1.report.read import LABELS, SHORT

_WIDTH, _HEIGHT = 300, 240  # pixels that a cell has at most
_GAP = 10
_MARGIN = 74  # for the names of the tasks
_TITLE = 40
_SHOWN = 2  # images of a group
Masks = list[NDArray[np.bool_]]
_INK, _FAINT = (40, 46, 58), (215, 218, 224)


def write_overview(shown: Sequence[Example], path: Path) -> None:
    """Draw one row an example: image, ground truth, then each model. Two images of a group share a cell."""
    titles = ["image", "ground truth", *(LABELS.get(answer.model, answer.model) for answer in shown[0].answers)]
    rows = [(example.sample["task"], _row(example)) for example in shown]
    heights = [max(cell.height for cell in cells) for _, cells in rows]
    width = _MARGIN + len(titles) * (_WIDTH + _GAP)
    sheet = Image.new("RGB", (width, _TITLE + sum(heights) + _GAP * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(20)
    lefts = [_MARGIN + place * (_WIDTH + _GAP) for place in range(len(titles))]
    for left, title in zip(lefts, titles):
        draw.text((left + _WIDTH // 2, _TITLE // 2), title, _INK, font, anchor="mm")
    top = _TITLE
    for (task, cells), height in zip(rows, heights):
        draw.text((_MARGIN // 2, top + height // 2), SHORT[task], _INK, font, anchor="mm")
        for left, cell in zip(lefts, cells):
            sheet.paste(cell, (left + (_WIDTH - cell.width) // 2, top + (height - cell.height) // 2))
        top += height + _GAP
    sheet.save(path, optimize=True)


def _row(example: Example) -> list[Image.Image]:
    """The cells of an example."""
    images = []
    for file in example.images[:_SHOWN]:
        with Image.open(file) as image:
            images.append(image.convert("RGB"))
    shown: list[Sequence[Masks | None]] = [[None] * len(images), example.truth, *(a.masks for a in example.answers)]
    return [
        _cell([_fitted(image, masks, example.instances, len(images)) for image, masks in zip(images, layer)])
        for layer in shown
    ]


def _fitted(image: Image.Image, masks: Masks | None, instances: bool, count: int) -> Image.Image:
    """A picture at the size it has in its cell, drawn larger first so that outlines are smooth."""
    room = ((_WIDTH - (count - 1) * _GAP) // count, _HEIGHT)
    share = min(room[0] / image.width, room[1] / image.height)
    scale = max(1, round(2 * share))
    large = paint(image, masks, instances, scale, line=4)
    small = large.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS)
    if masks is not None and not any(mask.any() for mask in masks):
        place = (small.width // 2, small.height // 2)
        ImageDraw.Draw(small).text(place, "nothing", _FAINT, ImageFont.load_default(15), anchor="mm")
    return small


def _cell(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side, centred on one line."""
    height = max(picture.height for picture in pictures)
    width = sum(picture.width for picture in pictures) + _GAP * (len(pictures) - 1)
    cell = Image.new("RGB", (width, height), "white")
    left = 0
    for picture in pictures:
        cell.paste(picture, (left, (height - picture.height) // 2))
        left += picture.width + _GAP
    return cell
