"""What was scored, image by image, as masks and pictures: for the gallery of a page and for other people's viewers."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saliency_r1.evaluation.detections import holds_maps, read_predictions, read_truths
from saliency_r1.evaluation.folders import (
    Unreadable,
    find_files,
    find_maps,
    find_truths,
    fitted,
    match,
    read_map,
    read_truth_and_void,
)
from saliency_r1.evaluation.results import FolderResult, Settings
from saliency_r1.inputs import regions
from saliency_r1.inputs.codes import coded
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.pictures import read_picture
from saliency_r1.metrics.instances import Regions
from saliency_r1.metrics.saliency import Pair
from saliency_r1.metrics.truth import Truth
from saliency_r1.runtime.files import write_json
from saliency_r1.runtime.messages import printable

_SIDE = 260  # pixels of a thumbnail's longer side
_COLOURS = np.array(
    [[0, 0, 0], [255, 255, 255], [53, 224, 255], [255, 111, 191], [195, 255, 92], [255, 165, 59], [196, 161, 255]],
    np.uint8,
)
Mask = NDArray[np.bool_]


class Scored(NamedTuple):
    """A prediction of one image: its masks, each with a score in [0, 1], and how it looks, uint8 H x W or H x W x 3."""

    masks: list[tuple[Mask, float]]
    look: NDArray[np.uint8]


@dataclass(frozen=True)
class Material:
    """The ground truth and the predictions of each result, read again when they are asked for."""

    names: list[str]
    truth: Callable[[str], Scored]
    predicted: Sequence[Callable[[str], Scored | None]]
    images: Mapping[str, Path]

    def picture(self, name: str) -> Image.Image | None:
        """The picture itself, where a folder of pictures was given and has it; that it cannot be read is told."""
        if name not in self.images:
            return None
        try:
            return read_picture(self.images[name])
        except (InputError, OSError) as error:
            print(printable(f"not shown: {error}"), file=sys.stderr, flush=True)
            return None


def material(
    preds: Sequence[Path], gt: Path, settings: Settings, pictures: Mapping[str, Path] | None = None
) -> Material:
    """Read what is in the folders and files that were scored; `pictures` are those themselves (`find_pictures`)."""
    kinds = _instances(preds, gt, settings) if settings.task == "sis" else _maps(preds, gt, settings)
    names, truth, predicted = kinds
    found = match(pictures or {}, dict.fromkeys(names, gt))[0]
    return Material(names, truth, predicted, found)


def find_pictures(images: Path, gt: Path) -> dict[str, Path]:
    """The pictures in a folder by name, ground truths that lie beside them left out. Raises MeasureError."""
    return find_files(images, besides=find_truths(gt).values() if holds_maps(gt) else ())


def _maps(preds: Sequence[Path], gt: Path, settings: Settings) -> tuple[list[str], Any, list[Any]]:
    truths = find_truths(gt)
    matched = [match(find_maps(pred, settings.prefix, settings.suffix), truths)[0] for pred in preds]

    def read(name: str) -> tuple[Truth, Mask | None]:
        return read_truth_and_void(truths[name], settings.protocol, settings.may_be_empty)

    def truth(name: str) -> Scored:
        mask = read(name)[0].mask
        return Scored([(mask, 1.0)], mask.astype(np.uint8) * 255)

    def predicted(files: Mapping[str, Path], name: str) -> Scored | None:
        if name not in files:
            return None
        stretch = settings.protocol.stretch
        try:
            levels = read_map(files[name], stretch)
        except Unreadable:  # the scores have taken it for missing, or there would be none
            return None
        known, void = read(name)
        scored = fitted(levels, known, void, stretch, settings.resize)
        if scored is None:  # likewise
            return None
        pair = Pair(scored, known, settings.protocol)
        values, mask = pair.values[scored], pair.mask
        score = float(values[mask].mean()) if mask.any() else 0.0
        return Scored([(mask, score)], np.round(values * 255).astype(np.uint8))

    return list(truths), truth, [lambda name, files=files: predicted(files, name) for files in matched]


def _instances(preds: Sequence[Path], gt: Path, settings: Settings) -> tuple[list[str], Any, list[Any]]:
    truths, names = read_truths(gt, settings.protocol.void)
    found = [
        read_predictions(pred, truths, names, missing=settings.missing, prefix=settings.prefix, suffix=settings.suffix)
        for pred in preds
    ]

    def coloured(codes: Sequence[tuple[Any, float]], shape: tuple[int, int]) -> Scored:
        look = np.zeros((*shape, 3), np.uint8)
        masks = [(regions.decode(code), score) for code, score in codes]
        for place, (mask, _) in sorted(enumerate(masks), key=lambda item: item[1][1]):
            look[mask] = _COLOURS[1 + place % (len(_COLOURS) - 1)]
        return Scored(masks, look)

    def truth(name: str) -> Scored:
        one: Regions = truths[name]
        return coloured([(code, 1.0) for code in one.instances], one.shape)

    return list(truths), truth, [
        lambda name, own=own: coloured(own.get(name, []), truths[name].shape) for own in found
    ]  # fmt: skip


class Cell(NamedTuple):
    """A thumbnail as a data URI, what it shows, and its score."""

    title: str
    uri: str
    score: float | None = None


class Row(NamedTuple):
    """An image of the gallery; `change` is the second result's score minus the first's."""

    name: str
    cells: list[Cell]
    change: float | None


class Gallery(NamedTuple):
    """The images that scored worst in the first result, and those that two results differ in most."""

    measure: str
    worst: list[Row]
    better: list[Row]
    worse: list[Row]


def gallery(results: Sequence[FolderResult], shown: Material, count: int) -> Gallery:
    """The `count` worst images, and of two results as many that got better and that got worse."""
    instances = results[0].task == "sis"
    scores = [_agreement(shown, index) if instances else _column(result) for index, result in enumerate(results)]
    first = scores[0]
    names = sorted(first, key=lambda name: (first[name], name))
    change = {name: scores[1][name] - first[name] for name in names} if len(scores) > 1 else {}
    by_change = sorted(change, key=lambda name: (change[name], name))

    def rows(chosen: Sequence[str]) -> list[Row]:
        return [_row(name, results, scores, shown, change.get(name)) for name in chosen]

    return Gallery(
        "mean IoU of matched instances" if instances else "S-measure",
        rows(names[:count]),
        rows([name for name in reversed(by_change) if change[name] > 0][:count]),
        rows([name for name in by_change if change[name] < 0][:count]),
    )


def _column(result: FolderResult) -> dict[str, float]:
    return {row["name"]: float(row["Sm"]) for row in result.rows}


def _agreement(shown: Material, index: int) -> dict[str, float]:
    """Of each image twice the summed IoU of instances matched one to one, best pairs first, over the two counts."""
    found = {}
    for name in shown.names:
        truth, predicted = shown.truth(name), shown.predicted[index](name)
        found[name] = _matched([m for m, _ in truth.masks], [m for m, _ in predicted.masks] if predicted else [])
    return found


def _matched(truths: Sequence[Mask], predictions: Sequence[Mask]) -> float:
    if not truths and not predictions:
        return 1.0
    pairs = sorted(
        ((_iou(a, b), i, j) for i, a in enumerate(truths) for j, b in enumerate(predictions)), key=lambda pair: -pair[0]
    )
    used: tuple[set[int], set[int]] = (set(), set())
    total = 0.0
    for iou, i, j in pairs:
        if i not in used[0] and j not in used[1]:
            total += iou
            used[0].add(i)
            used[1].add(j)
    return 2 * total / (len(truths) + len(predictions))


def _iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def _row(
    name: str, results: Sequence[FolderResult], scores: Sequence[Mapping[str, float]], shown: Material,
    change: float | None,
) -> Row:  # fmt: skip
    picture = shown.picture(name)
    cells = [Cell("picture", thumbnail(picture))] if picture else []
    truth = shown.truth(name)
    cells.append(Cell("ground truth", thumbnail(Image.fromarray(truth.look))))
    for result, own, predicted in zip(results, scores, shown.predicted, strict=True):
        look = Image.fromarray(one.look if (one := predicted(name)) else np.zeros_like(truth.look))
        cells.append(Cell(result.name, thumbnail(look), own[name]))
    return Row(name, cells, change)


def thumbnail(image: Image.Image) -> str:
    """A picture as a small data URI: JPEG in colours, PNG in grey levels."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    kind = "png" if small.mode == "L" else "jpeg"
    small.save(buffer, kind.upper())
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def write_coco(results: Sequence[FolderResult], shown: Material, path: Path) -> None:
    """Write masks and measures as one COCO data set, which FiftyOne and other viewers open.

    Category 1 is the ground truth, the following ones the results in order; an image carries its measures in each, an
    annotation the score of its prediction. A map counts above one half, stretched and without void as it was scored.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    rows = [{row["name"]: row for row in result.rows} for result in results]
    for number, name in enumerate(shown.names, 1):
        truth = shown.truth(name)
        height, width = truth.look.shape[:2]
        file = shown.images[name].name if name in shown.images else f"{name.rpartition('/')[2]}.jpg"
        measures = {result.name: _plain(own.get(name, {})) for result, own in zip(results, rows)}
        folder = f"{name.rpartition('/')[0]}/" if "/" in name else ""
        images.append(
            {"id": number, "file_name": folder + file, "height": height, "width": width, "measures": measures}
        )
        layers = [truth, *(predicted(name) for predicted in shown.predicted)]
        for category, layer in enumerate(layers, 1):
            for mask, score in layer.masks if layer else []:
                if mask.any():
                    about = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
                    annotations.append({**about, **coded(mask), "score": round(score, 6)})
    categories = [{"id": 1, "name": "ground truth"}]
    categories += [{"id": place, "name": result.name} for place, result in enumerate(results, 2)]
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if isinstance(value, int | float) and value == value}
