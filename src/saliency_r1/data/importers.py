"""Importers: what a data set looks like on disk, one small class for each layout.

`find` pairs images with ground truth by name and says what it could not pair; `mask` reads one ground truth. Opening,
checking and storing a pair is the same for all of them: `store.import_item`.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote

import numpy as np

from saliency_r1.data.catalogue import MaskRule, Split
from saliency_r1.data.errors import DataError
from saliency_r1.inputs.coco import CROWDS, CocoImage, read_truth
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import folders_in, hidden, key, nfc, pictures_below, pictures_in, shown, walk
from saliency_r1.inputs.image_names import stem
from saliency_r1.inputs.masks import read_ids, read_mask
from saliency_r1.inputs.regions import area, decode

_PACKED = frozenset({".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".rar", ".7z"})
_SAID = 10  # folders and files in a message


@dataclass(frozen=True)
class Item:
    """An image and its ground truth (a mask file, or the COCO annotations of the image), not yet opened.

    `size` is what the annotations say about the image, (width, height); no ground truth of another size is drawn.
    """

    name: str
    image: Path
    truth: Path | CocoImage
    group: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Problem:
    """An image (or a mask without one) that is not imported, and why."""

    name: str
    reason: str


@dataclass
class Found:
    """What a layout found. `unlisted` counts images of the folder that the annotations or the list do not mention.

    `objects` is what the annotations tell about the instances of an image, by its name: `[{"id": 1, "name": "cat"}]`.
    `crowds` counts the annotations that are left out as crowds.
    """

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unlisted: int = 0
    crowds: int = 0
    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Layout(Protocol):
    """A way of laying out images and ground truth in folders."""

    def find(self, folder: Path, split: Split) -> Found:
        """Pair images with ground truth, sorted by name, without opening them."""

    def mask(self, truth: Any, rule: MaskRule) -> np.ndarray:
        """Read one ground truth: uint8 H x W in {0, 255}, or uint16 H x W instance ids; `InputError` if it cannot."""


class Pairs:
    """A folder of images and a folder of masks with the same names, whatever their extensions and case."""

    def find(self, folder: Path, split: Split) -> Found:
        """Pair by the name without its extension."""
        found = Found()
        _check_elsewhere(_holder(folder, split.images), _holder(folder, split.masks))
        images = _by_name(found, image_files(folder, split.images))
        masks = _by_name(found, image_files(folder, split.masks))
        _pair(found, images, masks)
        return found

    def mask(self, truth: Path, rule: MaskRule) -> np.ndarray:
        """A binary mask, as the rule says."""
        mask = read_mask(
            truth,
            above=(rule.threshold if rule.rule == "threshold" else 128) - 1,
            remedy="declare mask: {{rule: threshold, threshold: {}}}".format,
            void=rule.void,
            exact=rule.rule == "binary",
            may_be_empty=rule.may_be_empty,
            said=rule.has_threshold,
        )
        return mask.foreground.astype(np.uint8) * 255


class Groups(Pairs):
    """Categories of images for CoSOD: `image/<group>/*` with `gt/<group>/*`."""

    def find(self, folder: Path, split: Split) -> Found:
        """Pair by group and name; the name of an item is `<group>/<name>`."""
        found = Found()
        images, masks = _folder(folder, split.images), _folder(folder, split.masks)
        _check_elsewhere(images, masks, depth=1)
        ours, theirs = _groups(images), _groups(masks)
        theirs = _called_alike(theirs, ours)
        for group in sorted(ours.keys() | theirs.keys()):
            images_of, masks_of = (
                _by_name(found, pictures_in(named[group]) if group in named else [], f"{group}/")
                for named in (ours, theirs)
            )
            _pair(found, images_of, masks_of, group)
        return found


class IdMap(Pairs):
    """Instances as numbers: in an indexed-colour PNG the palette index, in a grey one the value; 0 is background."""

    def mask(self, truth: Path, rule: MaskRule) -> np.ndarray:
        """The map as it is stored."""
        return read_ids(truth, rule.void, colours=False).astype(np.uint16)


class ColourMap(Pairs):
    """Instances as colours: every colour but black is one instance, numbered in the order of the colours."""

    def mask(self, truth: Path, rule: MaskRule) -> np.ndarray:
        """The colours, numbered from 1."""
        return read_ids(truth, rule.void, colours=True).astype(np.uint16)


class Coco:
    """Images with COCO instance annotations. Instance k of an image is its k-th annotation in order of `id`.

    Crowds (`iscrowd: 1`) and annotations with `"salient": false` keep their number and stay out of the map; where two
    instances overlap, the smaller one is in front. Where there are several categories, their names are kept.
    """

    def find(self, folder: Path, split: Split) -> Found:
        """Look up the images that the json lists. Only names are compared; none is followed as a path."""
        try:
            truth = read_truth(locate(folder, str(split.annotations)))
        except InputError as error:
            raise DataError(str(error)) from None
        found = Found(problems=[Problem(*problem) for problem in truth.problems], crowds=truth.crowds)
        files = image_files(folder, split.images)
        exact, alike = {path.name: path for path in files}, Counter(key(path.name) for path in files)
        by_key = {key(path.name): path for path in files if alike[key(path.name)] == 1}
        taken: dict[Path, str] = {}
        for image in sorted(truth.images, key=lambda image: image.path):
            file_name = PurePosixPath(image.path).name
            ways = (file_name, unquote(file_name))
            path = next((one for way in ways if (one := exact.get(way) or by_key.get(key(way)))), None)
            fault = self._fault(image, path, str(split.annotations))
            if path is not None and taken.setdefault(path, image.path) != image.path:
                fault = f"{image.path} and {taken[path]} are both listed and mean {path.name}; leave one out"
            if fault:
                found.problems.append(Problem(image.name, fault))
                continue
            assert path is not None
            found.items.append(Item(image.name, path, image, size=(image.width, image.height)))
            if len(truth.categories) > 1:  # a single one is "object" or "salient" and tells nothing
                found.objects[image.name] = [
                    {"id": annotation.number, "name": _worded(annotation.category)} for annotation in image.instances
                ]
        found.unlisted = len(files) - len(found.items)
        return found

    def _fault(self, image: CocoImage, path: Path | None, listed_in: str) -> str | None:
        if path is None:
            return f"{image.path} is listed in {listed_in} and not in the folder"
        if "/" in image.name:
            return f"{image.path} has the same name as another image that {listed_in} lists; rename one"
        if image.annotations and not image.instances:
            return f"all its annotations {CROWDS}"
        return None

    def mask(self, truth: CocoImage, rule: MaskRule) -> np.ndarray:
        """The annotations drawn into one map, large ones first."""
        by_number = {annotation.number: annotation for annotation in truth.instances}
        codes = [(number, truth.code(annotation)) for number, annotation in by_number.items()]
        if codes and codes[-1][0] > np.iinfo(np.uint16).max:
            raise InputError(f"{codes[-1][0]} annotations, at most {np.iinfo(np.uint16).max} fit into a map of 16 bits")
        ids = np.zeros(truth.size, np.uint16)
        for number, code in sorted(codes, key=lambda pair: -area(pair[1])):
            ids[decode(code)] = number
        shown_ids = set(np.unique(ids).tolist())
        faults = [
            f"annotation {by_number[number].id} "
            + ("is hidden behind smaller ones: mark it" if area(code) else "encloses no pixel: take it out, or mark it")
            + ' "salient": false'
            for number, code in codes
            if number not in shown_ids
        ]
        if faults:
            raise InputError("; ".join(faults))
        return ids


LAYOUTS: dict[str, Layout] = {
    "pairs": Pairs(),
    "groups": Groups(),
    "coco": Coco(),
    "id_map": IdMap(),
    "colour_map": ColourMap(),
}


def _worded(category: str | None) -> str:
    """What instances of a category are called: no answer has the tags' `<` and `>` in its words."""
    return " ".join((category or "").replace("<", " ").replace(">", " ").split()) or "region"


