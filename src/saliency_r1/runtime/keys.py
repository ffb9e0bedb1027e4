"""The key under which the work of a run is kept: a run with other parameters, inputs or code never goes on with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import saliency_r1
from saliency_r1.runtime.files import sha256
from saliency_r1.yaml_loader import load_yaml

_CODE = (".py", ".txt")  # modules, and the prompts that models are asked with


def content_key(places: Iterable[Path]) -> str:
    """A hash of files (folders: all files in them), with their names below each place."""
    digest = hashlib.sha256()
    for place in places:
        _add(digest, place, sorted(place.rglob("*")) if place.is_dir() else [place])
    return digest.hexdigest()[:16]


def run_key(settings: Mapping[str, Any], inputs: Iterable[Path], code: Iterable[Path] | None = None) -> str:
    """A hash of parameters, input files and source code, 16 hexadecimal digits; a folder stands for all its files.

    `code` is that of `stage_code`, or the whole package where it is left out. Prompts are a part of the code: what was
    answered to an older wording is no answer to the new one. Raises `FileNotFoundError` for code that is not there.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for root in inputs:
        _add(digest, root, [root] if root.is_file() else sorted(root.rglob("*")))
    for root in [_package()] if code is None else code:
        files = sorted(root.rglob("*")) if root.is_dir() else [root]
        _add(digest, root, [file for file in files if file == root or file.suffix in _CODE])
    return digest.hexdigest()[:16]


def stage_code(stage: str) -> list[Path]:
    """The files and folders of code that decide the result of a stage, as dvc.yaml of the running tree lists them.

    Raises `OSError` or `YamlError` where that file cannot be read.
    """
    tree = _package().parents[1]
    dependencies = load_yaml(tree / "dvc.yaml")["stages"][stage]["deps"]
    return sorted(tree / known for known in dependencies if known.startswith(("src/", "stages/")))


def _package() -> Path:
    return Path(saliency_r1.__file__).resolve().parent


def _add(digest: hashlib._Hash, root: Path, files: Iterable[Path]) -> None:
    for file in files:
        if not file.is_dir():
            digest.update(f"{file.relative_to(root.parent)}\0".encode())
            digest.update(sha256(file).encode())
