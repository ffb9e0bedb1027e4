"""The base models: copied from a local folder, or taken from the Hugging Face hub at a pinned revision."""

import shutil
from os.path import expanduser
from pathlib import Path
from typing import NamedTuple

from saliency_r1.data.catalogue import Catalogue
from saliency_r1.data.errors import DataError, Unreachable, may_pass
from saliency_r1.inputs.find import walk
from saliency_r1.runtime.files import link_tree


class Source(NamedTuple):
    """Where a base model comes from: a folder, in the project or outside of it, or a hub name with its revision."""

    folder: Path | None
    hub: str = ""
    revision: str | None = None
    outside: bool = False

    def __str__(self) -> str:
        if self.folder is not None:
            return str(self.folder)
        return self.hub if self.revision is None else f"{self.hub}@{self.revision}"


def resolve(name: str, key: str, catalogue: Catalogue, root: Path) -> Source:
    """What `download.policy` (or `.segmenter`, the `key`) means.

    In this order: an entry of the catalogue, a folder relative to `root` or to the catalogue, and else a name on the
    hub, `<owner>/<model>[@<revision>]`.
    """
    entry = catalogue.models.get(name)
    if entry is not None and entry.hub:
        return Source(None, entry.hub, entry.revision)
    own = expanduser(name)
    candidates = [entry.base / str(entry.path)] if entry else [root / own, catalogue.path.parent / own]
    for folder in candidates:
        if folder.is_dir():
            if not any(folder.iterdir()):
                raise DataError(f"{folder}: the model folder is empty")
            return Source(folder, outside=not folder.resolve().is_relative_to(root.resolve()))
    hub, _, revision = name.partition("@")
    if entry is not None or hub.count("/") != 1 or hub.startswith((".", "/", "~")):
        looked = ", ".join(map(str, candidates))
        raise DataError(f"download.{key} = {name!r}: no such folder ({looked}) and not a name on the hub (owner/model)")
    return Source(None, hub, revision or None)


def provide(source: Source, target: Path) -> dict[str, str]:
    """Put a model into `target`; returns what the report says about it: source and resolved revision.

    What lies outside of the project is copied: somebody may change it in place, and results must not follow.
    """
    if source.folder is not None:
        if source.outside:
            _copy_tree(source.folder, target)
        else:
            link_tree(source.folder, target)
        return {"source": source.folder.name}
    from huggingface_hub import snapshot_download

    try:
        snapshot = Path(snapshot_download(source.hub, revision=source.revision))
    except hub_errors() as error:
        kind = Unreachable if may_pass(error) else DataError
        raise kind(f"{source}: {_unobtainable(error)}") from error
    if source.revision is None:
        print(f"{source.hub}: no revision is pinned; this is {source.hub}@{snapshot.name}", flush=True)
    link_tree(snapshot, target)
    return {"source": source.hub, "revision": snapshot.name}  # a snapshot's folder is named by its commit


def _copy_tree(source: Path, target: Path) -> None:
    for path, is_folder in walk(source):
        if not is_folder:
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def cached(source: Source) -> bool:
    """Whether a model of the hub lies in the hub's cache on this machine, whole."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(source.hub, revision=source.revision, local_files_only=True)
    except hub_errors():
        return False
    return True


def unreachable(source: Source, seconds: float = 10.0) -> str | None:
    """Why the hub does not give a model, if it does not; nothing is fetched."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(source.hub, revision=source.revision, timeout=seconds)
    except hub_errors() as error:
        return _unobtainable(error)
    return None


def hub_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises where there is no network, no such model, or no permission."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError

    return (HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError, OSError)


def _unobtainable(error: Exception) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"not to be had from the Hugging Face hub ({reason}); check name, revision and network, or give a local folder "
        "in params.yaml"
    )
