"""One table a data set: rows of the literature, rows measured here, task-specific methods, floors; in three formats.

    * scored by another protocol than this package's, or by one that the source does not state
    † on a part of the test set, which the row names
    ‡ on other pictures or masks than the floors, which are measured in every run

A cell of a model that was asked has the strict reading first and the lenient one in brackets, where the two differ. The
best strict value of those that were measured here on the same pictures and masks, floors and ceiling aside, is bold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from saliency_r1.benchmark.rows import Entry, Measured, slug
from saliency_r1.evaluation.published import datasets as published_datasets
from saliency_r1.evaluation.published import table as published_table
from saliency_r1.runtime.files import write_text
from saliency_r1.runtime.messages import printable

SMALL_IS_GOOD = {"MAE"}
MEASURES = ("Sm", "maxFm", "meanFm", "Fm", "maxEm", "meanEm", "Em", "wFm", "MAE")
OF_INSTANCES = ("AP", "AP50", "AP70", "AP75")
_ORDER = {"published": 0, "maps": 1, "model": 2, "ceiling": 3, "floor": 4}
_LABELS = {"published": "literature", "maps": "maps, measured here", "model": "asked here", "ceiling": "ceiling",
           "floor": "floor"}  # fmt: skip
_NOT_STATED = "not stated"  # as evaluation/published.yaml writes it
NOTES = (
    "* scored by another protocol than here, or by one that the source does not state: compare with care.",
    "† scored on a part of the test set.",
    "‡ scored in an earlier run, on other pictures or masks than the floors of this table.",
    "Measured here: SOD and CoSOD as PySODMetrics does, SIS as COCO does. Bold: the best of those measured here on the "
    "same pictures and masks, floors and ceiling aside.",
    "Of models that were asked: the strict reading of the answers first, in brackets the lenient one where it differs. "
    "Failures: refused / truncated / unparsed; each of them is scored as an empty map.",
)


@dataclass(frozen=True)
class Line:
    """A row of a table as text; `marks` are those of the notes, `best` says which cells are bold."""

    method: str
    marks: str
    kind: str
    cells: tuple[str, ...]
    images: str
    failures: str
    how: str
    best: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Table:
    """A benchmark: the columns that any of its rows fills, and the rows."""

    dataset: str
    measures: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings of all columns."""
        return ("method", *self.measures, "images", "failures", "kind", "how")

    @property
    def groups(self) -> list[tuple[str, list[Line]]]:
        """The rows of each kind, in order."""
        return [(kind, list(lines)) for kind, lines in groupby(self.lines, lambda line: line.kind)]

    def cells(self, line: Line, text: Callable[[str], str] = str, bold: str = "{}") -> tuple[str, ...]:
        """A row under the headings, as `text` writes what is in it; `bold` is put around what is best."""
        best = line.best or (False,) * len(line.cells)
        scores = [
            bold.format(text(cell)) if first else text(cell) for cell, first in zip(line.cells, best, strict=True)
        ]
        return (text(line.method + line.marks), *scores, *map(text, (line.images, line.failures, line.kind, line.how)))


def build(dataset: str, entries: Sequence[Entry]) -> Table:
    """The table of a data set from all rows that were measured on it and those of the literature."""
    here = [(entry, entry.datasets[dataset]) for entry in entries if dataset in entry.datasets]
    named = {name.lower(): name for name in published_datasets()}.get(dataset.lower())
    known = published_table(named) if named else []
    filled = {key for row in known for key in row.scores} | {key for _, one in here for key in one.strict["measures"]}
    measures = tuple(key for key in (*MEASURES, *OF_INSTANCES) if key in filled)
    here.sort(key=lambda pair: (_ORDER[pair[0].kind], *(-_goodness(pair[1], key) for key in measures), pair[0].name))
    lines = [
        Line(
            row.method,
            "" if row.comparable == "yes" else "*",
            _LABELS["published"],
            tuple(f"{row.scores[key]:.3f}" if key in row.scores else "" for key in measures),
            "",
            "",
            "; ".join(
                filter(
                    None,
                    (
                        row.source,
                        _stated("training data", row.training, "trained on "),
                        _stated("protocol", row.protocol),
                    ),
                )
            ),
        )
        for row in known
    ]
    rivals = [one for entry, one in here if entry.kind in ("maps", "model")]
    now = next((one.selection for entry, one in here if entry.kind in ("floor", "ceiling")), None)
    lines += [_line(entry, one, measures, rivals, now) for entry, one in here]
    return Table(dataset, measures, tuple(lines))


