"""From predictions on disk to every measure: what the metrics stage computes and how it is written down.

    evaluation = evaluate(Path("artifacts/download"), Path("artifacts/masks"), "test", ["base", "sft", "cgpo"])
    evaluation.write(Path("artifacts/metrics"))

Every sample of the split must have a prediction of every model; an evaluation that leaves some out compares nothing.
All intervals are bootstrap intervals over images, over groups for CoSOD's maps, and over samples for rewards; their
draws are seeded, so equal predictions give equal files.
"""

from __future__ import annotations

import math
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from saliency_r1.data.samples import read_masks
from saliency_r1.evaluation.detections import read_predictions
from saliency_r1.metrics import DatasetCurves, SaliencyEvaluator, evaluate_instances, resampling
from saliency_r1.metrics.instances import as_regions, replicate_instances
from saliency_r1.runtime.files import write_json
from saliency_r1.runtime.parent import die_with_parent
from saliency_r1.runtime.stage import progress

REPLICATES = 1000
LEVEL = 0.95
DIGITS = 6
MEASURES = ("Sm", "MAE", "wFm", "adpFm", "adpEm", "maxFm", "maxEm", "IoU")
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


@dataclass(frozen=True)
class Scores:
    """What is known about a part: values and intervals of the data set, one row a prediction, curves of the maps."""

    part: ModelOnDataset
    measures: dict[str, float]
    intervals: Intervals
    rows: list[dict[str, Any]]
    curves: DatasetCurves | None = None


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
        # The same once more, one line of a plot a file, which is how `dvc plots` wants it.
        for (dataset, model), curve in self.curves.group_by("dataset", "model", maintain_order=True):
            (folder / "curves" / str(dataset)).mkdir(parents=True, exist_ok=True)
            curve.write_csv(folder / "curves" / str(dataset) / f"{model}.csv", float_precision=DIGITS)


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
    result = Evaluation(comparison=compare_rewards(predictions, models))
    tables = []
    curves = []
    for scores in progress(_score_all(parts, workers), total=len(parts), label="evaluate"):
        model, dataset = scores.part.model, scores.part.dataset
        answers = predictions.filter(model=model, dataset=dataset).sort("sample_id")
        measures, intervals = _answer_measures(answers)
        values = scores.measures | measures
        result.metrics.setdefault(model, {})[dataset] = {key: _rounded(value) for key, value in values.items()}
        result.intervals.setdefault(model, {})[dataset] = {
            key: [_rounded(low), _rounded(high)] for key, (low, high) in (scores.intervals | intervals).items()
        }
        tables.append(pl.DataFrame(scores.rows, SCHEMA))
        if scores.curves is not None:
            curves.append(_curve_table(scores))
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
    """Each model against the one before it, in mean reward, paired over samples: `{"cgpo_over_sft": {scope: {...}}}`.

    Scopes are `overall`, the tasks and the data sets; each has `samples`, the two means `before` and `after`, their
    `difference` and its interval from `low` to `high`.
    """
    return {
        f"{after}_over_{before}": _compare(predictions.filter(model=before), predictions.filter(model=after))
        for before, after in pairwise(models)
    }


def _compare(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, dict[str, float]]:
    both = before.join(after.select("sample_id", after="reward"), on="sample_id").sort("sample_id")
    scopes = {"overall": both}
    for column in ("task", "dataset"):
        scopes |= {name: both.filter(pl.col(column) == name) for name in before[column].unique(maintain_order=True)}
    result = {}
    for scope, rows in scopes.items():
        difference = (rows["after"] - rows["reward"]).to_numpy()
        low, high = bootstrap_mean(difference)
        values = {
            "before": rows["reward"].to_numpy().mean(),
            "after": rows["after"].to_numpy().mean(),
            "difference": difference.mean(),
            "low": low,
            "high": high,
        }
        result[scope] = {"samples": len(rows), **{key: _rounded(value) for key, value in values.items()}}
    return result