def locate(folder: Path, wanted: str) -> Path:
    """A file or folder by its path in the archive, ignoring case and further folders around it.

    Archives differ between mirrors by an outer folder; where one place fits only, it is meant. Raises `DataError`.
    """
    found = places(folder, wanted)
    if len(found) == 1:
        return found.pop()
    files = sorted(path.relative_to(folder) for path, is_folder in walk(folder) if not is_folder)
    folders = [f"{shown(path)}/" for path in sorted({path.parent for path in files})[:_SAID]]
    packed = [shown(path) for path in files if path.suffix.lower() in _PACKED][:_SAID]
    cure = f"Unpack {', '.join(packed)} there, or correct" if packed else "Correct"
    raise DataError(
        f"{wanted}: expected once in the archive or folder, found {len(found)} times; files lie in: "
        f"{', '.join(folders) or 'none'}. {cure} this path of the split in the catalogue"
    )


def places(folder: Path, wanted: str) -> set[Path]:
    """Every file or folder that a path of the catalogue may mean: the one that is there exactly, or all that end so."""
    if (exact := folder / wanted).exists():
        return {_unwrapped(exact)}
    tail = [key(part) for part in Path(wanted).parts]
    return {
        _unwrapped(path)
        for path, _ in walk(folder)
        if [key(part) for part in path.relative_to(folder).parts[-len(tail) :]] == tail
    }


