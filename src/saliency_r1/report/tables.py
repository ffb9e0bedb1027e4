"""Numbers as cells: which measures are shown, which value is the best one, how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saliency_r1.report.read import LABELS, TITLES, Artifacts
from saliency_r1.runtime.messages import printable


@dataclass(frozen=True)
class Measure:
    """A column: the key in metrics.json, its heading, what it means, and whether less of it is better."""

    key: str
    title: str
    help: str
    lower: bool = False
    percent: bool = False

    def text(self, value: float) -> str:
        """A value as it stands in a table."""
        return f"{100 * value:.1f} %" if self.percent else f"{value:.3f}"


COMMON = (
    Measure("reward", "reward", "mean reward of the greedy responses"),
    Measure("parse_failures", "unparsed", "responses that do not follow the grammar and count as empty", True, True),
)
SALIENCY = (
    Measure("Sm", "Sm", "S-measure: structural similarity of map and ground truth"),
    Measure("maxFm", "max F", "F-measure (beta² = 0.3) at the best threshold"),
    Measure("meanFm", "mean F", "F-measure, mean over thresholds"),
    Measure("wFm", "wF", "weighted F-measure"),
    Measure("maxEm", "max E", "E-measure at the best threshold"),
    Measure("meanEm", "mean E", "E-measure, mean over thresholds"),
    Measure("IoU", "IoU", "intersection over union of the map above one half"),
    Measure("MAE", "MAE", "mean absolute error; lower is better", True),
    *COMMON,
)
INSTANCES = (
    Measure("AP", "AP", "COCO average precision, mean over IoU 0.50 to 0.95"),
    Measure("AP50", "AP50", "average precision at IoU 0.50"),
    Measure("AP70", "AP70", "average precision at IoU 0.70"),
    Measure("AP75", "AP75", "average precision at IoU 0.75"),
    Measure("AP50_constant", "AP50, equal scores", "AP50 when every instance has the same score"),
    *COMMON,
)
HEADLINE = {"sod": "Sm", "sis": "AP50", "cosod": "Sm"}


@dataclass(frozen=True)
class Cell:
    """One value with its interval, if it has one."""

    value: float | None
    text: str
    interval: str
    best: bool
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One model on one data set."""

    model: str
    label: str
    cells: list[Cell]


@dataclass(frozen=True)
class Block:
    """The rows of one data set."""

    dataset: str
    trained: bool  # whether training samples were taken from it
    samples: int
    rows: list[Row]


@dataclass(frozen=True)
class Table:
    """The results of one task."""

    task: str
    title: str
    measures: Sequence[Measure]
    blocks: list[Block]


@dataclass(frozen=True)
class Card:
    """The measure by which a task is summed up, on its first data set."""

    task: str
    title: str
    dataset: str
    measure: Measure
    rows: list[Row]


def measures_of(task: str) -> Sequence[Measure]:
    """The columns of a task's table."""
    return INSTANCES if task == "sis" else SALIENCY


def results(artifacts: Artifacts) -> list[Table]:
    """One table a task, one block a data set (those without training samples last), one row a model."""
    tables = []
    for task, names in artifacts.datasets.items():
        measures = measures_of(task)
        tables.append(Table(task, TITLES[task], measures, [_block(artifacts, name, measures) for name in names]))
    return tables


def cards(tables: Sequence[Table]) -> list[Card]:
    """The headline of each task."""
    found = []
    for table in tables:
        place = [measure.key for measure in table.measures].index(HEADLINE[table.task])
        block = table.blocks[0]
        rows = [Row(row.model, row.label, [row.cells[place]]) for row in block.rows]
        found.append(Card(table.task, table.title, block.dataset, table.measures[place], rows))
    return found


def markdown(tables: Sequence[Table], comparison: dict[str, dict[str, dict[str, float]]]) -> str:
    """The same tables for a terminal or a README; the best value of each column is bold."""
    parts = []
    for table in tables:
        head = ["data set", "model", *(measure.title for measure in table.measures)]
        lines = [f"**{table.title}**", "", _line(head), _line(["---", "---", *["---:"] * len(table.measures)])]
        for block in table.blocks:
            for row in block.rows:
                cells = (f"**{cell.text}**" if cell.best else cell.text for cell in row.cells)
                lines.append(_line([block.dataset, row.label, *cells]))
        parts.append("\n".join(lines))
    for pair, scopes in comparison.items():
        after, _, before = pair.partition("_over_")
        gain = scopes["overall"]
        interval = f"95 % interval {gain['low']:+.3f} to {gain['high']:+.3f}, " if "low" in gain else ""
        parts.append(
            f"{LABELS.get(after, after)} over {LABELS.get(before, before)}: mean test reward "
            f"{gain['before']:.3f} → {gain['after']:.3f}, difference {gain['difference']:+.3f} "
            f"({interval}paired over {gain['samples']} samples)."
        )
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    """A line of a Markdown table; a name with a bar or a line end in it stays one cell."""
    return f"| {' | '.join(printable(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _block(artifacts: Artifacts, dataset: str, measures: Sequence[Measure]) -> Block:
    columns = [_column(artifacts, dataset, measure) for measure in measures]
    rows = [
        Row(model, LABELS.get(model, model), [column[place] for column in columns])
        for place, model in enumerate(artifacts.models)
    ]
    samples = int(artifacts.metrics[artifacts.models[0]][dataset]["samples"])
    return Block(dataset, dataset in artifacts.trained, samples, rows)


def _column(artifacts: Artifacts, dataset: str, measure: Measure) -> list[Cell]:
    """One measure of every model; the best one is marked unless all are equal."""
    values = [artifacts.metrics[model][dataset].get(measure.key) for model in artifacts.models]
    known = [value for value in values if value is not None]
    best = None
    if len(set(known)) > 1:
        best = min(known) if measure.lower else max(known)
    cells = []
    for model, value in zip(artifacts.models, values):
        low, high = artifacts.intervals[model][dataset].get(measure.key, (None, None))
        if value is None:
            cells.append(Cell(None, "–", "", False))
            continue
        interval = f"{low:.3f} – {high:.3f}" if low is not None and high is not None else ""
        cells.append(Cell(value, measure.text(value), interval, value == best, low, high))
    return cells
