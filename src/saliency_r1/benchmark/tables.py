"""One table a data set: rows of the literature, rows measured here, task-specific methods, floors; in three formats.

    * scored by another protocol than this package's, or by one that the source does not state
    † on a part of the test set, which the row names

A cell of a model that was asked has the strict reading first and the lenient one in brackets, where the two differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from saliency_r1.benchmark.rows import Entry, Measured, slug
from saliency_r1.evaluation.published import datasets as published_datasets
from saliency_r1.evaluation.published import table as published_table
from saliency_r1.runtime.files import write_text
from saliency_r1.runtime.messages import printable

MEASURES = ("Sm", "maxFm", "meanFm", "Fm", "maxEm", "meanEm", "Em", "wFm", "MAE")
OF_INSTANCES = ("AP", "AP50", "AP70", "AP75")
_ORDER = {"published": 0, "maps": 1, "model": 2, "ceiling": 3, "floor": 4}
_LABELS = {"published": "literature", "maps": "maps, measured here", "model": "asked here", "ceiling": "ceiling",
           "floor": "floor"}  # fmt: skip
NOTES = (
    "* scored by another protocol than here, or by one that the source does not state: compare with care.",
    "† scored on a part of the test set.",
    "Of models that were asked: the strict reading of the answers first, in brackets the lenient one where it differs. "
    "Failures: refused / truncated / unparsed; each of them is scored as an empty map.",
)


@dataclass(frozen=True)
class Line:
    """A row of a table as text; `marks` are those of the notes."""

    method: str
    marks: str
    kind: str
    cells: tuple[str, ...]
    images: str
    failures: str
    how: str


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

    def cells(self, line: Line) -> tuple[str, ...]:
        """A row under the headings."""
        return (line.method + line.marks, *line.cells, line.images, line.failures, line.kind, line.how)


def build(dataset: str, entries: Sequence[Entry]) -> Table:
    """The table of a data set from all rows that were measured on it and those of the literature."""
    here = sorted(
        ((entry, entry.datasets[dataset]) for entry in entries if dataset in entry.datasets),
        key=lambda pair: (_ORDER[pair[0].kind], pair[0].name),
    )
    named = {name.lower(): name for name in published_datasets()}.get(dataset.lower())
    known = published_table(named) if named else []
    filled = {key for row in known for key in row.scores} | {key for _, one in here for key in one.strict["measures"]}
    measures = tuple(key for key in (*MEASURES, *OF_INSTANCES) if key in filled)
    lines = [
        Line(
            row.method,
            "" if row.comparable == "yes" else "*",
            _LABELS["published"],
            tuple(f"{row.scores[key]:.3f}" if key in row.scores else "" for key in measures),
            "",
            "",
            "; ".join(filter(None, (row.source, row.training and f"trained on {row.training}", row.protocol))),
        )
        for row in known
    ]
    lines += [_line(entry, one, measures) for entry, one in here]
    return Table(dataset, measures, tuple(lines))


def _line(entry: Entry, one: Measured, measures: Sequence[str]) -> Line:
    part = one.images != one.of
    wrong = one.failures.get("strict", {})
    forgiven = one.failures.get("lenient", {})
    shown = " / ".join(_both(str(count), str(forgiven[kind])) for kind, count in wrong.items())
    return Line(
        entry.name,
        "†" * part,
        _LABELS[entry.kind],
        tuple(_cell(one, key) for key in measures),
        f"{one.images} of {one.of}" if part else str(one.images),
        shown,
        _how(entry, one),
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
    told = [f"{shots['shots']} shots ({shots['hash']})" if shots.get("shots") else "0 shots"] if shots else []
    told += ["plain instruction"] * bool(about.get("plain"))
    told += [f"served as {name}" for name in about.get("served", ())]
    return "; ".join([*told, *(["pysodmetrics"] if one.task != "sis" else ["COCO"])])


def markdown(table: Table) -> str:
    """The table as Markdown; a name with a bar or a line end in it stays one cell."""
    rows = [table.headings, ["---"] * len(table.headings), *map(table.cells, table.lines)]
    lines = [f"| {' | '.join(printable(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    notes = [f"- {note}".replace("*", "\\*") for note in NOTES]
    return "\n".join([f"# {table.dataset}", "", *lines, "", *notes, ""])


def html(table: Table) -> str:
    """The table as a page that needs no network; whatever a model is called is escaped."""
    from jinja2 import Environment

    template = (files("saliency_r1.benchmark") / "table.html").read_text("utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template).render(
        table=table, notes=NOTES
    )  # fmt: skip


_LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "†": r"\dag{}", "*": r"$^{*}$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def latex(table: Table) -> str:
    """The table for a paper, with booktabs; what the last column of the others says is left to the text."""
    columns = len(table.headings) - 1
    rows = [" & ".join(map(_escaped, table.cells(line)[:columns])) + r" \\" for line in table.lines]
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
