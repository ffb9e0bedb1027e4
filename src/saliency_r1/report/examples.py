"""Which samples are shown and what is known about each: gains, the ordinary, and the failures, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from saliency_r1 import tasks
from saliency_r1.data.samples import read_masks
from saliency_r1.inputs.regions import decode
from saliency_r1.report import pictures
from saliency_r1.report.read import LABELS, Artifacts
from saliency_r1.report.response import highlight

REASONS = {"gain": "largest gain", "typical": "typical", "worst": "lowest reward"}


@dataclass(frozen=True)
class ShownAnswer:
    """What one model made of a sample: its masks for each image, its response, its reward."""

    model: str
    response: str
    parsed: bool
    reward: float
    masks: list[list[NDArray[np.bool_]]]


@dataclass(frozen=True)
class Example:
    """A sample with its ground truth and every model's answer."""

    sample: Mapping[str, Any]
    reason: str
    images: list[Path]
    truth: list[list[NDArray[np.bool_]]]
    answers: list[ShownAnswer]

    @property
    def instances(self) -> bool:
        """Whether each mask of an image is an instance of its own."""
        return self.sample["task"] == "sis"


def choose(predictions: pl.DataFrame, task: str, models: list[str], count: int) -> list[tuple[str, str]]:
    """(reason, sample id) of `count` samples: a third each of gains, of the typical, of the lowest rewards.

    Judged is the last model; a gain is over the model before it, typical is what lies nearest to the median reward.
    """
    table = predictions.filter(task=task)
    rewards = table.filter(model=models[-1]).select("sample_id", "reward")
    before = table.filter(model=models[-2 if len(models) > 1 else -1]).select("sample_id", before="reward")
    rows = rewards.join(before, on="sample_id").with_columns(
        gain=pl.col("before") - pl.col("reward"), typical=(pl.col("reward") - pl.col("reward").median()).abs()
    )
    third, rest = divmod(min(count, len(rows)), 3)
    wanted = {
        "gain": (third + (rest > 0), "gain"),
        "worst": (third, "reward"),
        "typical": (third + (rest > 1), "typical"),
    }
    chosen: dict[str, str] = {}
    for reason, (share, key) in wanted.items():
        left = rows.filter(~pl.col("sample_id").is_in(list(chosen)))
        chosen |= dict.fromkeys(left.sort(key, "sample_id").head(share)["sample_id"], reason)
    return [(reason, sample) for reason in REASONS for sample, why in chosen.items() if why == reason]


def examples(artifacts: Artifacts, task: str, count: int) -> list[Example]:
    """The chosen samples of a task with all that is shown of them."""
    chosen = choose(artifacts.predictions, task, artifacts.steps, count)
    return [example(artifacts, sample, reason) for reason, sample in chosen]


def example(artifacts: Artifacts, sample_id: str, reason: str = "") -> Example:
    """One sample with the ground truth and the answers of all models."""
    sample = artifacts.samples[sample_id]
    download = artifacts.root / "download"
    truth = [regions(mask, sample["task"]) for mask in read_masks(sample, download)]
    rows = {row["model"]: row for row in artifacts.predictions.filter(sample_id=sample_id).iter_rows(named=True)}
    answers = [
        ShownAnswer(model, row["response"], row["parsed"], row["reward"], _predicted(artifacts, sample, model))
        for model in artifacts.models
        for row in [rows[model]]
    ]
    return Example(sample, reason, [download / path for path in sample["images"]], truth, answers)


def regions(mask: NDArray[Any], task: str) -> list[NDArray[np.bool_]]:
    """The masks in a stored mask file: one for each instance (SIS), or the one region."""
    return list(tasks.get(task).truth([mask]).masks)


def _predicted(artifacts: Artifacts, sample: Mapping[str, Any], model: str) -> list[list[NDArray[np.bool_]]]:
    """The predicted masks of each image: instances, or the map above one half."""
    masks = artifacts.root / "masks"
    if sample["task"] == "sis":
        (name,) = sample["names"]
        found = artifacts.detections(model, sample["dataset"], sample["split"])
        return [[decode(code) for code, _ in found[name]]]
    maps = []
    for name in sample["names"]:
        with Image.open(masks / "maps" / model / sample["dataset"] / f"{name}.png") as image:
            maps.append([np.array(image.convert("L")) > 127])
    return maps


@dataclass(frozen=True)
class Column:
    """One column of an example on the page: its pictures and, for a model, what it said and earned."""

    title: str
    pictures: list[Markup]
    model: str = ""
    reward: str = ""
    parsed: bool = True
    response: Markup = field(default_factory=Markup)


def columns(shown: Example, key: str) -> list[Column]:
    """The columns of an example: image, ground truth, and one a model; `key` begins the ids of its pictures."""
    identity = shown.sample["sample_id"]
    keys = [f"{key}-{index}" for index in range(len(shown.images))]
    sizes = list(zip(shown.sample["height"], shown.sample["width"]))

    def draw(kind: str, masks: list[list[NDArray[np.bool_]]], dashed: bool) -> list[Markup]:
        return [
            pictures.svg(
                key, size, masks=own, truth=truth if dashed else (), instances=shown.instances,
                title=f"{kind} of {identity}",
            )
            for key, size, own, truth in zip(keys, sizes, masks, shown.truth)
        ]  # fmt: skip

    scenes = [
        pictures.svg(key, size, pictures.data_uri(path), title=f"image of {identity}")
        for key, size, path in zip(keys, sizes, shown.images)
    ]
    return [
        Column("image", scenes),
        Column("ground truth", draw("ground truth", shown.truth, False)),
        *(
            Column(
                LABELS.get(answer.model, answer.model),
                draw(f"prediction of {answer.model}", answer.masks, True),
                answer.model,
                f"{answer.reward:.2f}",
                answer.parsed,
                highlight(answer.response),
            )
            for answer in shown.answers
        ),
    ]
