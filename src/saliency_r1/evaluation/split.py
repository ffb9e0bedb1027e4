"""From predictions on disk to every measure: what the metrics stage computes and how it is written down.

    evaluation = evaluate(Path("artifacts/download"), Path("artifacts/masks"), "test", ["base", "sft", "cgpo"])
    evaluation.write(Path("artifacts/metrics"))

Every sample of the split must have a prediction of every model; an evaluation that leaves some out compares nothing.
All intervals are bootstrap intervals over images, of rewards over samples, and in CoSOD over groups; their draws are
seeded, so equal predictions give equal files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from saliency_r1.data.samples import read_masks
from saliency_r1.evaluation.detections import read_predictions
from saliency_r1.evaluation.folders import Problems, score_files
from saliency_r1.evaluation.scores import Scores, finite, of_instances, of_maps
from saliency_r1.metrics.evaluator import DatasetCurves
from saliency_r1.metrics.instances import as_regions
from saliency_r1.metrics.resampling import draw, intervals
from saliency_r1.names import MEASURES, TRAINED
from saliency_r1.runtime.files import write_json
from saliency_r1.runtime.stage import progress
from saliency_r1.runtime.workers import spread

REPLICATES = 1000
DIGITS = 6
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("sample_id", "task", "dataset", "split", "model", "name"), pl.String),
    **dict.fromkeys(MEASURES, pl.Float64),
    **dict.fromkeys(("instances", "detections"), pl.Int64),
}
CURVES: dict[str, Any] = {
    **dict.fromkeys(("model", "dataset"), pl.String),
    **dict.fromkeys(("threshold", "precision", "recall", "F"), pl.Float64),
}
Intervals = dict[str, tuple[float, float]]


class EvaluationError(ValueError):
    """Predictions that do not fit the ground truth: the message names the first of them."""


@dataclass(frozen=True)
class ModelOnDataset:
    """One model on one data set: the samples with their paths, and where the predictions lie."""

    model: str
    dataset: str
    task: str
    samples: list[dict[str, Any]]
    download: Path
    masks: Path


@dataclass
class Evaluation:
    """Every measure of every model on every data set, and the paired comparison of one training step with the next."""

    metrics: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    intervals: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    comparison: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    table: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SCHEMA))
    curves: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CURVES))

    def write(self, folder: Path) -> None:
        """Write the files of the metrics stage into an existing folder."""
        write_json(folder / "metrics.json", self.metrics)
        write_json(folder / "intervals.json", self.intervals)
        write_json(folder / "comparison.json", self.comparison)
        self.table.write_parquet(folder / "table.parquet")
        self.curves.write_csv(folder / "curves.csv", float_precision=DIGITS)


def evaluate(download: Path, masks: Path, split: str, models: Sequence[str], workers: int = 1) -> Evaluation:
    """Score the predictions in `masks` against the ground truth in `download`, in `workers` processes.

    Raises `EvaluationError` for a missing, double or surplus prediction; nothing is skipped and nothing counted twice.
    """
    samples = pl.read_parquet(download / "table.parquet").filter(split=split)
    predictions = pl.read_parquet(masks / "table.parquet")
    check_complete(samples, predictions, models)
    parts = [
        ModelOnDataset(model, dataset, rows["task"][0], rows.to_dicts(), download, masks)
        for model in models
        for (dataset,), rows in samples.group_by("dataset", maintain_order=True)
    ]
    # Images of one group rise and fall together, so what is drawn is groups.
    drawn = samples.select("sample_id", unit=pl.coalesce(pl.format("{}/{}", "dataset", "group"), "sample_id"))
    predictions = predictions.join(drawn, on="sample_id", maintain_order="left")
    result = Evaluation(comparison=compare_rewards(predictions, models))
    tables = []
    curves = []
    scored = progress(spread(score, parts, workers), total=len(parts), label="evaluate")
    for part, scores in zip(parts, scored, strict=True):
        answers = predictions.filter(model=part.model, dataset=part.dataset).sort("sample_id")
        said, of_said = _answer_measures(answers)
        values = finite(scores.measures) | scores.counts | said
        result.metrics.setdefault(part.model, {})[part.dataset] = {
            key: _rounded(value) for key, value in values.items()
        }
        result.intervals.setdefault(part.model, {})[part.dataset] = {
            key: [_rounded(low), _rounded(high)] for key, (low, high) in (scores.intervals | of_said).items()
        }
        tables.append(pl.DataFrame(_rows(part, scores), SCHEMA))
        if scores.curves is not None:
            curves.append(_curve_table(part, scores.curves))
    result.table = pl.concat(tables)
    if curves:
        result.curves = pl.concat(curves)
    return result


def check_complete(samples: pl.DataFrame, predictions: pl.DataFrame, models: Sequence[str]) -> None:
    """Raise `EvaluationError` unless every sample has exactly one row of every model and nothing else is there."""
    if samples.is_empty():
        raise EvaluationError("there is no sample to evaluate on; is masks.split a split of the data sets?")
    wanted = set(samples["sample_id"])
    for model in models:
        ids = predictions.filter(model=model)["sample_id"].to_list()
        problems = {
            "missing": sorted(wanted - set(ids)),
            "surplus": sorted(set(ids) - wanted),
            "double": sorted(name for name, count in Counter(ids).items() if count > 1),
        }
        for what, names in problems.items():
            if names:
                more = ", ..." if len(names) > 10 else ""
                raise EvaluationError(f"{model}: {len(names)} {what} predictions: {', '.join(names[:10])}{more}")


def compare_rewards(predictions: pl.DataFrame, models: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Each model trained here against the one before it, in mean reward, paired over samples.

    The result is `{"cgpo_over_sft": {scope: {...}}}`. Scopes are `overall`, the tasks and the data sets; each has
    `samples`, the two means `before` and `after`, their `difference` and, of two units or more, its interval from `low`
    to `high`. The column `unit` of `predictions` names what the bootstrap draws: the sample, or the group that it is a
    part of.
    """
    return {
        f"{after}_over_{before}": _compare(predictions.filter(model=before), predictions.filter(model=after))
        for before, after in pairwise(model for model in models if model in TRAINED)
    }


