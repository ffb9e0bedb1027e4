"""`saliency-r1 evaluate`: score a folder of maps against a folder of ground truths."""

import math
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saliency_r1.cli.errors import command, require
from saliency_r1.names import ScoreSource, TaskName

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from saliency_r1.evaluation.published import Row
    from saliency_r1.evaluation.results import FolderResult
    from saliency_r1.metrics.resampling import Difference


class Missing(StrEnum):
    """What becomes of an image without a usable prediction."""

    error = "error"
    zero = "zero"


class Empty(StrEnum):
    """F, IoU and Dice where the ground truth is empty."""

    zero = "zero"
    agree = "agree"


def _value(text: str) -> int:
    """A value of a pixel as people write it: 255, 0xE0E0C0."""
    try:
        value = int(text, 0)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no value of a pixel; write 255, or 0xE0E0C0 for a colour") from None
    if not 0 < value <= 0xFFFFFF:
        raise typer.BadParameter(f"{text} is no value of a pixel that is not background, expected 1 to 0xFFFFFF")
    return value


@command("pages")
def evaluate(
    pred: Annotated[Path, typer.Option(help="predictions: a folder of maps; for sis also a COCO result file")],
    gt: Annotated[Path, typer.Option(help="ground truths: a folder of masks; for sis also a COCO file")],
    task: Annotated[TaskName, typer.Option(help="cosod: a folder a group")] = "sod",
    compare: Annotated[
        Path | None, typer.Option(help="a second folder of predictions, compared image by image")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="write the numbers and curves here")] = None,
    html: Annotated[Path | None, typer.Option(help="write a page here")] = None,
    gallery: Annotated[
        int, typer.Option(min=0, help="with --html: so many of the worst and of the most changed images")
    ] = 8,
    images: Annotated[Path | None, typer.Option(help="folder of the pictures, to show beside their masks")] = None,
    coco: Annotated[Path | None, typer.Option(help="write masks and measures as a COCO data set here")] = None,
    parquet: Annotated[Path | None, typer.Option(help="write one row an image here")] = None,
    plot: Annotated[Path | None, typer.Option(help="write the PR, F and E curves here (.png, .svg, .pdf)")] = None,
    missing: Annotated[
        Missing, typer.Option(help="stop at, or score as empty maps, what has no prediction")
    ] = Missing.error,
    resize: Annotated[bool, typer.Option(help="stretch predictions to the size of the ground truth")] = False,
    dataset: Annotated[str | None, typer.Option(help="e.g. ECSSD: check the count, show published results")] = None,
    score_source: Annotated[
        Literal[ScoreSource, "unknown"], typer.Option(help="sis: where the scores come from, as masks.score")
    ] = "unknown",
    bootstrap: Annotated[int, typer.Option(min=0, help="replicates for the intervals, 0 for none")] = 1000,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    prefix: Annotated[
        str, typer.Option(help="what the names of predictions begin with beyond those of the masks")
    ] = "",
    suffix: Annotated[str, typer.Option(help="what they end with, before the extension")] = "",
    stretch: Annotated[bool, typer.Option(help="stretch every map to [0, 1] first, as PySODMetrics does")] = True,
    thresholds: Annotated[int, typer.Option(min=2, help="256 as PySODMetrics, 255 as the CoSOD evaluators")] = 256,
    empty: Annotated[
        Empty | None,
        typer.Option(
            help="an empty ground truth gives F 0 (the default), or 1 if the map is empty; said, masks that lie below "
            "the threshold are empty, and all of them may be",
            show_default=False,
        ),
    ] = None,
    gt_threshold: Annotated[int, typer.Option(min=0, max=254, help="foreground is above this")] = 128,
    void: Annotated[
        int | None,
        typer.Option(
            parser=_value,
            metavar="VALUE",
            help="ground truth pixels of this value (palette index, 0xRRGGBB in colours) are not scored",
        ),
    ] = None,
) -> None:
    """Score saliency maps or instances as the field does, and refuse to score a part of a data set."""
    if task == "sis" and (resize or plot):
        option = "--resize" if resize else "--plot"
        raise typer.BadParameter(f"{option} is for maps, and sis has instances: leave it out")
    if compare and not bootstrap:
        raise typer.BadParameter("--compare takes its differences from replicates: leave --bootstrap 0 out")
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from saliency_r1.evaluation.folders import predicted
    from saliency_r1.evaluation.outputs import check_outputs, check_plot
    from saliency_r1.evaluation.pages import write_curves, write_page
    from saliency_r1.evaluation.results import Settings, among_published, evaluate_folders, write_json, write_rows
    from saliency_r1.evaluation.shown import find_pictures, material, write_coco
    from saliency_r1.evaluation.shown import gallery as choose_images
    from saliency_r1.metrics import Protocol
    from saliency_r1.runtime.messages import printable

    require(*["jinja2"] * bool(html), *["matplotlib"] * bool(html or plot), *["polars"] * bool(parquet))
    console = Console(markup=False, emoji=False)  # a folder may be called [red] or :cat:
    protocol = Protocol(
        stretch=stretch,
        thresholds=thresholds,
        empty=(empty or Empty.zero).value,
        gt_threshold=gt_threshold,
        void=void,
    )
    settings = Settings(
        task=task,
        protocol=protocol,
        missing=missing.value,
        resize=resize,
        dataset=dataset,
        bootstrap=bootstrap,
        workers=workers,
        prefix=prefix,
        suffix=suffix,
        score_source=score_source,
        may_be_empty=empty is not None,
    )
    given = [pred] + ([compare] if compare else [])
    folders = [predicted(folder) for folder in given]
    check_outputs(
        [path for path in (json, html, parquet, plot, coco) if path], [*folders, gt, *([images] if images else [])]
    )
    if plot:
        check_plot(plot)
    pictures = find_pictures(images, gt) if images else {}  # now: a wrong folder costs no evaluation
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        lines = [bar.add_task(escape(printable(folder.name)), total=None) for folder in given]
        results = [
            evaluate_folders(folder, gt, settings, partial(_advance, bar, line)) for folder, line in zip(folders, lines)
        ]
    for result, name in zip(results, _distinct(given)):
        result.name = printable(name)
    comparison = results[0].compare(results[1]) if compare else {}
    published = among_published(results, dataset) if dataset else []
    # Before any file is written: no full disk takes the numbers away.
    _print(console, results, comparison)
    if published:
        _print_published(console, published)
    if json:
        write_json(results, comparison, json)
    shown = material(folders, gt, settings, pictures) if (html and gallery) or coco else None
    if html:
        chosen = choose_images(results, shown, gallery) if shown and gallery else None
        write_page(results, comparison, published, dataset, html, chosen)
    if shown and coco:
        write_coco(results, shown, coco)
    if parquet:
        write_rows(results, parquet)
    if plot:
        write_curves(results, plot)


