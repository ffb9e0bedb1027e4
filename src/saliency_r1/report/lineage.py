"""Where a result comes from: the commit, the data, the parameters, the packages. No times and no places."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from saliency_r1.yaml_loader import load_yaml

PACKAGES = (
    "saliency-r1", "torch", "transformers", "peft", "segment-anything", "numpy", "polars", "opencv-python-headless",
    "faster-coco-eval", "dvc", "great-expectations", "matplotlib",
)  # fmt: skip
# What decides a result. A commit of anything else, the results among it, leaves the page as it is.
_SOURCES = ("src", "stages", "embedded", "params.yaml", "requirements.lock")


def lineage(root: Path) -> dict[str, Any]:
    """What a page of results names.

    `revision` (the last commit of the sources) and `changed` files since, `stages` with hashes of what they wrote,
    `data`, `params` as text, `packages`.
    """
    params = root / "params.yaml"
    return {
        "revision": _git(root, "log", "-1", "--format=%H", "--", *_SOURCES),
        "changed": [line[3:] for line in _git(root, "status", "--porcelain", "--", *_SOURCES).splitlines()],
        "stages": _stages(root / "dvc.lock"),
        "data": _outputs(root / "data.dvc", "outs"),
        "params": params.read_text(encoding="utf-8") if params.exists() else "",
        "packages": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def _git(root: Path, *arguments: str) -> str:
    """What git prints, or nothing where there is no repository."""
    try:
        answer = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.rstrip()


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


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
