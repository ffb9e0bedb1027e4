"""COCO files: the one reader of ground truth (images with annotations) and of results (rows with scores).

    truth = read_truth(Path("instances.json"))
    for image in truth.images:
        codes = [image.code(annotation) for annotation in image.annotations if not annotation.crowd]

    found = read_results(Path("results.json"), {image.name: image.size for image in truth.images}, truth.names)

What stands in the file is checked when it is read; an outline when its code is made. An id may be a number in one list
and text in another. File names may come from Windows; they are names to be looked up, never paths to be opened.
"""

from __future__ import annotations

import math
import reprlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import key, shown
from saliency_r1.inputs.image_names import ImageNames, stem, tidy
from saliency_r1.inputs.regions import MOST_PIXELS, SHARES, Code, are_shares, encode, listed
from saliency_r1.inputs.text import read_json
from saliency_r1.runtime.messages import printable

Found = dict[str, list[tuple[Code, float]]]

CROWDS = (
    'are crowds ("iscrowd": 1), and crowds are not instances. Where they are meant as such (CVAT writes every brush '
    'mask with it), write "iscrowd": 0 in the file'
)


@dataclass(frozen=True)
class Annotation:
    """One annotation of an image. `number` is its place among them in the order of ids, from 1.

    `category` is the name of its category, None where the file does not say it.
    """

    id: int | str
    number: int
    crowd: bool
    category: str | None
    segmentation: Any = field(repr=False)


