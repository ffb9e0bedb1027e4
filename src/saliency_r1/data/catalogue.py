"""The catalogue: which data sets and base models there are, where they come from and how they are laid out.

`docs/data.md` explains every key. A catalogue is a YAML file; it may `include` others, and paths in an entry are
relative to the file the entry is written in.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from saliency_r1.data.errors import DataError
from saliency_r1.names import TaskName
from saliency_r1.runtime.files import sha256
from saliency_r1.yaml_loader import YamlError, load_yaml

SplitName = Literal["train", "val", "test"]
LayoutName = Literal["pairs", "groups", "coco", "id_map", "colour_map"]
LAYOUTS: dict[str, tuple[str, ...]] = {
    "sod": ("pairs",),
    "sis": ("coco", "id_map", "colour_map"),
    "cosod": ("groups",),
}
_ARCHIVE_KEYS = ("size", "sha256", "expands_to", "locations")


def _inside(path: str) -> str:
    """A relative path that stays in the folder it starts from: nothing of a catalogue reaches anything else."""
    if not path.strip() or path != path.strip():
        raise ValueError("expected a path, without white space around it")
    if "\\" in path or any(ord(char) < 32 for char in path):
        raise ValueError("expected a path with / between its parts and no control characters")
    if PurePosixPath(path).is_absolute() or path[1:2] == ":" or ".." in PurePosixPath(path).parts:
        raise ValueError("expected a relative path that does not climb; `folder` and download.mirror may be anywhere")
    return path


Inside = Annotated[str, AfterValidator(_inside)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Archive(_Entry):
    """One file to obtain. `size` and `expands_to` are bytes; what is None is not known in advance."""

    path: Inside
    size: int | None = Field(default=None, gt=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    expands_to: int | None = Field(default=None, gt=0)
    locations: tuple[str, ...] = ()

    def same(self, other: Archive) -> bool | None:
        """Whether two entries mean one file: as their hashes say, or else their addresses; None if neither says it."""
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        if self.locations and other.locations:
            return not {*self.locations}.isdisjoint(other.locations)
        return None


class Split(_Entry):
    """One part of a data set: the archives that are unpacked over each other, or a folder read in place."""

    archives: tuple[Archive, ...] = ()
    folder: Annotated[str, AfterValidator(expanduser)] | None = None
    count: tuple[int, ...] = ()
    images: Inside = "images"
    masks: Inside = "masks"
    annotations: Inside | None = None
    attributes: Inside = "attributes.json"
    names: Inside | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, content: Any) -> Any:
        """`archive: x.zip` with its size and hash beside it is one archive; a lone count is a list of one."""
        if not isinstance(content, dict):
            return content
        content = dict(content)
        if isinstance(content.get("count"), int):
            content["count"] = [content["count"]]
        if "archive" in content:
            if "archives" in content:
                raise ValueError("give either archive or archives")
            archive = {"path": content.pop("archive")}
            archive |= {key: content.pop(key) for key in _ARCHIVE_KEYS if key in content}
            content["archives"] = [archive]
        return content

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.archives) == bool(self.folder):
            raise ValueError("give either archive (or archives) or folder")
        return self


class MaskRule(_Entry):
    """How mask files are read.

    `binary`: every value is 0 or 255. `threshold`: a value >= `threshold` is foreground. `ids`: each value, palette
    index or colour other than 0 (black) is one instance. `empty` says what becomes of an image with nothing salient.
    `void` is the stored value (in colours 0xRRGGBB) of pixels that are neither foreground nor an instance.
    `orientation` says on what the masks of pictures with an EXIF orientation lie; None: on the upright picture, unless
    their size says otherwise.
    """

    rule: Literal["binary", "threshold", "ids"] = "binary"
    threshold: int = Field(default=128, ge=1, le=255)
    empty: Literal["keep", "drop"] = "keep"
    void: int | None = Field(default=None, ge=1, le=0xFFFFFF)
    orientation: Literal["upright", "stored"] | None = None

    @property
    def may_be_empty(self) -> bool:
        """Whether the catalogue itself says what becomes of empty masks, so that such masks are no surprise."""
        return "empty" in self.model_fields_set

    @property
    def has_threshold(self) -> bool:
        """Whether the catalogue itself says which values are foreground, 255 beside small numbers among them."""
        return self.rule == "threshold" and "threshold" in self.model_fields_set


class Dataset(_Entry):
    """One data set. `base` is the folder of the file that describes it; the other keys are those of the YAML."""

    name: str
    base: Path
    task: TaskName = "sod"
    layout: LayoutName = "pairs"
    splits: dict[SplitName, Split]
    mask: MaskRule = MaskRule()
    licence: str = "not stated"
    terms: str | None = None
    homepage: str | None = None
    overlaps: tuple[str, ...] = ()
    keep_leaks: bool = False
    verified: bool = False
    notes: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, content: Any) -> Any:
        """`folder: x` alone is a test split; layout, mask rule and folder names follow from the task."""
        if not isinstance(content, dict):
            return content
        content = dict(content)
        if "folder" in content and "splits" not in content:
            content["splits"] = {"test": {"folder": content.pop("folder")}}
        task = content.get("task", "sod")
        if not isinstance(task, str):
            return content  # nothing follows from it; the check of `task` says what was expected
        content.setdefault("layout", LAYOUTS.get(task, ("pairs",))[0] if task != "sis" else "id_map")
        if task == "sis":
            content.setdefault("mask", {"rule": "ids"})
        if content["layout"] == "groups" and isinstance(content.get("splits"), Mapping):
            folders = {"images": "image", "masks": "gt"}
            content["splits"] = {
                name: folders | dict(split) if isinstance(split, Mapping) else split
                for name, split in content["splits"].items()
            }
        return content

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.layout not in LAYOUTS[self.task]:
            raise ValueError(f"task {self.task} has the layouts {', '.join(LAYOUTS[self.task])}, not {self.layout}")
        if (self.mask.rule == "ids") != (self.task == "sis"):
            raise ValueError(f"mask rule {self.mask.rule} does not go with task {self.task}")
        if self.layout == "coco" and not all(split.annotations for split in self.splits.values()):
            raise ValueError("layout coco needs annotations: <json in the archive> in every split")
        named: dict[str, Archive] = {}
        for archive in self.archives:
            if named.setdefault(archive.path, archive).same(archive) is False:
                raise ValueError(f"{archive.path} is two archives, by their hashes or locations: give them two names")
        return self

    @property
    def archives(self) -> list[Archive]:
        """Those of all splits; one that holds several splits stands there several times."""
        return [archive for split in self.splits.values() for archive in split.archives]


@dataclass(frozen=True, eq=False)
class DatasetSplit:
    """One split of one data set."""

    dataset: Dataset
    split_name: SplitName

    @property
    def split(self) -> Split:
        """Its entry in the catalogue."""
        return self.dataset.splits[self.split_name]

    @property
    def labels(self) -> tuple[str, str, str]:
        """Task, data set and split, as in the sample table."""
        return self.dataset.task, self.dataset.name, self.split_name

    def __str__(self) -> str:
        return f"{self.dataset.name}/{self.split_name}"


class Model(_Entry):
    """A base model: a local folder (relative to `base`), or a name on the Hugging Face hub at a pinned revision."""

    name: str
    base: Path
    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    licence: str = "not stated"
    notes: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.path) == bool(self.hub):
            raise ValueError("give either path or hub")
        return self


class Catalogue(_Entry):
    """All data sets and base models, by name."""

    path: Path
    datasets: dict[str, Dataset]
    models: dict[str, Model]

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Read a catalogue and what it includes; `DataError` names file, key and expectation.

        One that is a copy which DVC would put back is refused where it says something else than its original.
        """
        _refuse_old_copy(path)
        entries = _Reader()
        entries.read(path)
        return cls(path=path, datasets=entries.datasets, models=entries.models)

    @property
    def contested(self) -> frozenset[str]:
        """The paths that archives of several data sets have."""
        paths = Counter(path for one in self.datasets.values() for path in {archive.path for archive in one.archives})
        return frozenset(path for path, count in paths.items() if count > 1)

    def select(self, names: Sequence[str]) -> list[tuple[Dataset, SplitName]]:
        """The splits meant by `<dataset>` (all its splits) or `<dataset>/<split>`, in that order, each once."""
        chosen: dict[tuple[str, SplitName], Dataset] = {}
        for name in names:
            dataset_name, _, wanted = name.partition("/")
            dataset = self.datasets.get(dataset_name)
            if dataset is None:
                known = ", ".join(sorted(self.datasets)) or "none"
                where = original(self.path) or self.path
                raise DataError(f"download.datasets: {where} has no data set {dataset_name!r}; it has: {known}")
            splits = [split for split in dataset.splits if wanted in ("", split)]
            if not splits:
                raise DataError(f"download.datasets: {name!r}: {dataset_name} has the splits {list(dataset.splits)}")
            chosen |= {(dataset_name, split): dataset for split in splits}
        return [(dataset, split) for (_, split), dataset in chosen.items()]


