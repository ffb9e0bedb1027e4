"""The page itself: sections filled with tables, plots and pictures, and written beside a table and an overview."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from saliency_r1.params import Params
from saliency_r1.report import annotated, calibration, plots, template
from saliency_r1.report.examples import REASONS, Example, columns, examples
from saliency_r1.report.lineage import lineage
from saliency_r1.report.overview import write_overview
from saliency_r1.report.read import LABELS, Artifacts
from saliency_r1.report.response import highlight
from saliency_r1.report.tables import Table, cards, markdown, results

_TRAININGS = {"sft": "Supervised fine-tuning", "cgpo": "Confidence-guided policy optimisation"}


def build(artifacts: Path, folder: Path, params: Params, root: Path = Path()) -> None:
    """Write `index.html`, `results.md` and `overview.png` into an existing folder.

    `root` is where params.yaml and dvc.lock are looked for. Equal inputs give equal files.
    """
    source = Artifacts(artifacts)
    shown = {task: examples(source, task, params.report.examples) for task in source.datasets}
    tables = results(source)
    (folder / "index.html").write_text(render(source, tables, shown, params, root), encoding="utf-8")
    (folder / "results.md").write_text(markdown(tables, source.comparison), encoding="utf-8")
    write_overview([example for found in shown.values() for example in _two(found)], folder / "overview.png")


def render(
    source: Artifacts, tables: Sequence[Table], shown: dict[str, list[Example]], params: Params, root: Path
) -> str:
    """The page as text."""
    return template.render(
        "page.html",
        labels=LABELS,
        params=params,
        models=source.models,
        tables=tables,
        cards=cards(tables),
        all_trained=all(block.trained for table in tables for block in table.blocks),
        comparison=_comparison(source),
        trainings=[(stage, title, _training(source, stage)) for stage, title in _TRAININGS.items()],
        calibration=_calibration(source),
        precision_recall=[plots.precision_recall(source.curves, name) for name in _unique(source.curves, "dataset")],
        examples={
            task: [(example, columns(example, f"{task}-{place}")) for place, example in enumerate(found)]
            for task, found in shown.items()
        },
        reasons=REASONS,
        **annotated.section(source.annotations, source.samples, source.root / "download", params.report.examples),
        checks=source.checks,
        lineage=lineage(root, source.root),
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


def _unique(table: pl.DataFrame, column: str) -> list[str]:
    return table[column].unique(maintain_order=True).to_list()


def _two(found: list[Example]) -> list[Example]:
    """Two examples of a task that say most in little room: the largest gain and the most ordinary one."""
    picked = [next((item for item in found if item.reason == reason), None) for reason in ("gain", "typical")]
    return [item for item in picked if item is not None]
