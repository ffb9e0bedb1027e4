"""The page itself: sections filled with tables, plots and pictures, and written beside a table and an overview."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from saliency_r1.params import Params
from saliency_r1.report import calibration, plots
from saliency_r1.report.examples import REASONS, Example, columns, examples
from saliency_r1.report.lineage import lineage
from saliency_r1.report.overview import write_overview
from saliency_r1.report.read import LABELS, TASKS, Artifacts
from saliency_r1.report.response import highlight
from saliency_r1.report.tables import Table, cards, markdown, results

_TRAININGS = {"sft": "Supervised fine-tuning", "cgpo": "Confidence-guided policy optimisation"}


def build(artifacts: Path, folder: Path, params: Params, root: Path = Path()) -> None:
    """Write `index.html`, `results.md` and `overview.png` into an existing folder.

    `root` is where params.yaml, dvc.lock and the git repository are looked for. Equal inputs give equal files.
    """
    source = Artifacts(artifacts, params.masks.split)
    shown = {task: examples(source, task, params.report.examples) for task in source.datasets}
    tables = results(source)
    (folder / "index.html").write_text(render(source, tables, shown, params, root), encoding="utf-8")
    (folder / "results.md").write_text(markdown(tables, source.comparison), encoding="utf-8")
    write_overview([example for found in shown.values() for example in _two(found)], folder / "overview.png")


def render(
    source: Artifacts, tables: Sequence[Table], shown: dict[str, list[Example]], params: Params, root: Path
) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("saliency_r1.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        style=Markup(style),
        labels=LABELS,
        tasks=TASKS,
        params=params,
        models=source.models,
        tables=tables,
        cards=cards(tables),
        comparison=_comparison(source),
        trainings=[(stage, title, _training(source, stage)) for stage, title in _TRAININGS.items()],
        calibration=_calibration(source),
        precision_recall=[plots.precision_recall(source.curves, name) for name in _unique(source.curves, "dataset")],
        examples={
            task: [(example, columns(example, f"{task}-{place}")) for place, example in enumerate(found)]
            for task, found in shown.items()
        },
        reasons=REASONS,
        annotations=_annotations(source.annotations),
        consistency=plots.consistency(source.annotations),
        checks=source.checks,
        lineage=lineage(root),
    )


def _training(source: Artifacts, stage: str) -> list[Markup]:
    return plots.training(source.training_curves(stage), stage)


def _calibration(source: Artifacts) -> dict[str, Any]:
    """Confidence against reward, of the responses near the end of CGPO."""
    table = calibration.last_rollouts(source.rollouts)
    bins = calibration.reliability(table)
    types = calibration.response_types(table)
    for row in types:
        row["text"] = highlight(row["example"]["response"]) if row["example"] else ""
    return {
        "plot": plots.calibration(bins, "cgpo"),
        "error": calibration.expected_calibration_error(bins),
        "responses": len(table),
        "types": types,
    }


def _comparison(source: Artifacts) -> list[dict[str, Any]]:
    """The paired comparisons, the last training step first."""
    return [
        {"after": after, "before": before, "scopes": scopes, "plot": plots.gains(scopes, _colour(after))}
        for pair, scopes in reversed(source.comparison.items())
        for after, _, before in [pair.partition("_over_")]
    ]


def _colour(model: str) -> str:
    return model if model in plots.STAND_IN else "accent"


def _annotations(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Counts, consistency and wording of the annotations, by task; the wording is that of the kept ones."""
    words = pl.col("response").filter("kept").str.replace_all(r"<[^>]+>", " ").str.extract_all(r"\w+")
    return (
        table.group_by("task")
        .agg(
            samples=pl.len(),
            kept=pl.col("kept").mean(),
            consistency=pl.col("consistency").filter("kept").mean(),
            rewritten=(pl.col("attempts") > 1).mean(),
            expressions=pl.col("expressions").filter("kept").list.len().mean(),
            words=words.list.len().mean(),
            vocabulary=words.explode().str.to_lowercase().n_unique(),
            repeated=1 - pl.col("response").filter("kept").n_unique() / pl.col("kept").sum(),
        )
        .sort(pl.col("task").replace_strict({task: place for place, task in enumerate(TASKS)}, default=len(TASKS)))
        .to_dicts()
    )


def _unique(table: pl.DataFrame, column: str) -> list[str]:
    return table[column].unique(maintain_order=True).to_list()


def _two(found: list[Example]) -> list[Example]:
    """Two examples of a task that say most in little room: the largest gain and the most ordinary one."""
    picked = [next((item for item in found if item.reason == reason), None) for reason in ("gain", "typical")]
    return [item for item in picked if item is not None]
