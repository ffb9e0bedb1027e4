"""Importers: what a data set looks like on disk, one small class for each layout.

`find` pairs images with ground truth by name and says what it could not pair; `mask` reads one ground truth. Opening,
checking and storing a pair is the same for all of them: `store.import_item`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from saliency_r1.data.catalogue import MaskRule, Split
from saliency_r1.data.errors import DataError
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import SUFFIXES, folders_in, key, nfc, pictures_in, shown, walk
from saliency_r1.inputs.masks import read_ids, read_mask
from saliency_r1.inputs.text import read_json


@dataclass(frozen=True)
class Item:
    """An image and its ground truth (a mask file, or the COCO annotations of the image), not yet opened."""

    name: str
    image: Path
    truth: Path | tuple[dict[str, Any], ...]
    group: str | None = None


@dataclass(frozen=True)
class Problem:
    """An image (or a mask without one) that is not imported, and why."""

    name: str
    reason: str


@dataclass
class Found:
    """What a layout found. `unlisted` counts images of the folder that the annotations or the list do not mention.

    `objects` is what the annotations tell about the instances of an image, by its name: `[{"id": 1, "name": "cat"}]`.
    """

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unlisted: int = 0
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
        )
        return mask.foreground.astype(np.uint8) * 255


class Groups(Pairs):
    """Categories of images for CoSOD: `image/<group>/*` with `gt/<group>/*`."""

    def find(self, folder: Path, split: Split) -> Found:
        """Pair by group and name; the name of an item is `<group>/<name>`."""
        found = Found()
        images, masks = locate(folder, split.images), locate(folder, split.masks)
        folders = [{_spelt(path.name): path for path in folders_in(root)} for root in (images, masks)]
        for group in sorted(folders[0].keys() | folders[1].keys()):
            ours, theirs = (
                _by_name(found, pictures_in(named[group]) if group in named else [], f"{group}/") for named in folders
            )
            _pair(found, ours, theirs, group)
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
        """Look up the images that the json lists."""
        found = Found()
        content = _read_json(locate(folder, str(split.annotations)))
        try:
            of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
            for annotation in sorted(content["annotations"], key=lambda entry: entry["id"]):
                of_image[annotation["image_id"]].append(annotation)
            listed = [(image["file_name"], image["id"], image["height"], image["width"]) for image in content["images"]]
            categories = {entry["id"]: str(entry["name"]) for entry in content.get("categories", ())}
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{split.annotations}: expected COCO instances (images, annotations), missing {error}"
            ) from None
        files = image_files(folder, split.images)
        by_file = {path.name.casefold(): path for path in files}
        taken: set[str] = set()
        for file_name, image_id, height, width in sorted(listed, key=lambda image: str(image[0])):
            name = Path(file_name).stem
            path = by_file.get(Path(file_name).name.casefold())
            if path is None:
                found.problems.append(
                    Problem(name, f"{file_name} is listed in {split.annotations} and not in the folder")
                )
            elif name.casefold() in taken:
                found.problems.append(Problem(name, f"{file_name} is listed twice"))
            else:
                taken.add(name.casefold())
                size = {"height": height, "width": width}
                found.items.append(Item(name, path, ({"size": size}, *of_image[image_id])))
                if len(categories) > 1:  # a single one is "object" or "salient" and tells nothing
                    found.objects[name] = [
                        {"id": number, "name": categories.get(annotation.get("category_id"), "region")}
                        for number, annotation in self._shown(of_image[image_id])
                    ]
        found.unlisted = len(files) - len(found.items)
        return found

    def mask(self, truth: tuple[dict[str, Any], ...], rule: MaskRule) -> np.ndarray:
        """The annotations drawn into one map, large ones first."""
        size, *annotations = truth
        height, width = size["size"]["height"], size["size"]["width"]
        drawn = [(number, _decode(annotation, height, width)) for number, annotation in self._shown(annotations)]
        ids = np.zeros((height, width), np.uint16)
        for number, region in sorted(drawn, key=lambda pair: -int(pair[1].sum())):
            ids[region] = number
        hidden = {number for number, _ in drawn} - set(np.unique(ids).tolist())
        if hidden:
            raise InputError(f"instances {sorted(hidden)} are empty or hidden behind others")
        return ids

    def _shown(self, annotations: Sequence[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        """The annotations that belong into the map, with their numbers."""
        for number, annotation in enumerate(annotations, 1):
            if annotation.get("salient", True) and not annotation.get("iscrowd", 0):
                yield number, annotation


LAYOUTS: dict[str, Layout] = {
    "pairs": Pairs(),
    "groups": Groups(),
    "coco": Coco(),
    "id_map": IdMap(),
    "colour_map": ColourMap(),
}


def locate(folder: Path, wanted: str) -> Path:
    """A file or folder by its path in the archive, ignoring case and further folders around it.

    Archives differ between mirrors by an outer folder; where one place fits only, it is meant. Raises `DataError`.
    """
    if (exact := folder / wanted).exists():
        return exact
    tail = [key(part) for part in Path(wanted).parts]
    matches = [
        path for path, _ in walk(folder) if [key(part) for part in path.relative_to(folder).parts[-len(tail) :]] == tail
    ]
    if len(matches) == 1:
        return matches[0]
    folders = sorted({str(path.parent.relative_to(folder)) for path, is_folder in walk(folder) if not is_folder})[:10]
    raise DataError(
        f"{wanted}: expected once in the archive, found {len(matches)} times; files lie in: "
        f"{', '.join(folders) or 'none'}. Correct images, masks or annotations of the split in the catalogue"
    )


def image_files(folder: Path, wanted: str) -> list[Path]:
    """The pictures of a folder, sorted; `wanted` may end in a pattern (`photos/*.jpg`)."""
    if "*" in Path(wanted).name:
        parent = locate(folder, str(Path(wanted).parent)) if len(Path(wanted).parts) > 1 else folder
        pattern = key(Path(wanted).name)
        return [path for path in pictures_in(parent) if Path(key(path.name)).match(pattern)]
    return pictures_in(locate(folder, wanted))


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


def _decode(annotation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """A COCO segmentation (polygons, or a run-length code) as a bool H x W array."""
    from pycocotools import mask as coco

    segmentation: Any = annotation.get("segmentation")
    try:
        if isinstance(segmentation, list):
            codes = coco.frPyObjects(segmentation, height, width)
            return np.asarray(coco.decode(coco.merge(codes)), bool)
        if isinstance(segmentation["counts"], list):
            segmentation = coco.frPyObjects(segmentation, height, width)
        if tuple(segmentation["size"]) != (height, width):
            raise InputError(f"annotation {annotation.get('id')}: size {segmentation['size']}, image {[height, width]}")
        return np.asarray(coco.decode(segmentation), bool)
    except InputError:
        raise
    except Exception as error:  # pycocotools raises whatever it stumbles over
        raise InputError(f"annotation {annotation.get('id')}: not a COCO segmentation ({error})") from error


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except InputError as error:
        raise DataError(str(error)) from None


def keep_listed(found: Found, names: Iterable[str]) -> Found:
    """Only the items whose names are listed; a listed name that was not found is a problem."""
    wanted = {name.strip() for name in names if name.strip()}
    stems = {name.rsplit(".", 1)[0] if Path(name).suffix.lower() in SUFFIXES else name for name in wanted}
    folded = {key(name) for name in stems}
    items = [item for item in found.items if key(item.name) in folded]
    known = {key(item.name) for item in items}
    problems = [problem for problem in found.problems if key(problem.name) in folded]
    reported = {key(problem.name) for problem in problems}
    problems += [
        Problem(name, "listed, and not among the images") for name in sorted(stems) if key(name) not in known | reported
    ]
    return Found(items, problems, found.unlisted + len(found.items) - len(items), found.objects)
