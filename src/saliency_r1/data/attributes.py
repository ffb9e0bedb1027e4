"""What a data set says of the objects in its images: `attributes.json`, read, checked and compared with the masks."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saliency_r1.data.catalogue import DatasetSplit
from saliency_r1.data.errors import DataError
from saliency_r1.data.importers import locate, places
from saliency_r1.data.store import Imported
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import key
from saliency_r1.inputs.image_names import stem
from saliency_r1.inputs.text import LONE_SURROGATE, read_json

Objects = Mapping[str, list[dict[str, Any]]]  # of the images of a split, by name

_MEASURED = ("size", "tone", "place")  # of a scene object, where they are left out
_WORDS = ("colour", "name", "family", "phrase", "shape", *_MEASURED)


def read(part: DatasetSplit, source: Path, images: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The scene objects of images, by name, as far as the data set has them; says how many images it does not name.

    Raises `DataError` for a file that cannot be used.
    """
    if "attributes" not in part.split.model_fields_set and not places(source, part.split.attributes):
        return {}
    try:
        path = locate(source, part.split.attributes)
    except DataError as error:
        raise DataError(f"{part}: {error}") from None
    problem = f"{part}: {part.split.attributes}: expected JSON, {{'<name>': [{{...}}, ...]}}"
    try:
        content = read_json(path)
    except InputError as error:
        raise DataError(f"{problem} ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{problem}, found {type(content).__name__}")
    alike = Counter(map(key, images))
    exact, folded = set(images), {key(image): image for image in images if alike[key(image)] == 1}
    found: dict[str, list[dict[str, Any]]] = {}
    for name, objects in content.items():
        if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
            raise DataError(f"{problem}; {name!r} has {objects!r}")
        if fault := next(filter(None, map(_object_fault, objects)), None):
            raise DataError(f"{problem}; {name!r} {fault}")
        if LONE_SURROGATE.search(json.dumps(objects, ensure_ascii=False)):
            raise DataError(f"{problem}; {name!r} has half a character (a surrogate alone); write it whole")
        if part.dataset.task != "sis":  # where an id says nothing, it may be left out
            objects = [{"id": place} | one for place, one in enumerate(objects, 1)]
            ids = [one["id"] for one in objects]
            if 1 not in ids and any(one.get("salient", True) for one in objects):
                raise DataError(f"{problem}; {name!r} has the ids {ids}, expected 1 for the salient region, or no ids")
        ways = (name, stem(name))
        image = next((way for way in ways if way in exact), None) or next(
            (folded[key(way)] for way in ways if key(way) in folded), None
        )
        if image is not None and found.setdefault(image, objects) is not objects:
            raise DataError(f"{problem}; {image!r} has two entries, such as {name!r}; keep one")
    if absent := len(images) - len(found):
        print(f"{part}: {absent} of {len(images)} images are not in {part.split.attributes}", flush=True)
    return found


def disagreement(part: DatasetSplit, result: Imported, objects: Objects | None) -> str | None:
    """Why the attributes of an image do not fit its instance map, if they do not."""
    if part.dataset.task != "sis" or objects is None or result.name not in objects:
        return None
    salient = sorted(one.get("id", 0) for one in objects[result.name] if one.get("salient", True))
    if salient == list(result.ids):
        return None
    return f"its attributes name the salient ids {salient}, its instance map has {list(result.ids)}"


def _object_fault(one: dict[str, Any]) -> str | None:
    """What is said of an object that no stage after the import could make words of, if anything is."""
    if not isinstance(one.get("id", 0), (int, float)):
        return f"has the id {one['id']!r}, expected a number as in the map"
    if one.get("salient", True) not in (True, False):
        return f"has {one['salient']!r} for salient, expected true or false"
    for word in _WORDS:
        unknown = one.get(word) is None and (word not in one or word not in _MEASURED)
        if not unknown and not _is_plain(one[word]):
            return f"has the {word} {one[word]!r}, expected words without < and >"
    also = one.get("also") or []
    if not isinstance(also, list) or not all(map(_is_plain, also)):
        return f"has {also!r} for also, expected a list of words without < and >"
    return None


def _is_plain(words: Any) -> bool:
    """Whether this is a text that an answer may have between its tags, or none at all."""
    return isinstance(words, str) and not {"<", ">"} & {*words} and (not words or not words.isspace())
