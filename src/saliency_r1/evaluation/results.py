"""One evaluation from folders to numbers, and the files it can be written to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from saliency_r1.evaluation.detections import read_predictions, read_truths
from saliency_r1.evaluation.folders import Missing, score_folders
from saliency_r1.evaluation.published import Row, image_counts, table
from saliency_r1.evaluation.scores import Scores, finite, of_instances, of_maps
from saliency_r1.metrics.resampling import Difference, differences
from saliency_r1.metrics.truth import DEFAULT, MeasureError, Protocol
from saliency_r1.names import ScoreSource, TaskName
from saliency_r1.runtime import files

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """How to evaluate; see `score_folders` and `names.ScoreSource` for each choice."""

    task: TaskName
    protocol: Protocol = DEFAULT
    missing: Missing = "error"
    resize: bool = False
    dataset: str | None = None
    bootstrap: int = 1000
    workers: int = 1
    prefix: str = ""
    suffix: str = ""
    score_source: Literal[ScoreSource, "unknown"] = "unknown"
    may_be_empty: bool = False

    @property
    def expected(self) -> tuple[int, ...]:
        """How many images the named data set has; empty where none is named. MeasureError if it is of another task."""
        return image_counts(self.dataset, self.task) if self.dataset else ()


@dataclass(kw_only=True)
class FolderResult(Scores):
    """The evaluation of one folder: its scores, and how they came about."""

    name: str
    task: TaskName
    protocol: str
    resized: int = 0

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
        return differences(self.measures, other.measures, self.replicates, other.replicates, self.images)


def evaluate_folders(pred: Path, gt: Path, settings: Settings, progress: Progress | None = None) -> FolderResult:
    """Score the folder `pred` against the folder `gt`.

    Raises MeasureError, with names, for anything that keeps an image of the ground truth from being scored.
    """
    if settings.task == "sis":
        return _instances(pred, gt, settings)
    grouped = settings.task == "cosod"
    evaluator, problems, empty = score_folders(
        pred,
        gt,
        grouped=grouped,
        missing=settings.missing,
        resize=settings.resize,
        expected=settings.expected,
        protocol=settings.protocol,
        bootstrap=settings.bootstrap,
        prefix=settings.prefix,
        suffix=settings.suffix,
        may_be_empty=settings.may_be_empty,
        workers=settings.workers,
        progress=progress,
    )
    return FolderResult(
        **vars(of_maps(evaluator, grouped, empty)),
        name=pred.name,
        task=settings.task,
        protocol=settings.protocol.name,
        resized=len(problems.resized),
    )


def _instances(pred: Path, gt: Path, settings: Settings) -> FolderResult:
    expected = settings.expected
    truths, names = read_truths(gt, settings.protocol.void)
    if expected and len(truths) not in expected:
        counts = " or ".join(map(str, expected))
        raise MeasureError(f"{gt} holds {len(truths)} images, the data set has {counts}")
    found = read_predictions(
        pred, truths, names, missing=settings.missing, prefix=settings.prefix, suffix=settings.suffix
    )
    if settings.missing == "zero":
        found = {name: masks for name, masks in found.items() if name in truths}
    return FolderResult(
        **vars(of_instances(found, truths, settings.bootstrap, settings.score_source, settings.missing)),
        name=pred.name,
        task="sis",
        protocol="COCO",
    )


def among_published(results: list[FolderResult], dataset: str) -> list[Row]:
    """The results' rows among the published ones of a data set."""
    own = {result.name: finite(result.measures) for result in results}
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
