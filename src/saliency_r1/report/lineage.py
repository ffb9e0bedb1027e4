"""Where a result comes from: data, parameters, what each stage wrote and with which packages.

No time, no place and no revision: the page is built before its results can be committed, and must be the same when
somebody builds it again afterwards. The commit is the one whose dvc.lock has the hashes that stand here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saliency_r1.runtime.versions import FILE, versions
from saliency_r1.yaml_loader import load_yaml


def lineage(root: Path, artifacts: Path) -> dict[str, Any]:
    """What a page of results names.

    `stages` with hashes of what they wrote, `data`, `params` as text, `packages`: `{package: {stage: version}}`, the
    page's own among the stages. `root` is where params.yaml and dvc.lock are looked for.
    """
    file = root / "params.yaml"
    return {
        "stages": _stages(root / "dvc.lock"),
        "data": _outputs(root / "data.dvc", "outs"),
        "params": file.read_text(encoding="utf-8") if file.exists() else "",
        "packages": _packages(artifacts),
    }


def _packages(artifacts: Path) -> dict[str, dict[str, str]]:
    """The versions that the stages have noted; stages that ran with the same ones share a column: `sft, cgpo`."""
    notes = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in artifacts.glob(f"*/{FILE}")}
    notes["report"] = versions()
    columns: dict[str, list[str]] = {}
    for stage, note in sorted(notes.items()):
        columns.setdefault(json.dumps(note), []).append(stage)
    shared = {", ".join(stages): json.loads(note) for note, stages in columns.items()}
    names = dict.fromkeys(name for note in shared.values() for name in note)
    return {name: {stages: note.get(name, "") for stages, note in shared.items()} for name in names}


def _stages(lock: Path) -> list[dict[str, str]]:
    """Path and hash of every output in dvc.lock, but for the report's own, which is only known afterwards."""
    if not lock.exists():
        return []
    stages = load_yaml(lock).get("stages", {})
    rows = [
        {"stage": name, "path": out["path"], "hash": _hash(out)}
        for name, stage in stages.items()
        for out in stage.get("outs", ())
        if name != "report"
    ]
    return sorted(rows, key=lambda row: (row["stage"], row["path"]))


def _outputs(path: Path, key: str) -> list[dict[str, str]]:
    if not path.exists():
        return []
    return [{"path": out["path"], "hash": _hash(out)} for out in load_yaml(path).get(key, ())]


def _hash(entry: dict[str, Any]) -> str:
    return next((f"{kind} {entry[kind]}" for kind in ("md5", "sha256", "etag") if kind in entry), "")
