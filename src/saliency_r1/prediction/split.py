"""Predictions of a split, on disk: saliency maps as PNG, instances as COCO results, one table row an answer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saliency_r1.inputs.codes import coded
from saliency_r1.policy import Policy
from saliency_r1.prediction.errors import PredictError
from saliency_r1.prediction.maps import write_map
from saliency_r1.rollout.confidence import token_probabilities
from saliency_r1.rollout.environment import Environment, Rollout, Row
from saliency_r1.runtime.files import link_tree, write_json
from saliency_r1.tasks import Segmented


class ScoredAnswer(NamedTuple):
    """A greedy response with its masks, and the mean probability of its tokens (at temperature 1, all of them).

    The probability is None where the policy is somebody else's server, which does not tell.
    """

    rollout: Rollout
    token_probability: float | None


class Written(NamedTuple):
    """What the tables say of an answer: a row of the stage's table, and COCO results where the task has instances."""

    row: dict[str, Any]
    instances: list[dict[str, Any]] | None


def answers(policy: Policy, environment: Environment, rows: Sequence[Row]) -> list[ScoredAnswer]:
    """Greedy answers to some samples, in order, all at once."""
    prompts = environment.prompts(policy, rows)
    responses = environment.respond(policy, prompts)
    probabilities = token_probabilities(policy, prompts, responses, len(rows))
    return list(map(ScoredAnswer, environment.score(rows, responses), probabilities))


def write_part(folder: Path, model: str, written: Sequence[ScoredAnswer], score: str) -> None:
    """Write some answers of a model into a folder of their own: their maps, and what the tables say of them."""
    write_json(folder / "answers.json", [_write_prediction(folder, model, answer, score) for answer in written])


def assemble(folder: Path, parts: Sequence[Path]) -> list[dict[str, Any]]:
    """Put parts together: link their maps below `folder`, write COCO results, and return the rows of the table."""
    written: list[Written] = []
    for part in parts:
        if (part / "maps").is_dir():
            link_tree(part / "maps", folder / "maps")
        written += [Written(*entry) for entry in json.loads((part / "answers.json").read_text(encoding="utf-8"))]
    write_instances(folder, written)
    return [one.row for one in written]


def _write_prediction(folder: Path, model: str, answer: ScoredAnswer, score: str) -> Written:
    """Write the maps of one answer under `folder` and return what the tables say of it.

    A response that did not parse leaves an empty map, or no instance: it is scored, never skipped.
    """
    rollout, row = answer.rollout, answer.rollout.row
    for name, values in zip(row["names"], rollout.prediction.maps):
        write_map(values, folder / "maps" / model / row["dataset"] / f"{name}.png")
    instances = None
    if row["task"] == "sis":
        instances = [
            coco_result(row["names"][0], segment, _score(segment, answer, score))
            for segment in rollout.prediction.instances
        ]
    record = {
        **rollout.record(),
        "model": model,
        "expressions": [expression.text for expression in rollout.parsed.expressions],
        "token_probability": answer.token_probability,
        "names": row["names"],
        "height": row["height"],
        "width": row["width"],
    }
    return Written(record, instances)


def write_instances(folder: Path, written: Sequence[Written]) -> None:
    """Write the COCO results of each model and data set, in the order given; an image without one adds none."""
    together: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row, instances in written:
        if instances is not None:
            together[row["model"], row["dataset"]] += instances
    for (model, dataset), results in together.items():
        path = folder / "instances" / model / f"{dataset}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, results)


def coco_result(name: str, segment: Segmented, score: float) -> dict[str, Any]:
    """One row of a COCO results file; `image_id` is the image's name."""
    code = coded(segment.mask)["segmentation"]
    return {"image_id": name, "category_id": 1, "segmentation": code, "score": score}


def _score(segment: Segmented, answer: ScoredAnswer, source: str) -> float:
    """The score of an instance, from the source that `masks.score` names, in [0, 1]."""
    match source:
        case "segmenter":
            return float(segment.score)
        case "mask_probability":
            return float(segment.probability[segment.mask].mean()) if segment.mask.any() else 0.0
        case "token_probability":
            if answer.token_probability is None:
                raise PredictError("a server does not say how sure it was; set masks.score to another source")
            return answer.token_probability
        case _:
            return 1.0
