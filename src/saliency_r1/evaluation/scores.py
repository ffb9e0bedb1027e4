"""The scores of one data set: the one way from maps or instances to numbers, of the stage and of the command alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saliency_r1.metrics.evaluator import DatasetCurves, SaliencyEvaluator
from saliency_r1.metrics.instances import Predictions, Truths, as_regions, evaluate_instances, replicate_instances
from saliency_r1.metrics.resampling import intervals
from saliency_r1.metrics.truth import Floats


@dataclass(kw_only=True)
class Scores:
    """What is known of the predictions on a data set.

    `measures` lie in [0, 1] (E up to N / (N - 1) of N pixels), MAE is the lower the better; those that do not exist are
    nan (AP without an instance) and have no interval. `rows`: one dict an image, with its `name`. Of SIS, `counts` says
    how many instances there are and were found, and `score_source` where their scores come from. Of CoSOD, `per_group`
    is the average in which every group weighs the same, and `groups` has each by itself.
    """

    measures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    rows: list[dict[str, Any]]
    images: int
    scored_as_empty: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    score_source: str | None = None
    per_group: dict[str, float] = field(default_factory=dict)
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    curves: DatasetCurves | None = None
    evaluator: SaliencyEvaluator | None = None
    replicates: dict[str, Floats] = field(default_factory=dict)


def of_maps(evaluator: SaliencyEvaluator, grouped: bool, scored_as_empty: int = 0) -> Scores:
    """The scores of the maps that an evaluator has seen, with intervals if it keeps replicates."""
    return Scores(
        measures=evaluator.compute(),
        intervals=evaluator.intervals() if evaluator.bootstrap else {},
        rows=evaluator.rows(),
        images=len(evaluator),
        scored_as_empty=scored_as_empty,
        per_group=evaluator.compute("group") if grouped else {},
        groups={str(group): scores for group, scores in evaluator.groups().items()} if grouped else {},
        curves=evaluator.curves(),
        evaluator=evaluator,
    )


def of_instances(
    predictions: Predictions, truths: Truths, bootstrap: int, score_source: str = "unknown", missing: str = "error"
) -> Scores:
    """The scores of instances, with intervals from so many replicates; the rest as in `evaluate_instances`.

    Of a single image there are none: all its replicates are the same.
    """
    found = evaluate_instances(predictions, truths, score_source=score_source, missing=missing)
    replicates = replicate_instances(predictions, truths, bootstrap) if bootstrap and len(truths) > 1 else {}
    return Scores(
        measures={key: value for key, value in found.items() if key.startswith("AP")},
        intervals=intervals(replicates),
        rows=[
            {
                "name": name,
                "instances": len(as_regions(truth).instances),
                "detections": len(predictions.get(name, ())),
            }
            for name, truth in sorted(truths.items())
        ],
        images=found["images"],
        scored_as_empty=found["missing"],
        score_source=score_source,
        counts={key: found[key] for key in ("instances", "detections")},
        replicates=replicates,
    )


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Those of the measures that exist."""
    return {key: value for key, value in values.items() if math.isfinite(value)}
