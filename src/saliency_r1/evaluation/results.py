"""One evaluation from folders to numbers, and the files it can be written to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from saliency_r1.evaluation.detections import read_predictions, read_truths
from saliency_r1.evaluation.folders import Missing, score_folders
from saliency_r1.evaluation.published import Row, image_counts, table
from saliency_r1.metrics.evaluator import DatasetCurves, SaliencyEvaluator
from saliency_r1.metrics.instances import KEYS, evaluate_instances, replicate_instances
from saliency_r1.metrics.resampling import Difference, differences, intervals
from saliency_r1.metrics.truth import DEFAULT, Floats, MeasureError, Protocol
from saliency_r1.runtime import files

Task = Literal["sod", "cosod", "sis"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """How to evaluate; see `score_folders` and `evaluate_instances` for each choice."""

    task: Task
    protocol: Protocol = DEFAULT
    missing: Missing = "error"
    resize: bool = False
    dataset: str | None = None
    bootstrap: int = 1000
    workers: int = 1
    prefix: str = ""
    suffix: str = ""
    score_source: str = "unknown"

    @property
    def expected(self) -> tuple[int, ...]:
        """How many images the named data set has; empty where none is named."""
        return image_counts(self.dataset) if self.dataset else ()


@dataclass
class FolderResult:
    """The evaluation of one folder. All measures lie in [0, 1]; MAE is the lower the better."""

    name: str
    task: Task
    protocol: str
    images: int
    scored_as_empty: int
    resized: int
    measures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_group: dict[str, float] = field(default_factory=dict)  # every group weighs the same
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    score_source: str | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    curves: DatasetCurves | None = None
    evaluator: SaliencyEvaluator | None = None
    replicates: dict[str, Floats] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Everything but rows and replicates, as JSON can hold it."""
        bulky = ("rows", "curves", "evaluator", "replicates")
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in bulky}
        curves = {key: values.tolist() for key, values in self.curves._asdict().items()} if self.curves else {}
        return plain | {"curves": curves}

    def compare(self, other: FolderResult) -> dict[str, Difference]:
        """`other` minus this one, paired by image. Raises MeasureError unless both scored the same images."""
        if self.evaluator and other.evaluator:
            return self.evaluator.compare(other.evaluator)
        if {row["name"] for row in self.rows} != {row["name"] for row in other.rows}:
            raise MeasureError("not the same images")
        return differences(self.measures, other.measures, self.replicates, other.replicates)


def evaluate_folders(pred: Path, gt: Path, settings: Settings, progress: Progress | None = None) -> FolderResult:
    """Score the folder `pred` against the folder `gt`.

    Raises MeasureError, with names, for anything that keeps an image of the ground truth from being scored.
    """
    if settings.task == "sis":
        return _instances(pred, gt, settings)
    evaluator, problems, empty = score_folders(
        pred,
        gt,
        grouped=settings.task == "cosod",
        missing=settings.missing,
        resize=settings.resize,
        expected=settings.expected,
        protocol=settings.protocol,
        bootstrap=settings.bootstrap,
        prefix=settings.prefix,
        suffix=settings.suffix,
        workers=settings.workers,
        progress=progress,
    )
    grouped = settings.task == "cosod"
    return FolderResult(
        name=pred.name,
        task=settings.task,
        protocol=settings.protocol.name,
        images=len(evaluator),
        scored_as_empty=empty,
        resized=len(problems.resized),
        measures=evaluator.compute(),
        intervals=evaluator.intervals() if settings.bootstrap else {},
        per_group=evaluator.compute("group") if grouped else {},
        groups={str(group): scores for group, scores in evaluator.groups().items()} if grouped else {},
        rows=evaluator.rows(),
        curves=evaluator.curves(),
        evaluator=evaluator,
    )


def _instances(pred: Path, gt: Path, settings: Settings) -> FolderResult:
    truths, names = read_truths(gt)
    if settings.expected and len(truths) not in settings.expected:
        raise MeasureError(f"{gt} holds {len(truths)} images, the data set has {settings.expected}")
    found = read_predictions(pred, truths, names)
    if settings.missing == "zero":
        found = {name: masks for name, masks in found.items() if name in truths}
    scores = evaluate_instances(found, truths, score_source=settings.score_source, missing=settings.missing)
    replicates = replicate_instances(found, truths, settings.bootstrap) if settings.bootstrap else {}
    measures = {key: value for key, value in scores.items() if key.startswith("AP")}
    rows = [
        {"name": name, "instances": len(truth.instances), "detections": len(found.get(name, ()))}
        for name, truth in sorted(truths.items())
    ]
    return FolderResult(
        name=pred.name,
        task="sis",
        protocol="COCO",
        images=scores["images"],
        scored_as_empty=scores["missing"],
        resized=0,
        measures=measures,
        intervals={key: value for key, value in intervals(replicates).items() if not math.isnan(measures[key])},
        score_source=settings.score_source,
        rows=rows,
        replicates={key: replicates[key] for key in KEYS} if replicates else {},
    )


def among_published(results: list[FolderResult], dataset: str) -> list[Row]:
    """The results' rows among the published ones of a data set."""
    own = {result.name: result.measures for result in results}
    return table(dataset, own, results[0].protocol)


def write_json(results: list[FolderResult], comparison: Mapping[str, Difference], path: Path) -> None:
    """Write results, and the second minus the first, as JSON; what is not a number becomes null."""
    content = {
        "results": [result.summary() for result in results],
        "comparison": {key: difference._asdict() for key, difference in comparison.items()},
    }
    files.write_json(path, _finite(content))


def write_rows(results: list[FolderResult], path: Path) -> None:
    """Write one row an image and result as Parquet; the column `result` names the folder."""
    import polars as pl

    rows = [{"result": result.name, **row} for result in results for row in result.rows]
    with files.replacing(path) as aside:
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(aside)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