def _unwrapped(place: Path) -> Path:
    """A file or folder, or the folder of the same name that holds all its pictures.

    Windows unpacks `images.zip`, in which there is a folder `images`, into a folder `images`.
    """
    inner = only_folder(place) if place.is_dir() else None
    return inner if inner is not None and key(inner.name) == key(place.name) else place


def only_folder(folder: Path) -> Path | None:
    """The one folder in a folder, if no picture lies beside it; other files, such as `Thumbs.db`, say nothing."""
    with os.scandir(folder) as entries:
        inside = [folder / entry.name for entry in entries if entry.is_dir() and not hidden(entry.name)]
    return inside[0] if len(inside) == 1 and not pictures_in(folder) else None


def image_files(folder: Path, wanted: str) -> list[Path]:
    """The pictures of a folder, sorted; `wanted` may end in a pattern (`photos/*.jpg`)."""
    found = pictures_in(_holder(folder, wanted))
    if "*" in (pattern := key(Path(wanted).name)):
        return [path for path in found if Path(key(path.name)).match(pattern)]
    return found


def _holder(folder: Path, wanted: str) -> Path:
    """The folder that the pictures of `wanted` lie in."""
    path = Path(wanted)
    if "*" not in path.name:
        return _folder(folder, wanted)
    return _folder(folder, str(path.parent)) if len(path.parts) > 1 else folder


def _folder(folder: Path, wanted: str) -> Path:
    """`locate` for a folder. Raises `DataError` where a file has its name."""
    if not (found := locate(folder, wanted)).is_dir():
        raise DataError(f"{found}: expected a folder of pictures, found a file; move it away, or correct the catalogue")
    return found


def _check_elsewhere(images: Path, masks: Path, depth: int = 0) -> None:
    """Refuse pairs that lie deeper, or less deep, than a layout looks: they would be left out without a word."""
    if images.samefile(masks):
        return
    (here, ours), (there, theirs) = _by_depth(images, masks, depth), _by_depth(masks, images, depth)
    folders = {key(str(inner)): inner for held in theirs.values() for inner in held}
    alike = [(one, folders[key(str(one))]) for held in ours.values() for one in held if key(str(one)) in folders]
    # Of a name that is a pair at its place other pictures may lie around: thumbnails on one side, edges on the other.
    apart = [(min(ours[name]), min(theirs[name])) for name in ours.keys() & theirs.keys() - (here & there)]
    if found := alike or apart:
        one, other = min(found)
        both = shown(images.name / one), shown(masks.name / other)
        raise DataError(
            f"{both[0]} and {both[1]} hold pictures, where this layout does not look: move them to the others, "
            f"under names of their own, or make them a split (images: {both[0]}, masks: {both[1]})"
        )


