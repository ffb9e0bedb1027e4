"""The base models: copied from a local folder, or taken from the Hugging Face hub at a pinned revision."""

from pathlib import Path
from typing import NamedTuple

from saliency_r1.data.catalogue import Catalogue
from saliency_r1.data.errors import DataError
from saliency_r1.runtime.files import link_tree


class Source(NamedTuple):
    """Where a base model comes from: a folder, or a hub name with its revision."""

    folder: Path | None
    hub: str = ""
    revision: str | None = None

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
    candidates = [entry.base / str(entry.path)] if entry else [root / name, catalogue.path.parent / name]
    for folder in candidates:
        if folder.is_dir():
            if not any(folder.iterdir()):
                raise DataError(f"{folder}: the model folder is empty")
            return Source(folder)
    hub, _, revision = name.partition("@")
    if entry is not None or hub.count("/") != 1 or hub.startswith((".", "/")):
        looked = ", ".join(map(str, candidates))
        raise DataError(f"download.{key} = {name!r}: no such folder ({looked}) and not a name on the hub (owner/model)")
    return Source(None, hub, revision or None)


def provide(source: Source, target: Path) -> dict[str, str]:
    """Put a model into `target`; returns what the report says about it: source and resolved revision."""
    if source.folder is not None:
        link_tree(source.folder, target)
        return {"source": source.folder.name}
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = Path(snapshot_download(source.hub, revision=source.revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, ConnectionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{source}: not to be had from the Hugging Face hub ({reason}); check name, revision and network, "
            "or give a local folder in params.yaml"
        ) from error
    if source.revision is None:
        print(f"{source.hub}: no revision is pinned; this is {source.hub}@{snapshot.name}", flush=True)
    link_tree(snapshot, target)
    return {"source": source.hub, "revision": snapshot.name}  # a snapshot's folder is named by its commit