def original(path: Path) -> Path | None:
    """The file that `path` is a copy of, where its folder is one that DVC imports (`data.dvc`: from `embedded`)."""
    note = path.parent.with_name(f"{path.parent.name}.dvc")
    try:
        (source,) = load_yaml(note)["deps"]
        found = note.parent / source["path"] / path.name
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.is_file() else None


def _refuse_old_copy(path: Path) -> None:
    first = original(path)
    if first is None:
        return
    again = f"`dvc repro {path.parent.name}.dvc`"
    if not path.exists():
        raise DataError(f"{path} is not there yet; {again} makes it, a copy of {first}")
    if path.is_file() and path.read_bytes() != first.read_bytes():
        raise DataError(
            f"{path} is a copy of {first} and says something else. {again} makes the copy anew; what was edited in it "
            f"is lost then, so write that into {first} first"
        )


class _Reader:
    """Collects the entries of a catalogue file and of those it includes."""

    def __init__(self) -> None:
        self.datasets: dict[str, Dataset] = {}
        self.models: dict[str, Model] = {}
        self._seen: set[Path] = set()

    def read(self, path: Path) -> None:
        if path.resolve() in self._seen:
            return
        self._seen.add(path.resolve())
        try:
            content = load_yaml(path)
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such catalogue; see download.catalogue and `include`") from None
        except YamlError as error:
            raise DataError(str(error)) from None
        except (OSError, ValueError) as error:  # a folder, no permission, a name with a null in it
            raise DataError(f"{path}: not a readable catalogue ({error})") from None
        if not isinstance(content, dict) or not set(content) <= {"include", "datasets", "models"}:
            raise DataError(f"{path}: expected a mapping with the keys include, datasets and models")
        included = content.get("include") or []
        if not isinstance(included, list) or not all(isinstance(other, str) for other in included):
            raise DataError(f"{path}: include = {reprlib.repr(included)}, expected a list of files")
        for other in included:
            self.read(path.parent / other)
        for key, model, into in (("datasets", Dataset, self.datasets), ("models", Model, self.models)):
            entries = content.get(key) or {}
            if not isinstance(entries, dict):
                raise DataError(f"{path}: {key}: expected a mapping of names, found {reprlib.repr(entries)}")
            for name, entry in entries.items():
                if name in into:
                    raise DataError(f"{path}: {key}.{name} is described twice; keep one")
                into[name] = _validated(model, path, key, name, entry)  # type: ignore[index]