def _stated(what: str, text: str | None, before: str = "") -> str:
    """What a source says, or that it says nothing; nothing where that is not written down."""
    if text == _NOT_STATED:
        return f"{what} {text}"
    return f"{before}{text}" if text else ""


def _goodness(one: Measured, key: str) -> float:
    """The larger the better; below all others where there is none."""
    value = one.strict["measures"].get(key)
    if value is None:
        return float("-inf")
    return -value if key in SMALL_IS_GOOD else value


def _is_best(one: Measured, key: str, rivals: Sequence[Measured]) -> bool:
    """Whether nobody who was measured on the same pictures, as one of at least two, is better as it is shown."""
    own = [round(_goodness(rival, key), 3) for rival in rivals if rival.selection == one.selection]
    return one in rivals and len(own) > 1 and round(_goodness(one, key), 3) == max(own) > float("-inf")


def _line(entry: Entry, one: Measured, measures: Sequence[str], rivals: Sequence[Measured], now: str | None) -> Line:
    """A row that was measured; `now` is the selection of the floors."""
    part = one.images != one.of
    other = not part and now not in (None, one.selection)
    wrong = one.failures.get("strict", {})
    forgiven = one.failures.get("lenient", {})
    shown = " / ".join(_both(str(count), str(forgiven[kind])) for kind, count in wrong.items())
    return Line(
        entry.name,
        "†" * part + "‡" * other,
        _LABELS[entry.kind],
        tuple(_cell(one, key) for key in measures),
        f"{one.images} of {one.of}" if part else str(one.images),
        shown,
        _how(entry, one),
        tuple(_is_best(one, key, rivals) for key in measures),
    )


def _cell(one: Measured, key: str) -> str:
    strict, read = one.strict["measures"].get(key), one.lenient.get("measures", {}).get(key)
    if strict is None:
        return ""
    return f"{strict:.3f}" if read is None else _both(f"{strict:.3f}", f"{read:.3f}")


def _both(strict: str, read: str) -> str:
    return strict if strict == read else f"{strict} ({read})"


def _how(entry: Entry, one: Measured) -> str:
    about = entry.about
    shots = about.get("shots", {}).get(one.task, {})
    told = [f"{shots['shots']} shots ({shots['hash']})" if shots.get("shots") else "no shots"] if shots else []
    if about.get("plain"):
        told = ["plain instruction"]
    return "; ".join([*told, *(f"served as {name}" for name in about.get("served", ()))])


def markdown(table: Table) -> str:
    """The table as Markdown; a name with a bar or a line end in it stays one cell."""
    rows = [table.headings, ["---"] * len(table.headings)]
    rows += [table.cells(line, lambda cell: printable(cell).replace("|", "\\|"), "**{}**") for line in table.lines]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    notes = [f"- {note}".replace("*", "\\*") for note in NOTES]
    return "\n".join([f"# {table.dataset}", "", *lines, "", *notes, ""])


def html(table: Table) -> str:
    """The table as a page that needs no network; whatever a model is called is escaped."""
    from jinja2 import Environment

    template = (files("saliency_r1.benchmark") / "table.html").read_text("utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template).render(
        table=table, notes=NOTES, small=SMALL_IS_GOOD
    )  # fmt: skip


_LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "†": r"\dag{}", "*": r"$^{*}$",
    "‡": r"\ddag{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def latex(table: Table) -> str:
    """The table for a paper, with booktabs; what the last column of the others says is left to the text."""
    columns = len(table.headings) - 1
    rows = [" & ".join(table.cells(line, _escaped, r"\textbf{{{}}}")[:columns]) + r" \\" for line in table.lines]
    return "\n".join(
        [
            f"% {printable(table.dataset)}",
            rf"\begin{{tabular}}{{l{'r' * (columns - 2)}l}}",
            r"\toprule",
            " & ".join(map(_escaped, table.headings[:columns])) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            *(f"% {note}" for note in NOTES),
            "",
        ]
    )


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in printable(text))


def write(table: Table, out: Path) -> list[Path]:
    """Write the table in all formats below a folder and return where."""
    paths = [out / f"{slug(table.dataset)}.{end}" for end in ("md", "html", "tex")]
    for path, text in zip(paths, (markdown(table), html(table), latex(table)), strict=True):
        write_text(path, text)
    return paths