def bootstrap_mean(values: NDArray[np.floating[Any]], replicates: int = REPLICATES) -> tuple[float, float]:
    """The bootstrap interval of a mean (percentiles, always the same draws)."""
    rng = np.random.default_rng(0)
    means = np.array([values[rng.integers(len(values), size=len(values))].mean() for _ in range(replicates)])
    return resampling.intervals({"mean": means}, LEVEL)["mean"]


def _answer_measures(answers: pl.DataFrame) -> tuple[dict[str, float], Intervals]:
    """What the responses say about themselves, whatever their task: mean reward, token probability, parse failures."""
    rewards = answers["reward"].to_numpy()
    values = {
        "reward": float(rewards.mean()),
        "token_probability": float(answers["token_probability"].to_numpy().mean()),
        "parse_failures": float((~answers["parsed"]).to_numpy().mean()),
        "samples": len(answers),
    }
    return values, {"reward": bootstrap_mean(rewards)}


def _score_all(parts: Sequence[ModelOnDataset], workers: int) -> Iterable[Scores]:
    if workers == 1 or len(parts) == 1:
        yield from map(score, parts)
        return
    # Fresh processes: a fork would copy the locks of the threads that numpy and polars have started.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(parts)), context, initializer=die_with_parent) as pool:
        yield from pool.map(score, parts)


def score(part: ModelOnDataset) -> Scores:
    """Score one model on one data set."""
    return _score_instances(part) if part.task == "sis" else _score_maps(part)


def _score_maps(part: ModelOnDataset) -> Scores:
    evaluator = SaliencyEvaluator(bootstrap=REPLICATES)
    owners = {}
    for sample in part.samples:
        for name, truth in zip(sample["names"], read_masks(sample, part.download), strict=True):
            owners[name] = sample
            evaluator.update(_read_map(part, name), truth, name, sample["group"])
    rows = [_row(part, owners[row["name"]], row["name"], row) for row in evaluator.rows()]
    return Scores(part, _finite(evaluator.compute()), evaluator.intervals(), rows, evaluator.curves())


def _read_map(part: ModelOnDataset, name: str) -> NDArray[np.uint8]:
    path = part.masks / "maps" / part.model / part.dataset / f"{name}.png"
    try:
        with Image.open(path) as image:
            return np.array(image.convert("L"))
    except FileNotFoundError:
        raise EvaluationError(f"{part.model} has no map for {name} of {part.dataset}, expected {path}") from None


def _score_instances(part: ModelOnDataset) -> Scores:
    truths = {}
    owners = {}
    for sample in part.samples:
        (name,), (ids,) = sample["names"], read_masks(sample, part.download)
        truths[name], owners[name] = as_regions(ids), sample
    # A response without instances leaves no row here; that there was a response, `check_complete` has seen.
    predictions = read_predictions(part.masks / "instances" / part.model / f"{part.dataset}.json", truths)
    result = evaluate_instances(predictions, truths)
    replicates = replicate_instances(predictions, truths, REPLICATES)
    rows = [
        _row(part, owners[name], name, {"instances": len(truths[name].instances), "detections": len(predictions[name])})
        for name in truths
    ]
    measures = {key: value for key, value in result.items() if key not in ("images", "missing")}
    return Scores(part, _finite(measures), resampling.intervals(replicates, LEVEL), rows)


def _row(part: ModelOnDataset, sample: Mapping[str, Any], name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table: who, what, and those of its columns that the task knows."""
    known = {key: values.get(key) for key in (*MEASURES, "instances", "detections")}
    identity = {key: sample[key] for key in ("sample_id", "task", "dataset", "split")}
    return {**identity, "model": part.model, "name": name, **known}


def _curve_table(scores: Scores) -> pl.DataFrame:
    assert scores.curves is not None
    curves = scores.curves
    columns = {"threshold": curves.thresholds, "precision": curves.precision, "recall": curves.recall, "F": curves.F}
    labels = {"model": scores.part.model, "dataset": scores.part.dataset}
    return pl.DataFrame(columns).select(*(pl.lit(value).alias(key) for key, value in labels.items()), *columns)


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Only the numbers, and of these only those that exist: AP of a data set without instances does not."""
    return {key: value for key, value in values.items() if not isinstance(value, str) and math.isfinite(value)}


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else round(float(value), DIGITS)
