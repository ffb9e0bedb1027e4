"""Average precision of salient instances, by COCO's rules and by the published ones of ILSO.

A model that names instances has no natural score for them, and the choice of one moves AP70 by twenty points. So every
result names the source of its scores, and the AP with constant scores stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_r1.metrics.saliency import Array

Predictions = Mapping[str, Sequence[tuple[Array, float]]]
Truths = Mapping[str, Array]

SCORE_SOURCES = ("segmenter_iou", "mask_probability", "response_confidence", "constant", "unknown")
_THRESHOLDS = np.round(np.arange(0.5, 1, 0.05), 2)


def evaluate_instances(
    predictions: Predictions, truths: Truths, *, score_source: str = "unknown", missing: str = "error"
) -> dict[str, Any]:
    """Average precision of instance masks over a data set.

    `predictions`: for every image's name its masks (bool, H x W) with scores; more than 100 of an image keep the best 100.
    `truths`: for every name an instance-id map (integers, H x W, 0 = background).

    Returns `AP` (mean over IoU 0.5, 0.55 .. 0.95), `AP50`, `AP70`, `AP75` by COCO's rules in [0, 1]; the same with every
    score equal as `AP_constant` ..; `APr50` .. `APr90` by the published toolbox of ILSO, whose confidence is the IoU with
    the ground truth, so that false positives cost nothing and AP^r is recall; and `images`, `instances`, `detections`,
    `score_source`. AP is nan where the data set has no instance.

    Raises ValueError, listing names, for predictions that are surplus, missing (unless `missing="zero"`, which takes them
    for empty and counts them as `missing`) or of another size than the ground truth.
    """
    if score_source not in SCORE_SOURCES:
        raise ValueError(f"score_source is one of {', '.join(SCORE_SOURCES)}, got {score_source!r}")
    absent = _check(predictions, truths, missing)
    annotations, results, images = [], [], []
    for image, (name, ids) in enumerate(sorted(truths.items()), 1):
        images.append({"id": image, "height": ids.shape[0], "width": ids.shape[1], "file_name": name})
        annotations += [_row(image, ids == value) for value in np.unique(ids[ids > 0])]
        results += [_row(image, np.asarray(mask, bool)) | {"score": score} for mask, score in predictions.get(name, ())]
    for k, annotation in enumerate(annotations, 1):
        annotation["id"] = k
    dataset = {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "salient"}],
    }
    constant = [row | {"score": 1.0} for row in results]
    return {
        **_coco(dataset, results),
        **{f"{key}_constant": value for key, value in _coco(dataset, constant).items()},
        **_recall(annotations, results),
        "images": len(truths),
        "instances": len(annotations),
        "detections": len(results),
        "missing": absent,
        "score_source": score_source,
    }


def _check(predictions: Predictions, truths: Truths, missing: str) -> int:
    """The number of missing predictions that are taken for empty."""
    absent = sorted(set(truths) - set(predictions))
    problems = {"surplus": sorted(set(predictions) - set(truths))}
    if missing != "zero":
        problems["missing"] = absent
    problems["of another size than the ground truth"] = sorted(
        name
        for name, found in predictions.items()
        if name in truths and any(mask.shape != truths[name].shape for mask, _ in found)
    )
    lines = [f"{len(names)} {what}: {', '.join(names)}" for what, names in problems.items() if names]
    if lines:
        raise ValueError("predictions do not fit the ground truth\n" + "\n".join(lines))
    return len(absent)


def _row(image: int, mask: Array) -> dict[str, Any]:
    from faster_coco_eval import mask as rle

    encoded = rle.encode(np.asfortranarray(mask, np.uint8))
    area = float(np.count_nonzero(mask))
    return {
        "image_id": image,
        "category_id": 1,
        "segmentation": encoded,
        "area": area,
        "bbox": list(rle.toBbox(encoded)),
        "iscrowd": 0,
    }


def _coco(dataset: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    keys = ("AP", "AP50", "AP70", "AP75")
    if not dataset["annotations"]:
        return dict.fromkeys(keys, float("nan"))
    if not results:
        return dict.fromkeys(keys, 0.0)
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(dataset)
    evaluation = COCOeval_faster(truth, truth.loadRes([dict(row) for row in results]), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    # IoU threshold x recall x category x area range x detections an image; the first area range is "all".
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]
    by_threshold = dict(zip(_THRESHOLDS.tolist(), precision.mean(1).tolist()))
    return {"AP": float(precision.mean()), **{f"AP{round(100 * t)}": by_threshold[t] for t in (0.5, 0.7, 0.75)}}


def _recall(annotations: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, float]:
    """AP^r of the official ILSO toolbox: one-to-one greedy matching by falling IoU, which must exceed the threshold."""
    from faster_coco_eval import mask as rle

    best: list[float] = []
    for image in {row["image_id"] for row in annotations}:
        truth = [row["segmentation"] for row in annotations if row["image_id"] == image]
        found = [row["segmentation"] for row in results if row["image_id"] == image]
        ious = np.asarray(rle.iou(found, truth, [0] * len(truth))) if found else np.zeros((0, len(truth)))
        while ious.size and ious.max() > 0:
            detection, instance = np.unravel_index(ious.argmax(), ious.shape)
            best.append(float(ious[detection, instance]))
            ious[detection], ious[:, instance] = 0, 0
    count = len(annotations)
    return {
        f"APr{round(100 * t)}": sum(iou > t for iou in best) / count if count else float("nan")
        for t in (0.5, 0.6, 0.7, 0.8, 0.9)
    }
