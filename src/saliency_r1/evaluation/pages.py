"""An evaluation as a picture of its curves and as one page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from io import BytesIO
from pathlib import Path

from saliency_r1.evaluation.published import Row
from saliency_r1.evaluation.results import FolderResult
from saliency_r1.metrics.resampling import Difference


def draw_curves(results: list[FolderResult], format: str = "svg") -> bytes:
    """Precision by recall, and F and E by threshold, of all results side by side.

    `format` is one that matplotlib writes (svg, png, pdf).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, (x, y) in zip(panels, (("recall", "precision"), ("threshold", "F"), ("threshold", "E"))):
        for result in results:
            if result.curves:
                across = result.curves.recall if x == "recall" else result.curves.thresholds
                panel.plot(across, getattr(result.curves, y), label=result.name)
        panel.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
        panel.grid(alpha=0.3)
    panels[0].legend(loc="lower left", frameon=False)
    buffer = BytesIO()
    # Without a date equal results make equal files.
    figure.savefig(buffer, format=format, metadata={"Date": None} if format == "svg" else None)
    return buffer.getvalue()


def write_page(
    results: list[FolderResult],
    comparison: Mapping[str, Difference],
    published: list[Row],
    dataset: str | None,
    path: Path,
) -> None:
    """Write the page; `published` may be empty."""
    from jinja2 import Environment

    template = (files("saliency_r1.evaluation") / "page.html").read_text("utf-8")
    picture = draw_curves(results).decode() if any(result.curves for result in results) else ""
    page = (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(template)
        .render(
            results=results,
            comparison=comparison,
            published=published,
            dataset=dataset,
            keys=list(dict.fromkeys(key for row in published for key in row.scores if not row.own)),
            # The picture is markup of our own making; its XML header has no place inside of a page.
            picture=picture[picture.find("<svg") :] if picture else "",
        )
    )
    path.write_text(page, encoding="utf-8")