def _advance(bar: "Progress", line: "TaskID", done: int, total: int) -> None:
    bar.update(line, completed=done, total=total)


def _distinct(folders: list[Path]) -> list[str]:
    """The last part of each path that is not the same in all of them."""
    for names in zip(*(reversed(folder.resolve().parts) for folder in folders)):
        if len(set(names)) == len(folders):
            return list(names)
    return [str(folder) for folder in folders]


def _print(console: "Console", results: "list[FolderResult]", comparison: "dict[str, Difference]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    for result in results:
        notes = [f"{result.images} images", *(f"{count} {what}" for what, count in result.counts.items())]
        notes.append(f"protocol {result.protocol}")
        notes += [f"scores from {result.score_source}"] * bool(result.score_source)
        notes += [f"{result.scored_as_empty} predictions scored as empty maps"] * bool(result.scored_as_empty)
        notes += [f"{result.resized} stretched to the size of the ground truth"] * bool(result.resized)
        console.print(f"{result.name}: {', '.join(notes)}", highlight=False)
    headings = ["measure"]
    for result in results:
        headings += [result.name, *["95 %"] * bool(result.intervals), *["by group"] * bool(result.per_group)]
    headings += ["change", "95 %", "p"] * bool(comparison)
    # Two results side by side fit into 80 columns; where names are too long, they go on in a second line.
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        interval = heading == "95 %"
        style = "dim" if interval else None
        table.add_column(heading, justify="right" if place else "left", style=style, overflow="fold", no_wrap=interval)
    for key in results[0].measures:
        cells = [key]
        for result in results:
            cells.append(_score(result.measures[key]))
            if result.intervals:
                cells.append(_interval(*result.intervals[key]) if key in result.intervals else "")
            if result.per_group:
                cells.append(f"{result.per_group[key]:.4f}")
        if comparison:
            change = comparison.get(key)
            cells += (
                [f"{change.value:+.4f}", _interval(change.low, change.high), f"{change.p:.3f}"] if change else [""] * 3
            )
        table.add_row(*cells)
    console.print(table)


def _score(value: float) -> str:
    """A measure; a dash where there is none, as AP of pictures without an instance."""
    return f"{value:.4f}" if math.isfinite(value) else "–"


def _interval(low: float, high: float) -> str:
    """An interval in few characters: .899–.950."""
    return "–".join(f"{value:.3f}".replace("0.", ".", 1) for value in (low, high))


def _print_published(console: "Console", rows: "list[Row]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    keys = list(dict.fromkeys(key for row in rows for key in row.scores if not row.own))
    sources = list(dict.fromkeys(row.source for row in rows if not row.own))
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for heading in ("method", *keys, "training", "source"):
        table.add_column(heading, justify="right" if heading in keys else "left", overflow="fold")
    for row in rows:
        scores = [f"{row.scores[key]:.3f}" if key in row.scores else "" for key in keys]
        mark = "" if row.comparable == "yes" else " *"
        source = "here" if row.own else str(sources.index(row.source) + 1)
        table.add_row(row.method + mark, *scores, row.training, source, style="bold" if row.own else None)
    console.print(table)
    console.print(" * scored by another protocol, or by one that the source does not state", style="dim")
    for number, source in enumerate(sources, 1):
        console.print(f" {number} {source}", style="dim", highlight=False)