@dataclass(frozen=True)
class CocoImage:
    """One image of a ground truth.

    `name` is its file's name without folders and extension, or with its folders where another file has the same;
    `path` the file's name as it is written, with `/`. `annotations` stand in the order of pycocotools, which decides
    between equal overlaps: by category, then as in the file.
    """

    id: int | str
    name: str
    path: str
    height: int
    width: int
    annotations: tuple[Annotation, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def instances(self) -> list[Annotation]:
        """The annotations that are no crowds, in the order of their numbers."""
        return sorted((a for a in self.annotations if not a.crowd), key=lambda annotation: annotation.number)

    def code(self, annotation: Annotation) -> Code:
        """The region of an annotation. Raises `InputError`."""
        try:
            return encode(annotation.segmentation, self.height, self.width)
        except InputError as error:
            raise InputError(f"annotation {annotation.id!r} of {self.path} {error}") from None


@dataclass(frozen=True)
class CocoTruth:
    """A ground truth in the order of the images' ids. `problems` are images that cannot be used: name and reason.

    `categories` are the names of the categories; `crowds` counts the annotations that are crowds.
    """

    images: tuple[CocoImage, ...]
    problems: tuple[tuple[str, str], ...]
    categories: tuple[str, ...]
    names: ImageNames
    crowds: int


def read_truth(path: Path) -> CocoTruth:
    """Read COCO instances: `images` with id, file_name, height, width; `annotations` with id, image_id, segmentation.

    Annotations with `"salient": false` are left out, though they keep their number. Raises `InputError`, naming what is
    wrong with which entries, for anything that makes the file as a whole ambiguous: entries that are no objects, ids or
    file names that stand twice, annotations of no image, nothing but crowds.
    """
    content = read_json(path, nan=True)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise InputError(f"{shown(path)} is no COCO ground truth: it needs images and annotations")
    entries = _Entries(shown(path), content)
    images = entries.by_id("images")
    annotations = entries.by_id("annotations")
    categories = {one: _said(entry.get("name")) for one, entry in entries.by_id("categories").items()}
    names = _names(entries, images)
    of_image = _by_image(entries, images, annotations, categories)
    if not images:
        entries.faults.append("it lists no image")
    if are_shares(entry.get("segmentation") for entry in annotations.values()):
        entries.faults.append(SHARES)
    entries.finish()
    every = [annotation for found in of_image.values() for annotation in found]
    crowds = sum(annotation.crowd for annotation in every)
    if every and crowds == len(every):
        raise InputError(f"{shown(path)}: all {crowds} annotations {CROWDS}")
    usable, problems = [], []
    for one, entry in sorted(images.items(), key=lambda item: _order(item[1]["id"])):
        height, width = (_whole(entry.get(side)) for side in ("height", "width"))
        if height is None or width is None or height * width > MOST_PIXELS:
            said = f"height {reprlib.repr(entry.get('height'))} and width {reprlib.repr(entry.get('width'))}"
            problems.append((names[one][0], f"{path.name} gives the image {said}, expected its pixels"))
        else:
            usable.append(CocoImage(entry["id"], *names[one], height, width, tuple(of_image[one])))
    known = ImageNames.of((name for name, _ in names.values()), dict(names.values()))
    numbers = all(isinstance(entry["id"], int) for entry in images.values())
    known = ImageNames({one: name for one, (name, _) in names.items()}, numbers, known.aliases)
    return CocoTruth(tuple(usable), tuple(problems), tuple(categories.values()), known, crowds)


def read_results(path: Path, sizes: Mapping[str, tuple[int, ...]], names: ImageNames) -> Found:
    """Read COCO results, a list of rows with image_id, segmentation and score: codes with scores by image name.

    A data set whose annotations have scores, as `saliency-r1 predict --format coco` writes it, is read by the names of
    its images, and says which images were looked at: only those have an entry.

    `sizes` are height and width of the images of the ground truth. Of a list of rows every image of `sizes` has an
    entry, if only an empty list; an image that is not among them has one too, empty, so that it can be named.
    Categories say nothing here but the order of equal scores, as in pycocotools. Raises `InputError` for the rows that
    cannot be used, and for a data set's images that stand twice.
    """
    content = read_json(path, nan=True)
    found: Found = {name: [] for name in sizes}
    own: dict[str, str] | None = None
    if _is_scored(content):
        own = _images_of(content, names, shown(path))
        found = {name: [] for name in own.values()}
        content = content["annotations"]
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        raise InputError(f"{shown(path)} is a COCO data set, expected results: save its list of annotations alone")
    if not isinstance(content, list):
        raise InputError(f"{shown(path)} holds no COCO results, expected a list of rows")
    faults = [f"row {place} {fault}" for place, row in enumerate(content, 1) if (fault := _row_fault(row, own))]
    if not faults and are_shares(row["segmentation"] for row in content):
        raise InputError(f"{shown(path)}: {SHARES}")
    if not faults:
        written = [one for row in content if (one := _id(row["image_id"])) is not None]
        try:
            images = names.resolve(written) if own is None else [own[str(one)] for one in written]
        except InputError as error:
            raise InputError(f"{shown(path)}: {error}") from None
        order = sorted(range(len(content)), key=lambda place: _category(content[place]))
        for place in order:
            row, image = content[place], images[place]
            if image is None or image not in sizes:
                found.setdefault(image or printable(str(row["image_id"])), [])
                continue
            try:
                found[image].append((encode(row["segmentation"], *sizes[image]), float(row["score"])))
            except InputError as error:
                faults.append(f"row {place + 1} ({image}) {error}")
    if faults:
        raise InputError(f"{shown(path)}: {len(faults)} results cannot be used\n{listed(faults)}")
    return found


def _is_scored(content: Any) -> bool:
    """Whether this is a data set with a score on every annotation."""
    if not isinstance(content, dict):
        return False
    images, rows = content.get("images"), content.get("annotations")
    if not (isinstance(images, list) and isinstance(rows, list)):
        return False
    return (
        bool(images)
        and all(isinstance(one, dict) and "score" in one for one in rows)
        and all(isinstance(one, dict) and isinstance(one.get("file_name"), str) for one in images)
    )


def _images_of(content: dict[str, Any], names: ImageNames, file: str) -> dict[str, str]:
    """The images of a data set of predictions by its own ids, which mean nothing elsewhere; their names do.

    Raises `InputError` for ids and names that stand there twice.
    """
    entries = _Entries(file, content)
    paths = {one: stem(tidy(image["file_name"])) for one, image in entries.by_id("images").items()}
    images = {one: names.named(path) or printable(path) for one, path in paths.items()}
    entries.say("images have no usable file_name: id", [one for one, path in paths.items() if not path])
    meant = Counter(map(key, images.values()))
    twice = sorted(path for one, path in paths.items() if path and meant[key(images[one])] > 1)
    entries.say("images are the same as another one:", twice)
    entries.finish("predictions")
    return images


def _row_fault(row: Any, images: Mapping[str, str] | None) -> str | None:
    """What is wrong with a row; `images` are those of its data set by their ids, if it is of one."""
    if not isinstance(row, dict):
        return f"is {reprlib.repr(row)}, expected an object"
    if _id(row.get("image_id")) is None:
        return "has no image_id, expected the image's name or its id in the ground truth"
    if images is not None and str(_id(row["image_id"])) not in images:
        return f"has the image_id {reprlib.repr(row['image_id'])}, which the file does not list among its images"
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not _finite(score):
        said = f"the score {reprlib.repr(score)}" if "score" in row else "no score"
        return f"has {said}, expected a finite number; without scores give each the same"
    if row.get("segmentation") is None:
        return "has no segmentation; boxes are not scored here"
    return None


@dataclass
class _Entries:
    """The lists of a data set, and what is found to be wrong with them."""

    name: str
    content: dict[str, Any]
    faults: list[str] = field(default_factory=list)

    def by_id(self, what: str) -> dict[str, dict[str, Any]]:
        """The entries of a list by their id as text; in the entries an id becomes a whole number or text."""
        entries = self.content.get(what) or []
        if not isinstance(entries, list):
            raise InputError(f"{self.name}: {what} is {reprlib.repr(entries)}, expected a list of objects")
        found: dict[str, dict[str, Any]] = {}
        twice: Counter[str] = Counter()
        bad = []
        for place, entry in enumerate(entries, 1):
            one = _id(entry.get("id")) if isinstance(entry, dict) else None
            if one is None:
                bad.append(str(place))
            elif str(one) in found:
                twice[str(one)] += 1
            else:
                found[str(one)] = entry | {"id": one}
        self.say(f"entries of {what} are no objects with an id: number", bad)
        remedy = "number them anew" if what == "annotations" else "name one thing each"
        self.say(f"ids of {what} stand there more than once ({remedy}):", list(twice))
        return found

    def say(self, what: str, which: Sequence[str]) -> None:
        """Note a fault of some entries, if there are any."""
        if which:
            more = f" and {len(which) - 10} more" if len(which) > 10 else ""
            self.faults.append(f"{len(which)} {what} {', '.join(map(printable, which[:10]))}{more}")

    def finish(self, use: str = "ground truth") -> None:
        """Raise what was noted."""
        if self.faults:
            raise InputError(f"{self.name} cannot be used as {use}\n{listed(self.faults)}")


def _names(entries: _Entries, images: Mapping[str, dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Name and path of every image by its id."""
    paths = {one: tidy(entry.get("file_name")) for one, entry in images.items()}
    entries.say("images have no usable file_name: id", [one for one, path in paths.items() if not path])
    long = Counter(key(stem(path)) for path in paths.values() if path)
    twice = [path for path in paths.values() if long[key(stem(path))] > 1]
    entries.say("images have the file_name of another, extension aside:", sorted(twice))
    base = {one: stem(PurePosixPath(path).name) for one, path in paths.items()}
    short = Counter(map(key, base.values()))
    return {one: (base[one] if short[key(base[one])] == 1 else stem(path), path) for one, path in paths.items()}


def _by_image(
    entries: _Entries,
    images: Mapping[str, Any],
    annotations: Mapping[str, dict[str, Any]],
    categories: Mapping[str, str],
) -> dict[str, list[Annotation]]:
    """The annotations of every image, those of one category in the file's order."""
    orphans, crowds, salient = [], [], []
    of_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one, entry in annotations.items():
        known = _id(entry.get("image_id"))
        image = str(known)
        if known is None or image not in images:
            orphans.append(one)
        elif entry.get("iscrowd") not in (None, 0, 1):
            crowds.append(one)
        elif not isinstance(entry.get("salient", True), bool):
            salient.append(one)
        else:
            of_image[image].append(entry)
    entries.say("annotations belong to an image_id that is not listed: id", orphans)
    entries.say("annotations have an iscrowd other than 0 and 1: id", crowds)
    entries.say("annotations have a salient other than true and false: id", salient)
    found: dict[str, list[Annotation]] = defaultdict(list)
    for image, mine in of_image.items():
        numbers = {id(entry): place for place, entry in enumerate(sorted(mine, key=lambda e: _number(e["id"])), 1)}
        found[image] = [
            Annotation(
                entry["id"],
                numbers[id(entry)],
                bool(entry.get("iscrowd")),
                categories.get(str(_id(entry.get("category_id")))) or None,
                entry.get("segmentation"),
            )
            for entry in sorted(mine, key=_category)
            if entry.get("salient", True)
        ]
    return found


def _said(name: Any) -> str:
    """The name of a category, empty where there is none."""
    return "" if name is None else printable(str(name)).strip()


def _id(value: Any) -> int | str | None:
    """An id as it is compared: a whole number or a text; none for anything else."""
    if isinstance(value, bool) or value is None or value == "":
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int | str) else None


def _category(entry: Mapping[str, Any]) -> tuple[bool, int | str]:
    return _order(_id(entry.get("category_id")) or 0)


def _order(value: int | str) -> tuple[bool, int | str]:
    """Numbers before texts, each in their order: that of pycocotools, which decides between equal scores."""
    return isinstance(value, str), value


def _number(value: int | str) -> tuple[bool, int | str]:
    """The same, with texts of digits counted as numbers."""
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    return _order(int(value) if digits else value)


def _whole(value: Any) -> int | None:
    """A whole number above 0, none for anything else."""
    number = _id(value)
    return number if isinstance(number, int) and number > 0 else None


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
