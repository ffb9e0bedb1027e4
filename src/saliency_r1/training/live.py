"""The curves of a training while it runs, in DVCLive's format: for `dvc plots show`, DVC's editor extension, a tail."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from saliency_r1.runtime import processes
from saliency_r1.runtime.files import remove, write_text

Step = TypeVar("Step")
Said = dict[str, str]  # what the files say of one step, by curve


def follow(steps: Iterable[Step], folder: Path, curve: Callable[[Step], Mapping[str, float | None]]) -> Iterator[Step]:
    """Pass steps on, and write what `curve` says of each to `<folder>/plots/metrics/<name>.tsv`.

    A resumed training yields its earlier steps again. Steps that the files already hold are not written
    again. At the first step for which they hold other values, as those of another run do, they are cut off and go on
    from there, so that the folder always shows one whole run. The result that is kept is the stage's own `curves.csv`;
    these files are scratch.
    """
    if not processes.is_main():
        yield from steps
        return
    from dvclive import Live

    said = _read(folder)
    with contextlib.ExitStack() as stack:
        live = None
        number = 0
        for number, step in enumerate(steps, 1):
            values = {name: value for name, value in curve(step).items() if value is not None}
            if live is None and said.get(number - 1) != {name: str(value) for name, value in values.items()}:
                _cut(folder, said, number - 1)
                said.clear()
                live = stack.enter_context(
                    Live(str(folder), resume=number > 1, report=None, save_dvc_exp=False, dvcyaml=None)
                )
                live.step = number - 1
            if live is not None:
                for name, value in values.items():
                    live.log_metric(name, value)
                live.next_step()
            yield step
        if live is None:
            _cut(folder, said, number)


def _read(folder: Path) -> dict[int, Said]:
    """What the files say of each step, from 0; of lines that a killed run left half written, as much as there is."""
    said: dict[int, Said] = {}
    for path in (folder / "plots/metrics").glob("*.tsv"):
        with path.open(encoding="utf-8", errors="replace", newline="") as stream:
            for row in csv.reader(stream, delimiter="\t"):
                if len(row) == 2 and row[0].isdecimal():
                    said.setdefault(int(row[0]), {})[path.stem] = row[1]
    return said


def _cut(folder: Path, said: Mapping[int, Said], count: int) -> None:
    """Let the files say what they said of the first `count` steps, in whole lines, and nothing else."""
    remove(folder / "plots")
    (folder / "metrics.json").unlink(missing_ok=True)  # the last step's, perhaps half of it; the next writes it anew
    names = dict.fromkeys(name for step in range(count) for name in said[step])
    for name in names:
        lines = [f"{step}\t{said[step][name]}" for step in range(count) if name in said[step]]
        (folder / "plots/metrics").mkdir(parents=True, exist_ok=True)
        write_text(folder / f"plots/metrics/{name}.tsv", "\n".join([f"step\t{name}", *lines]) + "\n")
