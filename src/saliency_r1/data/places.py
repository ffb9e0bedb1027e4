"""Where a data set lies on somebody's disk: under its own name or its archive's, in folders of this name or that.

The field's data sets are passed on by hand. `ECSSD/Image`, `ecssd/images` and `ECSSD/Imgs` are the same folder, and
`DUTS-TR` may lie inside of `DUTS` or beside it. What the catalogue says is looked for first; where it is not there, and
one folder alone goes by another usual name, that one is meant. Pictures and masks may also lie side by side in one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from saliency_r1.data.catalogue import Dataset, Split, SplitName
from saliency_r1.data.importers import only_folder, places
from saliency_r1.inputs.find import folders_in, key, pictures_below, walk

_NAMES = {
    "images": frozenset({"image", "images", "img", "imgs", "im", "jpegimages", "picture", "pictures", "rgb", "src"}),
    "masks": frozenset(
        {"mask", "masks", "gt", "gts", "groundtruth", "groundtruthmask", "label", "labels", "annotation", "annotations"}
        | {"segmentation", "segmentations", "segmentationclass", "binary", "binarymask", "saliency"}
        | {"pixelwisegtnewpng"}  # of DUT-OMRON
    ),
}
_PACKED = re.compile(r"\.(?:tar\.\w+|\w+)$", re.IGNORECASE)  # what the name of an archive ends in
_SPLITS: dict[str, frozenset[str]] = {
    "train": frozenset({"train", "tr", "training", "trainset"}),
    "val": frozenset({"val", "validation", "valid", "valset"}),
    "test": frozenset({"test", "te", "testing", "testset"}),
}


def unpacked(dataset: Dataset, split: SplitName, mirror: Path) -> Path | None:
    """The folder of a mirror that holds a split as it is: by the data set's name or by that of its archive."""
    packed = [_PACKED.sub("", Path(archive.path).name) for archive in dataset.splits[split].archives]
    # A lone archive is the split's own: DUTS-TE beside a DUTS that may hold the other split alone.
    wanted = [*packed, dataset.name] if len(packed) == 1 else [dataset.name, *packed]
    folders = {path.name: path for path in folders_in(mirror)}
    for name in wanted:
        if name in folders:
            return folders[name]
    alike = {_plain(name) for name in wanted}
    found = [path for name, path in folders.items() if _plain(name) in alike]
    return found[0] if len(found) == 1 else None


def settle(folder: Path, split: Split, name: SplitName) -> Split:
    """The split with its folders as they are called in `folder`; what cannot be found is left as it was."""
    roles = ("images", "masks") if split.annotations is None else ("images",)
    absent = [role for role in roles if "*" not in (said := getattr(split, role)) and len(places(folder, said)) != 1]
    names = _side_by_side(folder) if "masks" in absent and "*" not in split.images else {}
    if not names:
        usual = {role: found for role in absent if (found := _usual(folder, role, name))}
        names = {role: found.relative_to(folder).as_posix() for role, found in usual.items()}
    return split.model_copy(update=names) if names else split


def _side_by_side(folder: Path) -> dict[str, str]:
    """Patterns where the only folder with pictures has a JPEG and, as its mask, a PNG of each name (as MSRA10K)."""
    names: dict[tuple[Path, str], set[str]] = defaultdict(set)
    for path in pictures_below(folder):
        names[path.parent.relative_to(folder), path.suffix.lower()].add(key(path.stem))
    match sorted(names):
        case [(holder, ".jpeg" | ".jpg" as suffix), (other, ".png")] if holder == other:
            if names[holder, suffix] & names[other, ".png"]:
                return {"images": (holder / f"*{suffix}").as_posix(), "masks": (holder / "*.png").as_posix()}
    return {}


def _usual(folder: Path, role: str, name: SplitName) -> Path | None:
    """The one folder with a usual name for `role`, of the split's own if there are several; never another split's."""
    usual = [path for path in _folders(folder) if _role(path.name) == role]
    found = [path for path in usual if only_folder(path) not in usual]
    said = {path: _splits_of(path.relative_to(folder)) for path in found}
    own = [path for path in found if said[path] == {name}]
    # Where one folder is left, it may be the other split's: test pictures are not in DUTS-TR-Image.
    fitting = [path for path in found if not said[path] or name in said[path]]
    for candidates in (own, fitting):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _folders(folder: Path) -> Iterator[Path]:
    """The folders below a folder, hidden ones left out."""
    yield from sorted(path for path, is_folder in walk(folder) if is_folder)


def _role(name: str) -> str | None:
    """What a folder holds by its name: `DUTS-TR-Image` and `imgs` hold images, `GroundTruth` and `train_gt` masks."""
    plain = _plain(name)
    last = _words(name)[-1] if _words(name) else ""
    for role, names in _NAMES.items():
        if plain in names or last in names:
            return role
    return None


def _splits_of(path: Path) -> set[str]:
    """The splits that the parts of a path speak of."""
    words = {word for part in path.parts for word in _words(part)}
    return {split for split, names in _SPLITS.items() if words & names}


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.casefold()) if word]


def _plain(name: str) -> str:
    return "".join(_words(name))
