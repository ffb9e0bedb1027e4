"""The nights that left a record (a tag `night/<date>`), and those that left a log alone.

for night in nights(Path.cwd()):
    print(night.name, night.metrics, night.log)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from saliency_r1.registry.git import file_at, git, tags

PREFIX = "night/"
LOGS = Path("runs/nights/logs")
METRICS = "artifacts/metrics/metrics.json"
DECISION = "records/decision.json"


class Night(NamedTuple):
    """One night: its name (`2026-03-01`, a second one of a day `2026-03-01.2`), the commit of its record (None: it
    failed or still runs), `{model: {data set: {measure: value}}}`, what was decided about the champion, and its log."""

    name: str
    commit: str | None
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    decision: Mapping[str, Any] | None
    log: Path | None


def nights(root: Path) -> list[Night]:
    """All nights, the earliest first. Raises `GitError` where `root` is no git repository."""
    recorded = {tag.removeprefix(PREFIX) for tag in tags(root, f"{PREFIX}*")}
    logs = {path.stem: path for path in (root / LOGS).glob("*.log")}
    return [_night(root, name, name in recorded, logs.get(name)) for name in sorted(recorded | set(logs), key=_order)]


def _night(root: Path, name: str, recorded: bool, log: Path | None) -> Night:
    if not recorded:
        return Night(name, None, {}, None, log)
    tag = PREFIX + name
    metrics, decision = (json.loads(file_at(root, tag, path) or "null") for path in (METRICS, DECISION))
    return Night(name, git(root, "rev-parse", "--short", f"{tag}^{{commit}}"), metrics or {}, decision, log)


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
