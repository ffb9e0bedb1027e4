"""Average precision of salient instances, by COCO's rules and by the published ones of ILSO.

A model that names instances has no natural score for them, and the choice of one moves AP70 by twenty points. So every
result names the source of its scores, and the AP with constant scores stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saliency_r1.metrics.resampling import draw
from saliency_r1.metrics.truth import EPS, Array, Floats, MeasureError
from saliency_r1.names import SCORE_SOURCES

Code = Mapping[str, Any]  # a compressed run-length code of pycocotools, {"size": [H, W], "counts": bytes}


@dataclass(frozen=True)
class Regions:
    """The instances of an image each by itself, so that they may overlap, and its crowds.

    A crowd is not asked for: what lies on it (the share of the detection's own pixels counts) and was matched with
    nothing else is neither right nor wrong.
    """

    shape: tuple[int, int]
    instances: tuple[Code, ...]
    crowds: tuple[Code, ...] = ()


Predictions = Mapping[str, Sequence[tuple[Array | Code, float]]]
Truths = Mapping[str, Array | Regions]

KEYS = ("AP", "AP50", "AP70", "AP75")
_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_MOST = 100  # detections an image that count


def evaluate_instances(
    predictions: Predictions, truths: Truths, *, score_source: str = "unknown", missing: str = "error"
) -> dict[str, Any]:
    """Average precision of instance masks over a data set.

    `predictions`: for every image's name its masks (bool, H x W, or run-length codes) with scores; more than 100 of an
    image keep the best 100. `truths`: for every name an instance-id map (integers, H x W, 0 = background) or `Regions`.
    Of equal scores the first counts more, in the order of `truths` and of the list.

    Returns `AP` (mean over IoU 0.5, 0.55 .. 0.95), `AP50`, `AP70`, `AP75` by COCO's rules in [0, 1]; the same with
    every score equal as `AP_constant` ..; `APr50` .. `APr90` by the published toolbox of ILSO, whose confidence is
    the IoU with the ground truth, so that false positives cost nothing and AP^r is recall; and `images`, `instances`,
    `detections`, `score_source`. AP is nan where the data set has no instance.

    Raises MeasureError, listing names, for predictions that are surplus, missing (unless `missing="zero"`, which takes
    them for empty and counts them as `missing`) or of another size than the ground truth.
    """
    if score_source not in (known := (*SCORE_SOURCES, "unknown")):
        raise MeasureError(f"score_source is one of {', '.join(known)}, got {score_source!r}")
    absent = _check(predictions, truths, missing)
    images, annotations, results, recalls = [], [], [], []
    for image, (name, truth) in enumerate(truths.items(), 1):
        regions = as_regions(truth)
        found = [(_code(mask), score) for mask, score in predictions.get(name, ())]
        recalls += _one_to_one([code for code, _ in found], regions.instances)
        images.append({"id": image, "height": regions.shape[0], "width": regions.shape[1], "file_name": name})
        annotations += [_row(image, code, crowd=0) for code in regions.instances]
        annotations += [_row(image, code, crowd=1) for code in regions.crowds]
        results += [_row(image, code) | {"score": score} for code, score in found]
    for k, annotation in enumerate(annotations, 1):
        annotation["id"] = k
    dataset = {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "salient"}],
    }
    instances = sum(not row["iscrowd"] for row in annotations)
    constant = [row | {"score": 1.0} for row in results]
    return {
        **_coco(dataset, results),
        **{f"{key}_constant": value for key, value in _coco(dataset, constant).items()},
        **{f"APr{round(100 * t)}": _share(recalls, t, instances) for t in (0.5, 0.6, 0.7, 0.8, 0.9)},
        "images": len(truths),
        "instances": instances,
        "detections": len(results),
        "missing": absent,
        "score_source": score_source,
    }


def as_regions(truth: Array | Regions) -> Regions:
    """The instances of an id map, in the order of the ids."""
    if isinstance(truth, Regions):
        return truth
    height, width = truth.shape
    return Regions((height, width), tuple(_code(truth == value) for value in np.unique(truth[truth > 0])))


def _check(predictions: Predictions, truths: Truths, missing: str) -> int:
    """The number of missing predictions that are taken for empty."""
    absent = sorted(set(truths) - set(predictions))
    problems = {"surplus": sorted(set(predictions) - set(truths))}
    if missing != "zero":
        problems["missing"] = absent
    problems["of another size than the ground truth"] = sorted(
        name
        for name, found in predictions.items()
        if name in truths and any(_shape(mask) != truths[name].shape for mask, _ in found)
    )
    lines = [f"{len(names)} {what}: {', '.join(names)}" for what, names in problems.items() if names]
    if lines:
        raise MeasureError("predictions do not fit the ground truth\n" + "\n".join(lines))
    return len(absent)


def _shape(mask: Array | Code) -> tuple[int, ...]:
    return tuple(mask["size"]) if isinstance(mask, Mapping) else mask.shape


def _code(mask: Array | Code) -> Code:
    if isinstance(mask, Mapping):
        return mask
    from faster_coco_eval import mask as rle

    code: Code = rle.encode(np.asfortranarray(np.asarray(mask, bool), np.uint8))
    return code


def _row(image: int, code: Code, crowd: int = 0) -> dict[str, Any]:
    from faster_coco_eval import mask as rle

    return {
        "image_id": image,
        "category_id": 1,
        "segmentation": code,
        "area": float(rle.area(code)),
        "bbox": list(rle.toBbox(code)),
        "iscrowd": crowd,
    }


def _coco(dataset: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    if all(row["iscrowd"] for row in dataset["annotations"]):
        return dict.fromkeys(KEYS, float("nan"))
    if not results:
        return dict.fromkeys(KEYS, 0.0)
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(dataset)
    evaluation = COCOeval_faster(truth, truth.loadRes([dict(row) for row in results]), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    # IoU threshold x recall x category x area range x detections an image; the first area range is "all".
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]
    by_threshold = dict(zip(_THRESHOLDS.round(2).tolist(), precision.mean(1).tolist()))
    return {"AP": float(precision.mean()), **{f"AP{round(100 * t)}": by_threshold[t] for t in (0.5, 0.7, 0.75)}}


def _one_to_one(found: Sequence[Code], instances: Sequence[Code]) -> list[float]:
    """IoUs above 0 of the matching of the official ILSO toolbox: one-to-one, greedily by falling IoU."""
    from faster_coco_eval import mask as rle

    best: list[float] = []
    if found and instances:
        ious = np.asarray(rle.iou(list(found), list(instances), [0] * len(instances)))
        while ious.max() > 0:
            detection, instance = np.unravel_index(ious.argmax(), ious.shape)
            best.append(float(ious[detection, instance]))
            ious[detection], ious[:, instance] = 0, 0
    return best


def _share(ious: Sequence[float], threshold: float, instances: int) -> float:
    """AP^r of the official ILSO toolbox: the share of the instances that are found with more than this IoU."""
    return sum(iou > threshold for iou in ious) / instances if instances else float("nan")


def replicate_instances(
    predictions: Predictions, truths: Truths, replicates: int = 1000, seed: int = 0
) -> dict[str, Floats]:
    """AP, AP50, AP70 and AP75 of bootstrap replicates over images, for `intervals` and `differences`.

    Matching is COCO's; what is drawn is how often an image counts. Every array has one value a replicate that has
    an instance; there is none where no image has one, or no replicate.
    """
    regions = [as_regions(truth) for truth in truths.values()]
    instances = np.array([len(one.instances) for one in regions])
    if not instances.any():
        return {}
    matched = [_matches(predictions.get(name, ()), one) for name, one in zip(truths, regions)]
    draws = np.array([draw(seed, f"image {name}", replicates) for name in truths], dtype=float)
    image = np.repeat(np.arange(len(matched)), [len(one.scores) for one in matched])
    order = np.argsort(-np.concatenate([one.scores for one in matched]), kind="stable")
    hits, misses = (np.concatenate([getattr(one, kind) for one in matched])[order] for kind in ("hits", "misses"))
    precision = np.array(
        [
            _precision(hits, misses, weight[image[order]], float(weight @ instances))
            for weight in draws.T
            if weight @ instances
        ]
    )
    if not len(precision):
        return {}
    at = {f"AP{round(100 * t)}": precision[:, k] for k, t in enumerate(_THRESHOLDS)}
    return {"AP": precision.mean(1), **{key: at[key] for key in KEYS[1:]}}


class _Matched(NamedTuple):
    """Detections by falling score; for each and each threshold whether it is right, wrong, or neither (on a crowd)."""

    scores: Floats
    hits: NDArray[np.bool_]
    misses: NDArray[np.bool_]


def _matches(found: Sequence[tuple[Array | Code, float]], truth: Regions) -> _Matched:
    """The matching of COCO: by falling score each detection takes the free instance that it overlaps most."""
    from faster_coco_eval import mask as rle

    scores = np.array([score for _, score in found], dtype=float)
    order = np.argsort(-scores, kind="stable")[:_MOST]
    hits = np.zeros((len(order), len(_THRESHOLDS)), bool)
    ignored = np.zeros_like(hits)
    targets = [*truth.instances, *truth.crowds]
    if len(order) and targets:
        crowd = [0] * len(truth.instances) + [1] * len(truth.crowds)
        ious = np.asarray(rle.iou([_code(found[k][0]) for k in order], targets, crowd))
        ignored = ious[:, len(truth.instances) :].max(1, initial=0)[:, None] >= _THRESHOLDS
        for k, threshold in enumerate(_THRESHOLDS if truth.instances else ()):
            free = np.ones(len(truth.instances), bool)
            for detection, row in enumerate(ious[:, : len(free)]):
                overlap = np.where(free, row, -1)
                # Of equal overlaps COCO takes the last.
                best = len(row) - 1 - int(overlap[::-1].argmax())
                if overlap[best] >= threshold:
                    free[best], hits[detection, k] = False, True
    return _Matched(scores[order], hits, ~hits & ~ignored)


def _precision(hits: NDArray[np.bool_], misses: NDArray[np.bool_], weights: Floats, instances: float) -> Floats:
    """COCO's interpolated average precision for each threshold, every detection counted `weights` times."""
    true = np.cumsum(hits * weights[:, None], axis=0)
    false = np.cumsum(misses * weights[:, None], axis=0)
    precision = np.maximum.accumulate((true / np.maximum(true + false, EPS))[::-1], axis=0)[::-1]
    precision = np.vstack([precision, np.zeros((1, hits.shape[1]))])
    return np.array(
        [column[np.searchsorted(recall, _RECALLS)].mean() for column, recall in zip(precision.T, (true / instances).T)]
    )
