"""Instance predictions and truths as people have them: COCO files or folders of instance-id maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saliency_r1.evaluation.folders import find_maps, match, read_ids
from saliency_r1.metrics.truth import Array, MeasureError

Found = dict[str, list[tuple[Array, float]]]


def read_truths(path: Path) -> dict[str, Array]:
    """Instance-id maps by name: from a folder of maps (see `read_ids`), or from a COCO file with polygons or RLE.

    Raises MeasureError for what is neither.
    """
    if path.is_dir() and not list(path.glob("*.json")):
        return {name: read_ids(file) for name, file in find_maps(path).items()}
    content = _json(path)
    if not isinstance(content, dict) or not {"images", "annotations"} <= set(content):
        raise MeasureError(f"{path} is no COCO ground truth: it needs images and annotations")
    images = {image["id"]: image for image in content["images"]}
    truths = {
        Path(image["file_name"]).with_suffix("").as_posix(): np.zeros((image["height"], image["width"]), np.int32)
        for image in images.values()
    }
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        ids = truths[Path(image["file_name"]).with_suffix("").as_posix()]
        ids[_mask(annotation["segmentation"], *ids.shape)] = ids.max() + 1
    return truths


def read_predictions(path: Path, truths: dict[str, Array], names: dict[Any, str] | None = None) -> Found:
    """Scored masks by name: COCO result rows (`image_id` is the name, or the id of `names`), or a folder of id maps.

    Id maps have no scores, so theirs are all 1. A COCO file has no row for an image without detections; such an image
    has an empty list here, so only a folder can show that a prediction is missing. Raises MeasureError.
    """
    if path.is_dir() and not list(path.glob("*.json")):
        matched, problems = match(files := find_maps(path), dict.fromkeys(truths, path))
        found: Found = {name: _split(read_ids(file)) for name, file in matched.items()}
        return found | {name: _split(read_ids(files[name])) for name in problems.surplus}
    found = {name: [] for name in truths}
    for row in _json(path):
        name = (names or {}).get(row["image_id"], str(row["image_id"]))
        mask = _mask(row["segmentation"], *truths[name].shape) if name in truths else np.zeros((1, 1), bool)
        found.setdefault(name, []).append((mask, float(row["score"])))
    return found


def image_names(path: Path) -> dict[Any, str]:
    """Names by image id of a COCO ground truth; empty for a folder of maps."""
    if path.is_dir() and not list(path.glob("*.json")):
        return {}
    return {image["id"]: Path(image["file_name"]).with_suffix("").as_posix() for image in _json(path)["images"]}


def _split(ids: NDArray[np.int32]) -> list[tuple[Array, float]]:
    return [(ids == value, 1.0) for value in np.unique(ids[ids > 0])]


def _mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    from faster_coco_eval import mask as rle

    if isinstance(segmentation, list) or isinstance(segmentation.get("counts"), list):
        parts = rle.frPyObjects(segmentation, height, width)
        segmentation = rle.merge(parts) if isinstance(parts, list) else parts
    return np.asarray(rle.decode(segmentation), bool)


def _json(path: Path) -> Any:
    """The content of a JSON file, or of the only one of a folder."""
    if path.is_dir():
        inside = sorted(path.glob("*.json"))
        if len(inside) != 1:
            raise MeasureError(f"{path} holds {len(inside)} JSON files, expected one")
        path = inside[0]
    try:
        return json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MeasureError(f"{path} is not JSON: {error}") from None
