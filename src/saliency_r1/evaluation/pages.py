"""An evaluation as a picture of its curves and as one page that needs no network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from saliency_r1.evaluation.published import Row
from saliency_r1.evaluation.results import FolderResult
from saliency_r1.evaluation.shown import Gallery
from saliency_r1.metrics.resampling import Difference
from saliency_r1.runtime.files import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_curves(results: list[FolderResult], format: str = "svg") -> bytes:
    """Precision by recall, and F and E by threshold, of all results side by side.

    `format` is one that matplotlib writes (svg, png, pdf).
    """
    from matplotlib import rc_context

    buffer = BytesIO()
    # A name is no formula, whatever `$\\frac{$` looks like; letters that the font lacks are boxes and worth no warning.
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        # Without a date equal results make equal files.
        _figure(results).savefig(buffer, format=format, metadata={"Date": None} if format == "svg" else None)
    return buffer.getvalue()


def _figure(results: list[FolderResult]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    drawn = [result for result in results if result.curves]
    for panel, (x, y) in zip(panels, (("recall", "precision"), ("threshold", "F"), ("threshold", "E"))):
        lines = []
        for curves in (result.curves for result in drawn if result.curves):
            across = curves.recall if x == "recall" else curves.thresholds
            lines += panel.plot(across, getattr(curves, y))
        panel.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
        panel.grid(alpha=0.3)
        if panel is panels[0] and lines:
            # Named here: a label that begins with an underscore would be left out of a legend made of labels.
            panel.legend(lines, [result.name for result in drawn], loc="lower left", frameon=False)
    return figure


def write_curves(results: list[FolderResult], path: Path) -> None:
    """Write the picture of the curves, in the format of the file's suffix."""
    with replacing(path) as aside:
        aside.write_bytes(draw_curves(results, path.suffix.lstrip(".") or "png"))


def write_page(
    results: list[FolderResult],
    comparison: Mapping[str, Difference],
    published: list[Row],
    dataset: str | None,
    path: Path,
    gallery: Gallery | None = None,
) -> None:
    """Write the page; `published` may be empty, and without a gallery it has no pictures of images."""
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
            gallery=gallery,
            keys=list(dict.fromkeys(key for row in published for key in row.scores if not row.own)),
            # The picture is markup of our own making; its XML header has no place inside of a page.
            picture=picture[picture.find("<svg") :] if picture else "",
        )
    )
    write_text(path, page)