def _compare(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, dict[str, float]]:
    both = before.join(after.select("sample_id", after="reward"), on="sample_id").sort("sample_id")
    scopes = {"overall": both}
    for column in ("task", "dataset"):
        scopes |= {name: both.filter(pl.col(column) == name) for name in before[column].unique(maintain_order=True)}
    result = {}
    for scope, rows in scopes.items():
        difference = (rows["after"] - rows["reward"]).to_numpy()
        values = {
            "before": rows["reward"].to_numpy().mean(),
            "after": rows["after"].to_numpy().mean(),
            "difference": difference.mean(),
            **ends(bootstrap_mean(difference, rows["unit"])),
        }
        result[scope] = {"samples": len(rows), **{key: _rounded(value) for key, value in values.items()}}
    return result


def bootstrap_mean(
    values: NDArray[np.floating[Any]], units: Sequence[str] | pl.Series, level: float = 0.95
) -> tuple[float, float] | None:
    """The interval of the mean of `values` (n,) by a Poisson bootstrap over `units` (n,), the same draws always.

    Values of one unit, such as the parts of a group of images, are drawn together. Of a single unit there is no
    interval: all its replicates are the same.
    """
    names, unit = np.unique(np.asarray(units, str), return_inverse=True)
    if len(names) < 2:
        return None
    draws = np.array([draw(0, str(name), REPLICATES) for name in names], float)
    total, drawn = (np.bincount(unit, weights) @ draws for weights in (values, None))
    return intervals({"mean": total[drawn > 0] / drawn[drawn > 0]}, level)["mean"]


def ends(interval: tuple[float, float] | None) -> dict[str, float]:
    """An interval by the names of its ends; empty where there is none."""
    return {} if interval is None else {"low": interval[0], "high": interval[1]}


def _answer_measures(answers: pl.DataFrame) -> tuple[dict[str, float], Intervals]:
    """What the responses say about themselves, whatever their task: mean reward, token probability, parse failures."""
    rewards = answers["reward"].to_numpy()
    values = {
        "reward": float(rewards.mean()),
        **_said_how_sure(answers["token_probability"]),
        "parse_failures": float((~answers["parsed"]).to_numpy().mean()),
        "samples": len(answers),
    }
    interval = bootstrap_mean(rewards, answers["unit"])
    return values, {} if interval is None else {"reward": interval}


def _said_how_sure(probabilities: pl.Series) -> dict[str, float]:
    """The mean token probability; a server does not tell."""
    return {} if probabilities.null_count() else {"token_probability": float(probabilities.to_numpy().mean())}


def score(part: ModelOnDataset) -> Scores:
    """Score one model on one data set; what no table shows stays in the process that made it."""
    scores = _score_instances(part) if part.task == "sis" else _score_maps(part)
    return replace(scores, evaluator=None, replicates={})


def _score_maps(part: ModelOnDataset) -> Scores:
    truths, maps = {}, {}
    for sample in part.samples:
        for name, mask in zip(sample["names"], sample["masks"], strict=True):
            truths[name] = part.download / mask
            maps[name] = part.masks / "maps" / part.model / part.dataset / f"{name}.png"
            if not maps[name].is_file():
                raise EvaluationError(f"{part.model} has no map for {name} of {part.dataset}, expected {maps[name]}")
    grouped = part.task == "cosod"
    return of_maps(
        score_files(maps, truths, Problems(), {"bootstrap": REPLICATES}, grouped, may_be_empty=True).evaluator, grouped
    )


def _score_instances(part: ModelOnDataset) -> Scores:
    masks = {sample["names"][0]: read_masks(sample, part.download)[0] for sample in part.samples}
    # Of equal scores the first counts more, so images stand in the order in which a folder is read.
    truths = {name: as_regions(ids) for name, ids in sorted(masks.items())}
    # A response without instances leaves no row here; that there was a response, `check_complete` has seen.
    predictions = read_predictions(part.masks / "instances" / part.model / f"{part.dataset}.json", truths)
    return of_instances(predictions, truths, REPLICATES)


def _rows(part: ModelOnDataset, scores: Scores) -> list[dict[str, Any]]:
    """Rows of the table: who, what, and those of its columns that the task knows."""
    owners = {name: sample for sample in part.samples for name in sample["names"]}
    return [
        {
            **{key: owners[row["name"]][key] for key in ("sample_id", "task", "dataset", "split")},
            "model": part.model,
            "name": row["name"],
            **{key: row.get(key) for key in (*MEASURES, "instances", "detections")},
        }
        for row in scores.rows
    ]


def _curve_table(part: ModelOnDataset, curves: DatasetCurves) -> pl.DataFrame:
    columns = {"threshold": curves.thresholds, "precision": curves.precision, "recall": curves.recall, "F": curves.F}
    labels = {"model": part.model, "dataset": part.dataset}
    return pl.DataFrame(columns).select(*(pl.lit(value).alias(key) for key, value in labels.items()), *columns)


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else round(float(value), DIGITS)
