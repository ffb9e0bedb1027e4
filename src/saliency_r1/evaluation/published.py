"""Published results of other methods, for a row of one's own to stand among.

The numbers, with source and training set, are in `published.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from saliency_r1.metrics.truth import DEFAULT, MeasureError

UNSTATED = "not stated"
Comparable = Literal["yes", "no", "unknown"]


class Row(NamedTuple):
    """One method on one data set; a measure that was not published is absent from `scores`."""

    method: str
    training: str
    source: str
    protocol: str
    scores: dict[str, float]
    comparable: Comparable  # whether it is scored by this package's default protocol
    own: bool = False


@cache
def _published() -> dict[str, Any]:
    import yaml

    content: dict[str, Any] = yaml.safe_load((files("saliency_r1.evaluation") / "published.yaml").read_text("utf-8"))
    return content


def datasets(task: str | None = None) -> list[str]:
    """The data sets that results or sizes are known of."""
    return [name for name, entry in _published()["datasets"].items() if task in (None, entry["task"])]


def image_counts(dataset: str, task: str | None = None) -> tuple[int, ...]:
    """How many test images a data set has; several numbers where several versions are in use.

    Raises MeasureError for an unknown name, and for a data set of another task than `task`.
    """
    known = _published()["datasets"]
    if dataset not in known:
        raise MeasureError(f"unknown data set {dataset}; known are {', '.join(known)}")
    if task not in (None, known[dataset]["task"]):
        raise MeasureError(f"{dataset} is a {known[dataset]['task']} data set: --task {known[dataset]['task']}")
    return tuple(known[dataset]["images"])


def table(
    dataset: str, own: Mapping[str, Mapping[str, float]] | None = None, protocol: str = DEFAULT.name
) -> list[Row]:
    """The published results on a data set and the user's own (measures by method), best first."""
    image_counts(dataset)
    rows = [
        Row(
            entry["method"],
            entry.get("training", UNSTATED),
            entry["source"],
            entry.get("protocol", UNSTATED),
            entry["scores"][dataset],
            _comparable(entry.get("protocol", UNSTATED)),
        )
        for entry in _published()["results"]
        if dataset in entry["scores"]
    ]
    mine: Comparable = "yes" if protocol in (DEFAULT.name, "COCO") else "no"
    rows += [
        Row(name, "", "this evaluation", protocol, dict(scores), mine, True) for name, scores in (own or {}).items()
    ]
    return sorted(rows, key=lambda row: -row.scores.get("Sm", row.scores.get("AP", 0.0)))


def _comparable(protocol: str) -> Comparable:
    if protocol == UNSTATED:
        return "unknown"
    return "yes" if protocol.startswith(("pysodmetrics", "COCO")) else "no"
