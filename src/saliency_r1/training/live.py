"""The curves of a training while it runs, in DVCLive's format: for `dvc plots show`, DVC's editor extension, a tail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from saliency_r1.runtime import processes

Step = TypeVar("Step")


def follow(steps: Iterable[Step], folder: Path, curve: Callable[[Step], Mapping[str, float | None]]) -> Iterator[Step]:
    """Pass steps on, and write what `curve` says of each to `<folder>/plots/metrics/<name>.tsv`.

    A resumed training yields its earlier steps again, so the folder is always that of the whole run. What is kept as a
    result are the stage's own `curves.csv`; these files are scratch.
    """
    if not processes.is_main():
        yield from steps
        return
    from dvclive import Live

    with Live(str(folder), report=None, save_dvc_exp=False, dvcyaml=None) as live:
        for step in steps:
            for name, value in curve(step).items():
                if value is not None:
                    live.log_metric(name, value)
            live.next_step()
            yield step
