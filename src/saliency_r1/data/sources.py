"""What the data is made of that lies outside of the project: folders, local copies, base models, revisions of the hub.

DVC does not look there. `saliency-r1 data sources` writes what it finds into records/sources.json, on which the stage
download depends: a picture that came into a folder is then seen by `dvc repro`, and nothing else is imported again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from saliency_r1.data import models
from saliency_r1.data.catalogue import Catalogue, Dataset, SplitName
from saliency_r1.data.errors import DataError, Unreachable, may_pass
from saliency_r1.data.places import unpacked
from saliency_r1.inputs.find import shown, walk
from saliency_r1.params import Download
from saliency_r1.runtime.files import sha256

FILE = Path("records/sources.json")


def sources(settings: Download, root: Path) -> dict[str, Any]:
    """One entry a split that is read from outside, and one a base model from there or of a revision that is not pinned.

    Every file is read, so a folder of 10 GB takes a minute. Raises `DataError`.
    """
    catalogue = Catalogue.load(root / settings.catalogue)
    mirror = root / settings.mirror if settings.mirror else None
    found: dict[str, Any] = {}
    for dataset, split in catalogue.select(settings.datasets):
        if content := _content(dataset, split, mirror):
            found[f"{dataset.name}/{split}"] = content
    for key in ("policy", "segmenter"):
        source = models.resolve(getattr(settings, key), key, catalogue, root)
        if source.hub and source.revision is None:
            found[f"model {source.hub}"] = {"revision": _revision(source.hub)}
        elif source.folder is not None and source.outside:
            found[f"model {getattr(settings, key)}"] = _of_folder(source.folder)
    return found


def _content(dataset: Dataset, name: SplitName, mirror: Path | None) -> dict[str, Any] | None:
    split = dataset.splits[name]
    if split.folder is not None:
        return _of_folder(dataset.base / split.folder)
    if mirror is None:
        return None
    if (folder := unpacked(dataset, name, mirror)) is not None:
        return _of_folder(folder)
    places = [mirror / one for archive in split.archives for one in (archive.path, Path(archive.path).name)]
    files = {path.name: sha256(path) for path in places if path.is_file()}
    return {"archives": files} if files else None


def _of_folder(folder: Path) -> dict[str, Any]:
    """How many files a folder has, their bytes, and one hash of all names and contents, whatever their times are."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; correct `folder` in the catalogue, or mount it")
    files = sorted(path for path, is_folder in walk(folder) if not is_folder and path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{shown(path.relative_to(folder))}\0{sha256(path)}\0".encode())
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files), "sha256": digest.hexdigest()}


def _revision(hub: str) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().model_info(hub, timeout=10.0).sha)
    except models.hub_errors() as error:
        kind = Unreachable if may_pass(error) else DataError
        raise kind(f"{hub}: the hub does not say which revision is the newest ({error}); pin one") from error
