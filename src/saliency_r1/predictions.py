"""Predictions of a split, on disk: saliency maps as PNG, instances as COCO results, one table row an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from saliency_r1.files import write_json
from saliency_r1.policy import Policy
from saliency_r1.tasks import Segmented
from saliency_r1.training.confidence import response_confidence
from saliency_r1.training.rollouts import Environment, Rollout, Row


class Answer(NamedTuple):
    """A greedy response with its masks, and how sure the policy was of it."""

    rollout: Rollout
    confidence: float


def predict_split(
    policy: Policy, environment: Environment, samples: Sequence[Row], batch_size: int
) -> Iterator[Answer]:
    """Greedy answers to all samples, in order, `batch_size` samples at a time."""
    for start in range(0, len(samples), batch_size):
        rows = samples[start : start + batch_size]
        prompts = environment.prompts(policy, rows)
        responses = environment.respond(policy, prompts, sample=False)
        confidences = response_confidence(policy, prompts, responses, batch_size)
        yield from map(Answer, environment.score(rows, responses), confidences)


def write_predictions(folder: Path, model: str, answers: Sequence[Answer], score: str) -> list[dict[str, Any]]:
    """Write maps and instances of one model under `folder`; returns the rows of the stage's table.

    A response that did not parse leaves an empty map, or no instance: it is scored, never skipped.
    """
    instances: dict[str, list[dict[str, Any]]] = defaultdict(list)
    rows = []
    for answer in answers:
        rollout, row = answer.rollout, answer.rollout.row
        for name, values in zip(row["names"], rollout.prediction.maps):
            path = folder / "maps" / model / row["dataset"] / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(values * 255).astype(np.uint8)).save(path)
        if row["task"] == "sis":
            instances[row["dataset"]] += [
                coco_result(row["names"][0], segment, _score(segment, answer, score))
                for segment in rollout.prediction.instances
            ]
        rows.append(
            {
                **rollout.record(),
                "model": model,
                "expressions": [expression.text for expression in rollout.parsed.expressions],
                "confidence": answer.confidence,
                "names": row["names"],
                "height": row["height"],
                "width": row["width"],
            }
        )
    for dataset, results in instances.items():
        path = folder / "instances" / model / f"{dataset}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, results)
    return rows


def coco_result(name: str, segment: Segmented, score: float) -> dict[str, Any]:
    """One row of a COCO results file; `image_id` is the image's name."""
    from pycocotools import mask as rle

    code = rle.encode(np.asfortranarray(segment.mask.astype(np.uint8)))
    counts = code["counts"].decode("ascii")
    return {
        "image_id": name,
        "category_id": 1,
        "segmentation": {"size": list(segment.mask.shape), "counts": counts},
        "score": score,
    }


def _score(segment: Segmented, answer: Answer, source: str) -> float:
    """The score of an instance, from the source that `masks.score` names, in [0, 1]."""
    match source:
        case "segmenter":
            return float(segment.score)
        case "mask_probability":
            return float(segment.probability[segment.mask].mean()) if segment.mask.any() else 0.0
        case "confidence":
            return answer.confidence
        case _:
            return 1.0
