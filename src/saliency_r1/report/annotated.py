"""What the annotator wrote, beside the ground truth it wrote from: a section of the report, or a page of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from saliency_r1 import cot
from saliency_r1.data.samples import read_masks
from saliency_r1.names import TASKS
from saliency_r1.report import pictures, plots
from saliency_r1.report.examples import regions
from saliency_r1.report.read import TITLES
from saliency_r1.report.response import highlight
from saliency_r1.report.template import render
from saliency_r1.runtime.files import write_text

REASONS = {"aside": "set aside", "lowest": "lowest consistency kept", "typical": "typical"}


@dataclass(frozen=True)
class Annotated:
    """An annotated sample as it is shown: its pictures, its ground truth on them, and what was written."""

    sample_id: str
    reason: str
    consistency: str
    images: list[Markup]
    truth: list[Markup]
    response: Markup


def write_page(download: Path, annotate: Path, out: Path, count: int) -> None:
    """Write a page of `count` annotations of each task, from the folders of the two stages."""
    samples = {row["sample_id"]: row for row in pl.read_parquet(download / "table.parquet").iter_rows(named=True)}
    table = pl.read_parquet(annotate / "table.parquet")
    write_text(out, render("annotations.html", **section(table, samples, download, count)))


def section(table: pl.DataFrame, samples: dict[str, dict[str, Any]], download: Path, count: int) -> dict[str, Any]:
    """What `annotated.html` asks for: counts by task, the histogram of consistency, and examples."""
    shown = {task: chosen(table, task, count) for task in TASKS if task in set(table["task"])}
    return {
        "tasks": TITLES,
        "annotations": summary(table, samples),
        "consistency": plots.consistency(table),
        "annotated": {
            task: [
                _show(samples[row["sample_id"]], row, reason, download, f"annotated-{task}-{place}")
                for place, (reason, row) in enumerate(found)
            ]
            for task, found in shown.items()
        },
        "annotated_reasons": REASONS,
    }


def summary(table: pl.DataFrame, samples: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Counts, consistency and wording of the annotations, by task; validity and wording are those of the kept ones."""
    valid = [
        cot.parse(row["response"], row["task"], len(samples[row["sample_id"]]["images"])).ok if row["kept"] else None
        for row in table.iter_rows(named=True)
    ]
    words = pl.col("response").filter("kept").str.replace_all(r"<[^>]+>", " ").str.extract_all(r"\w+")
    return (
        table.with_columns(valid=pl.Series(valid, dtype=pl.Boolean))
        .group_by("task")
        .agg(
            samples=pl.len(),
            kept=pl.col("kept").mean(),
            consistency=pl.col("consistency").filter("kept").mean(),
            valid=pl.col("valid").mean(),
            rewritten=(pl.col("attempts") > 1).mean(),
            expressions=pl.col("expressions").filter("kept").list.len().mean(),
            words=words.list.len().mean(),
            vocabulary=words.explode().str.to_lowercase().n_unique(),
            repeated=1 - pl.col("response").filter("kept").n_unique() / pl.col("kept").sum(),
        )
        .sort(pl.col("task").replace_strict({task: place for place, task in enumerate(TASKS)}, default=len(TASKS)))
        .to_dicts()
    )


def chosen(table: pl.DataFrame, task: str, count: int) -> list[tuple[str, dict[str, Any]]]:
    """(reason, row) of `count` annotations: up to a third set aside, a third the least consistent, the rest typical.

    Typical are those nearest to the median consistency of what was kept.
    """
    kept = pl.col("kept")
    own = table.filter(task=task).with_columns(
        distance=(pl.col("consistency") - pl.col("consistency").filter(kept).median()).abs()
    )
    aside = own.filter(~kept).sort("consistency", "sample_id").head(count // 3)
    lowest = own.filter(kept).sort("consistency", "sample_id").head(count // 3)
    rest = own.filter(kept, ~pl.col("sample_id").is_in(lowest["sample_id"].to_list()))
    typical = rest.sort("distance", "sample_id").head(count - len(aside) - len(lowest))
    found = {"typical": typical, "lowest": lowest, "aside": aside}
    return [(reason, row) for reason, rows in found.items() for row in rows.iter_rows(named=True)]


def _show(sample: dict[str, Any], row: dict[str, Any], reason: str, download: Path, key: str) -> Annotated:
    truth = [regions(mask, sample["task"]) for mask in read_masks(sample, download)]
    places = list(zip(range(len(truth)), sample["images"], sample["height"], sample["width"]))
    return Annotated(
        sample["sample_id"],
        reason,
        f"{row['consistency']:.2f}",
        [
            pictures.svg(f"{key}-{place}", (height, width), pictures.data_uri(download / path), title=path)
            for place, path, height, width in places
        ],
        [
            pictures.svg(
                f"{key}-{place}", (height, width), masks=truth[place], instances=sample["task"] == "sis",
                title=f"ground truth of {path}",
            )
            for place, path, height, width in places
        ],
        highlight(row["response"]) if row["response"] else Markup("nothing that could be read"),
    )  # fmt: skip
