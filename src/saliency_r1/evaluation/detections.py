"""Instance predictions and truths as people have them: COCO files or folders of instance-id maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from saliency_r1.evaluation.folders import Missing, Unreadable, find_maps, find_truths, match, read_ids, readable
from saliency_r1.inputs import coco
from saliency_r1.inputs.coco import Found, ImageNames
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import hidden
from saliency_r1.inputs.masks import read_id_map
from saliency_r1.inputs.regions import listed
from saliency_r1.metrics.instances import Code, Regions, as_regions
from saliency_r1.metrics.truth import Array, MeasureError


def read_truths(path: Path, void: int | None = None) -> tuple[dict[str, Regions], ImageNames]:
    """Instances by name, and how predictions may name their images.

    From a folder of instance-id maps (see `read_ids`) in the order of names, or from a COCO file in that of the images'
    ids. Pixels of the value `void` are a crowd. Raises MeasureError for what is neither, or for entries that cannot be
    used.
    """
    if holds_maps(path):
        maps = {name: _regions(file, void) for name, file in sorted(find_truths(path).items())}
        return maps, ImageNames.of(maps)
    if void is not None:
        raise MeasureError(f"{path}: void is a value of id maps; in a COCO file mark such a region with iscrowd 1")
    try:
        truth = coco.read_truth(_json(path))
        problems = [f"{name}: {reason}" for name, reason in truth.problems]
        truths = {}
        for image in truth.images:
            try:
                codes = [(annotation.crowd, image.code(annotation)) for annotation in image.annotations]
            except InputError as error:
                problems.append(str(error))
                continue
            instances, crowds = (tuple(code for crowd, code in codes if crowd == kind) for kind in (False, True))
            truths[image.name] = Regions(image.size, instances, crowds)
    except InputError as error:
        raise MeasureError(str(error)) from None
    if problems:
        raise MeasureError(f"{path}: {len(problems)} images cannot be used as ground truth\n{listed(problems)}")
    return truths, truth.names


def read_predictions(
    path: Path,
    truths: Mapping[str, Array | Regions],
    names: ImageNames | None = None,
    *,
    missing: Missing = "error",
    prefix: str = "",
    suffix: str = "",
) -> Found:
    """Scored run-length codes by name, from COCO result rows (see `ImageNames`) or from a folder of id maps.

    Id maps have no scores, so theirs are all 1. A COCO file has no row for an image without detections; such an image
    has an empty list here, so only a folder can show that a prediction is missing. Of a folder `missing="zero"` leaves
    out what is surplus, unreadable or of another size; `prefix` and `suffix` are taken off its names. Raises
    MeasureError.
    """
    names = names or ImageNames.of(truths)
    if holds_maps(path):
        files: dict[str, Path] = {}
        for written, file in find_maps(path, prefix, suffix).items():
            if (name := names.named(written) or written) in files:
                raise MeasureError(f"two maps of the image {name}: {files[name]} and {file}")
            files[name] = file
        matched, problems = match(files, dict.fromkeys(truths, path))
        if missing == "zero":
            fitting = ((name, _fitting(file, truths[name].shape)) for name, file in matched.items())
            return {name: codes for name, codes in fitting if codes is not None}
        found: Found = {name: _split(file) for name, file in matched.items()}
        return found | {name: _split(files[name]) for name in problems.surplus}
    try:
        return coco.read_results(_json(path), {name: truth.shape for name, truth in truths.items()}, names)
    except InputError as error:
        raise MeasureError(str(error)) from None


def _regions(file: Path, void: int | None) -> Regions:
    ids = readable(read_id_map, file, void)
    regions = as_regions(ids.ids)
    if ids.void is None or not ids.void.any():
        return regions
    return replace(regions, crowds=as_regions(ids.void).instances)


def _split(file: Path) -> list[tuple[Code, float]]:
    return [(code, 1.0) for code in as_regions(read_ids(file)).instances]


def _fitting(file: Path, shape: tuple[int, ...]) -> list[tuple[Code, float]] | None:
    """The instances of a map; None where it cannot be read, or has another size."""
    try:
        ids = read_ids(file)
    except Unreadable:
        return None
    return [(code, 1.0) for code in as_regions(ids).instances] if ids.shape == shape else None


def holds_maps(path: Path) -> bool:
    """Whether this is a folder of id maps, and not one with a COCO file in it."""
    return path.is_dir() and not _files(path)


def _json(path: Path) -> Path:
    """A JSON file, or the only one of a folder."""
    if not path.is_dir():
        return path
    inside = _files(path)
    if len(inside) != 1:
        raise MeasureError(f"{path} holds {len(inside)} JSON files, expected one")
    return inside[0]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if not hidden(path.name))
