"""What the report is about: everything the stages before it have left, read once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from saliency_r1.inputs.coco import Found, read_results
from saliency_r1.inputs.image_names import ImageNames
from saliency_r1.names import TASKS

STAGES = ("params", "download", "annotate", "sft", "cgpo", "masks", "metrics")
TITLES = {
    "sod": "Salient object detection",
    "sis": "Salient instance segmentation",
    "cosod": "Co-salient object detection",
}
SHORT = {"sod": "SOD", "sis": "SIS", "cosod": "CoSOD"}
LABELS = {"base": "Base", "sft": "SFT", "cgpo": "CGPO"}


@dataclass(frozen=True)
class Artifacts:
    """The folders of the stages, with the parts of them that more than one section of the page needs."""

    root: Path

    @cached_property
    def samples(self) -> dict[str, dict[str, Any]]:
        """Rows of the sample table, by sample id."""
        table = pl.read_parquet(self.root / "download" / "table.parquet")
        return {row["sample_id"]: row for row in table.iter_rows(named=True)}

    @cached_property
    def predictions(self) -> pl.DataFrame:
        """One row a sample and model."""
        return pl.read_parquet(self.root / "masks" / "table.parquet")

    @cached_property
    def annotations(self) -> pl.DataFrame:
        """One row an annotated sample."""
        return pl.read_parquet(self.root / "annotate" / "table.parquet")

    @cached_property
    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """`{model: {data set: {measure: value}}}`."""
        return self._json("metrics/metrics.json")

    @cached_property
    def intervals(self) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
        """`{model: {data set: {measure: (low, high)}}}`."""
        return self._json("metrics/intervals.json")

    @cached_property
    def comparison(self) -> dict[str, dict[str, dict[str, float]]]:
        """`{"cgpo_over_sft": {scope: {"difference": ..., "low": ..., ...}}}`."""
        return self._json("metrics/comparison.json")

    @cached_property
    def curves(self) -> pl.DataFrame:
        """Precision and recall by model, data set and threshold."""
        # Names are text even where they are digits: else a first data set called 2017 makes numbers of all of them.
        names = {"model": pl.String, "dataset": pl.String}
        return pl.read_csv(self.root / "metrics" / "curves.csv", schema_overrides=names, infer_schema_length=None)

    @cached_property
    def checks(self) -> list[dict[str, Any]]:
        """The reports of the gates, in the order of the stages."""
        paths = [self.root / "checks" / f"{stage}.json" for stage in STAGES]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]

    @cached_property
    def models(self) -> list[str]:
        """The models in the order of the parameters."""
        return list(self.metrics)

    @cached_property
    def steps(self) -> list[str]:
        """Those of the models that were trained here, in that order; all where none was."""
        return [model for model in self.models if model in LABELS] or self.models

    @cached_property
    def datasets(self) -> dict[str, list[str]]:
        """The data sets of each task: those with training samples first, else in the order of the sample table."""
        pairs = self.predictions.select("task", "dataset").unique(maintain_order=True).iter_rows()
        places = {dataset: place for place, dataset in enumerate(row["dataset"] for row in self.samples.values())}
        found: dict[str, list[str]] = {task: [] for task in TASKS}
        for task, dataset in pairs:
            found[task].append(dataset)
        return {
            task: sorted(names, key=lambda name: (name not in self.trained, places[name]))
            for task, names in found.items()
            if names
        }

    @cached_property
    def trained(self) -> set[str]:
        """The data sets that training samples were taken from."""
        return {row["dataset"] for row in self.samples.values() if row["split"] == "train"}

    @cached_property
    def rollouts(self) -> pl.DataFrame:
        """One row a sampled response of CGPO."""
        return pl.read_parquet(self.root / "cgpo" / "table.parquet")

    def detections(self, model: str, dataset: str, split: str) -> Found:
        """Scored run-length codes of a model for a SIS data set, by image name; its file is read once."""
        if (model, dataset, split) not in self._detections:
            rows = [row for row in self.samples.values() if (row["dataset"], row["split"]) == (dataset, split)]
            sizes = {row["names"][0]: (row["height"][0], row["width"][0]) for row in rows}
            file = self.root / "masks" / "instances" / model / f"{dataset}.json"
            self._detections[model, dataset, split] = read_results(file, sizes, ImageNames.of(sizes))
        return self._detections[model, dataset, split]

    @cached_property
    def _detections(self) -> dict[tuple[str, str, str], Found]:
        return {}

    def training_curves(self, stage: str) -> pl.DataFrame:
        """What a training stage wrote down at every step."""
        return pl.read_csv(self.root / stage / "curves.csv", infer_schema_length=None)

    def _json(self, path: str) -> Any:
        return json.loads((self.root / path).read_text(encoding="utf-8"))
