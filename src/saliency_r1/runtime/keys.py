"""The key of a run: what is kept under it never goes into a run that something else decides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import saliency_r1
from saliency_r1.runtime.files import sha256

_CODE = (".py", ".txt")  # modules, and the prompts that models are asked with


def content_key(places: Iterable[Path]) -> str:
    """A hash of files (folders: all files in them), with their names below each place."""
    digest = hashlib.sha256()
    for place in places:
        _add(digest, place, sorted(place.rglob("*")) if place.is_dir() else [place])
    return digest.hexdigest()[:16]


def run_key(settings: Mapping[str, Any], inputs: Iterable[Path]) -> str:
    """A hash of parameters, input files (folders: all files in them) and the package's source code.

    Prompts are a part of the code: what was answered to an older wording is no answer to the new one.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    package = Path(saliency_r1.__file__).parent
    for root in [*inputs, package]:
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        _add(digest, root, [file for file in files if root != package or file.suffix in _CODE])
    return digest.hexdigest()[:16]


def _add(digest: hashlib._Hash, root: Path, files: Iterable[Path]) -> None:
    for file in files:
        if file.is_file():
            digest.update(f"{file.relative_to(root.parent)}\0".encode())
            digest.update(sha256(file).encode())