def _by_depth(root: Path, other: Path, depth: int) -> tuple[set[str], dict[str, set[Path]]]:
    """The names of pictures as deep as a layout looks, and by their names the folders of those elsewhere.

    A name is that of the group and the file; what lies in `other` is not counted.
    """
    right: set[str] = set()
    wrong: dict[str, set[Path]] = defaultdict(set)
    for path in pictures_below(root):
        if other.is_relative_to(root) and path.is_relative_to(other):
            continue
        inner = path.parent.relative_to(root)
        name = key("/".join([*inner.parts[:depth], path.stem]))
        if len(inner.parts) == depth:
            right.add(name)
        else:
            wrong[name].add(inner)
    return right, wrong


def _groups(root: Path) -> dict[str, Path]:
    """The folders of groups by name. Raises `DataError` where two share one, in composed letters and in others."""
    groups: dict[str, Path] = {}
    for path in folders_in(root):
        if (other := groups.setdefault(_spelt(path.name), path)) != path:
            raise DataError(
                f"{shown(root.name)} has two folders {_spelt(path.name)!r}, in other letters ({other.name!a} and "
                f"{path.name!a}): rename or join them"
            )
    return groups


def _called_alike(folders: dict[str, Path], others: Collection[str]) -> dict[str, Path]:
    """Folders by their names; where one has another case than the only one of the others like it, by that one's."""
    alike = Counter(key(name) for name in {*folders} ^ {*others})
    theirs = {key(name): name for name in others if name not in folders}
    return {
        theirs.get(key(name), name) if name not in others and alike[key(name)] == 2 else name: path
        for name, path in folders.items()
    }


def _spelt(name: str) -> str:
    """A name as it is stored and said: composed letters, nothing that cannot be printed."""
    return nfc(shown(name))


def _by_name(found: Found, files: Sequence[Path], prefix: str = "") -> dict[str, Path]:
    """Files by their name without extension and case; a name that two files share belongs to neither."""
    named: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        named[key(path.stem)].append(path)
    for paths in named.values():
        if len(paths) > 1:
            both = " and ".join(shown(path.name) for path in paths)
            found.problems.append(
                Problem(prefix + _spelt(paths[0].stem), f"{both} have the same name in {paths[0].parent.name}")
            )
    return {name: paths[0] for name, paths in named.items() if len(paths) == 1}


def _pair(found: Found, images: dict[str, Path], masks: dict[str, Path], group: str | None = None) -> None:
    ambiguous = {key(problem.name) for problem in found.problems}
    prefix = f"{group}/" if group else ""
    for name in sorted(images.keys() | masks.keys()):
        image, mask = images.get(name), masks.get(name)
        if image and mask:
            found.items.append(Item(prefix + _spelt(image.stem), image, mask, group))
        elif key(prefix + name) not in ambiguous:
            present = image or mask
            assert present is not None
            missing = "has no mask" if image else "is a mask without an image"
            found.problems.append(Problem(prefix + _spelt(present.stem), f"{shown(present.name)} {missing}"))


def _files(item: Item) -> list[Path]:
    return [item.image, item.truth] if isinstance(item.truth, Path) else [item.image]


def keep_listed(found: Found, names: Iterable[str]) -> Found:
    """Only the items whose names are listed; a listed name that was not found is a problem."""
    stems = {stem(name.strip().replace("\\", "/").removeprefix("./")) for name in names if name.strip()}
    # `images/0001.jpg` means the item 0001 whose image, or mask, lies in a folder of that name.
    ways = {key(f"{path.parent.name}/{path.stem}"): key(item.name) for item in found.items for path in _files(item)}
    meant = {name: ways.get(key("/".join(name.split("/")[-2:])), key(name)) for name in stems}
    folded = set(meant.values())
    items = [item for item in found.items if key(item.name) in folded]
    problems = [problem for problem in found.problems if key(problem.name) in folded]
    known = {key(item.name) for item in items} | {key(problem.name) for problem in problems}
    problems += [
        Problem(name, "listed, and not among the images") for name in sorted(stems) if meant[name] not in known
    ]
    return Found(items, problems, found.unlisted + len(found.items) - len(items), found.crowds, found.objects)
