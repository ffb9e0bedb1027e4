"""One benchmark: answers, maps, scores, rows, tables; floors and ceilings beside them.

What is paid for is written down at once and never asked twice: answers below `<kept>/spoken`, a server's good ones
below `<kept>/answers` as well, maps below `<kept>/maps`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from saliency_r1.benchmark import measure
from saliency_r1.benchmark.answers import Journal, Said, Speaker
from saliency_r1.benchmark.errors import BenchmarkError
from saliency_r1.benchmark.floors import FLOORS
from saliency_r1.benchmark.lenient import lenient
from saliency_r1.benchmark.prompts import Row
from saliency_r1.benchmark.rows import Entry, Measured, selection, slug
from saliency_r1.chat import cost
from saliency_r1.rollout.environment import Environment
from saliency_r1.runtime.stage import progress


@dataclass(frozen=True)
class Benchmark:
    """What is measured, with what: samples by data set, and the numbers of images that the whole data sets have."""

    samples: dict[str, list[Row]]
    of: dict[str, int]
    environment: Environment
    settings: Mapping[str, Any]
    kept: Path
    out: Path

    @cached_property
    def key(self) -> str:
        """See `measure.key_of`."""
        return measure.key_of(self.environment, self.settings)

    @cached_property
    def selections(self) -> dict[str, str]:
        """What is scored of each data set (see `rows.selection`); the files are read once."""
        return {name: selection(rows, self.environment.folder) for name, rows in self.samples.items()}

    @property
    def rows(self) -> list[Row]:
        """All samples."""
        return [row for rows in self.samples.values() for row in rows]

    def measured(self, rows: Sequence[Row], strict: dict[str, Any], **more: Any) -> Measured:
        """What is known of one row of a table on one data set."""
        first, dataset = rows[0], rows[0]["dataset"]
        images = sum(len(row["names"]) for row in rows)
        return Measured(dataset, first["task"], images, self.of[dataset], self.selections[dataset], strict, **more)

    def score(self, name: str, rows: Sequence[Row], texts: Sequence[str]) -> dict[str, Any]:
        """Ground some answers to a data set and score them; their maps go to `<out>/<name>/<data set>`."""
        parts = measure.ground(rows, texts, self.environment, self.kept / "maps", self.key)
        place = self.out / slug(name) / rows[0]["dataset"]
        return measure.summary(measure.scores(rows, self.environment.folder, parts, place))


def ask(speaker: Speaker, rows: Sequence[Row], journal: Journal) -> list[Said]:
    """The answers to all samples, from the journal or the speaker. Raises `BenchmarkError` where one is missing."""
    missing = [row for row in rows if journal.find(row) is None]
    lost = speaker.answer(missing, journal.keep) if missing else []
    answers = [journal.find(row) for row in rows]
    if lost:
        reasons = "; ".join(f"{text} ({count} times)" for text, count in Counter(lost).most_common(3))
        raise BenchmarkError(
            f"the run is not complete: {len(lost)} of {len(rows)} answers are missing (transport). {reasons}. What was "
            "answered is kept; run again to go on"
        )
    return [answer for answer in answers if answer is not None]


def measure_model(bench: Benchmark, name: str, answers: Sequence[Said], about: dict[str, Any]) -> Entry:
    """The row of a model that has answered all samples, by the strict and the lenient reading."""
    given = iter(answers)
    entry = Entry(name, "model", about)
    for dataset, rows in bench.samples.items():
        own = [next(given) for _ in rows]
        strict = [answer.scored for answer in own]
        read = [
            lenient(text, row["task"], len(row["images"])) for row, answer, text in zip(rows, own, strict, strict=True)
        ]
        entry.datasets[dataset] = bench.measured(
            rows,
            bench.score(name, rows, strict),
            lenient=bench.score(f"{name}.lenient", rows, read),
            failures={"strict": measure.failures(rows, own, strict), "lenient": measure.failures(rows, own, read)},
        )
    entry.write(bench.out)
    return entry


def measure_floors(bench: Benchmark) -> None:
    """The rows that no model is behind, one for each of `FLOORS`."""
    for name, (kind, answer) in FLOORS.items():
        entry = Entry(name, kind)
        for dataset, rows in bench.samples.items():
            texts = [answer(row, bench.environment.folder) for row in progress(rows, label=f"{name} on {dataset}")]
            entry.datasets[dataset] = bench.measured(rows, bench.score(name, rows, texts))
        entry.write(bench.out)


def measure_maps(bench: Benchmark, name: str, folder: Path) -> None:
    """The row of somebody else's maps.

    Their whole folder is what tells two runs of one name apart; no table shows it.
    """
    entry = Entry(name, "maps", {"folder": str(folder.resolve())})
    for dataset, rows in bench.samples.items():
        whole = sum(len(row["names"]) for row in rows) == bench.of[dataset]
        found = measure.scores_of_folder(rows, bench.environment.folder, name, folder, whole)
        entry.datasets[dataset] = bench.measured(rows, measure.summary(found))
    entry.write(bench.out)


def usage(answers: Sequence[Said], prices: tuple[float, ...] | None) -> dict[str, Any]:
    """What all answers took together, whenever they were given."""
    names = ("prompt_tokens", "completion_tokens")
    total: dict[str, Any] = {name: sum(int(one.usage.get(name) or 0) for one in answers) for name in names}
    return total | ({"cost": sum(cost(one.usage, prices) for one in answers)} if prices else {})
