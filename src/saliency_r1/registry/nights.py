"""The nights that left a record (a tag `night/<date>`), and those that left a log alone.

for night in nights(Path.cwd()):
    print(night.name, night.metrics, night.log)
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from saliency_r1.registry.git import file_at, git, tags

PREFIX = "night/"
LOGS = Path("runs/nights/logs")
METRICS = "artifacts/metrics/metrics.json"
DECISION = "records/decision.json"


class Night(NamedTuple):
    """One night: its name (`2026-03-01`, a second one of a day `2026-03-01.2`), the commit of its record (None: it
    failed or still runs), `{model: {data set: {measure: value}}}`, what was decided about the champion, its log, and
    what is wrong with its record: of a file that is not as it should be, nothing is taken."""

    name: str
    commit: str | None
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    decision: Mapping[str, Any] | None
    log: Path | None
    faults: tuple[str, ...] = ()


def nights(root: Path) -> list[Night]:
    """All nights, the earliest first. Raises `GitError` where `root` is no git repository."""
    recorded = {tag.removeprefix(PREFIX) for tag in tags(root, f"{PREFIX}*")}
    logs = {path.stem: path for path in (root / LOGS).glob("*.log")}
    return [_night(root, name, name in recorded, logs.get(name)) for name in sorted(recorded | set(logs), key=_order)]


def _night(root: Path, name: str, recorded: bool, log: Path | None) -> Night:
    if not recorded:
        return Night(name, None, {}, None, log)
    tag = PREFIX + name
    commit = git(root, "rev-parse", "--short", f"{tag}^{{commit}}")
    faults: list[str] = []
    metrics = _read(root, tag, METRICS, _metrics_fault, faults)
    decision = _read(root, tag, DECISION, _decision_fault, faults)
    return Night(name, commit, metrics or {}, decision, log, tuple(faults))


def _read(root: Path, tag: str, path: str, fault: Callable[[Any], str | None], faults: list[str]) -> Any:
    """What the record has in a JSON file, None where that is nothing or not as it should be; `faults` then grows."""
    try:
        content = json.loads(file_at(root, tag, path) or "null")
    except (ValueError, RecursionError) as error:
        faults.append(f"{path}: not valid JSON ({error})")
        return None
    if content is not None and (said := fault(content)):
        faults.append(f"{path}: {said}")
        return None
    return content


def _metrics_fault(content: Any) -> str | None:
    """Why this is not `{model: {data set: {measure: number}}}`, if it is not."""
    level = [("", content)]
    for inside in ("models", "data sets", "measures"):
        for name, value in level:
            if not isinstance(value, dict):
                return f"{name or 'all of it'} = {reprlib.repr(value)}, expected a mapping of {inside}"
        level = [(f"{name}.{key}".lstrip("."), one) for name, value in level for key, one in value.items()]
    wrong = next(((name, value) for name, value in level if not isinstance(value, (int, float))), None)
    return f"{wrong[0]} = {reprlib.repr(wrong[1])}, expected a number" if wrong else None


def _decision_fault(content: Any) -> str | None:
    return None if isinstance(content, dict) else f"{reprlib.repr(content)}, expected a mapping with `verdict`"


def _order(name: str) -> tuple[str, int]:
    day, _, number = name.partition(".")
    return day, int(number or 1) if (number or "1").isdigit() else 0


def headline(night: Night) -> dict[str, float]:
    """The mean reward of each model over all samples, as far as the metrics have it."""
    found = {}
    for model, datasets in night.metrics.items():
        rows = [values for values in datasets.values() if {"reward", "samples"} <= set(values)]
        if samples := sum(values["samples"] for values in rows):
            found[model] = sum(values["reward"] * values["samples"] for values in rows) / samples
    return found