def _validated(model: type[BaseModel], path: Path, key: str, name: str, entry: Any) -> Any:
    if not isinstance(entry, dict):
        raise DataError(f"{path}: {key}.{name}: expected a mapping, found {reprlib.repr(entry)}")
    if not name.strip() or name != name.strip() or name.startswith(".") or len(name.encode()) > 100:
        raise DataError(f"{path}: {key}.{name!r:.200}: a name has 1 to 100 bytes and does not start with a point")
    if any(char in "/\\" or not char.isprintable() for char in name):
        raise DataError(f"{path}: {key}.{name!r}: a name may not contain /, \\ or control characters")
    try:
        return model.model_validate({**entry, "name": name, "base": path.parent})
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            where = ".".join(map(str, (key, name, *fault["loc"])))
            shown = reprlib.repr(fault["input"])
            lines.append(f"{path}: {where} = {shown}: {fault['msg'].removeprefix('Value error, ')}")
        raise DataError("\n".join(lines)) from None


def describe_archive(path: Path) -> dict[str, int | str]:
    """What the catalogue has to say about an archive: `{"size": bytes, "sha256": 64 hexadecimal digits}`."""
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def write_catalogue(path: Path, datasets: Mapping[str, Any], models: Mapping[str, Any] | None = None) -> None:
    """Write entries (as in the YAML) to a catalogue file, after validation. Keys keep their order."""
    for key, model, entries in (("datasets", Dataset, datasets), ("models", Model, models or {})):
        for name, entry in entries.items():
            _validated(model, path, key, name, entry)
    content = {"datasets": dict(datasets)} | ({"models": dict(models)} if models else {})
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    path.write_text("# Written by code; see docs/data.md for the keys.\n" + text, encoding="utf-8")
