"""What results call an image: by its id, or by one of the ways in which people write a file's name."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import SUFFIXES, UNREAD, key


@dataclass(frozen=True)
class ImageNames:
    """What results may call an image: the id of the ground truth, or its name, with or without folders and extension.

    Folders of maps have no ids: `ImageNames.of(names)`.
    """

    ids: Mapping[str, str] = field(default_factory=dict)
    numbers: bool = False  # ids are numbers in the file
    aliases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Iterable[str], paths: Mapping[str, str] | None = None) -> ImageNames:
        """Images without ids; `paths` are further ways of writing a name, by name."""
        names = list(names)
        written: dict[str, set[str]] = defaultdict(set)
        for name in names:
            for text in (name, *spellings((paths or {}).get(name, name))):
                written[key(text)].add(name)
        unique = {text: next(iter(found)) for text, found in written.items() if len(found) == 1}
        return cls(aliases=unique | {name: name for name in names})

    def named(self, text: str) -> str | None:
        """The image that is called this."""
        return self.aliases.get(text) or next(
            (self.aliases[key(other)] for other in (text, *spellings(text)) if key(other) in self.aliases), None
        )

    def resolve(self, written: Sequence[int | str]) -> list[str | None]:
        """The images that the rows of a result file mean.

        Where a row may mean the id of one image and the name of another, what fits more rows decides; if both fit
        them all, numbers are ids and texts are names. Raises `InputError` where the ids are texts as well.
        """
        by_id = [self.ids.get(str(one)) for one in written]
        by_name = [self.named(str(one)) for one in written]
        names_first = by_name.count(None) < by_id.count(None)
        if by_name.count(None) == by_id.count(None):
            unclear = [one for one, a, b in zip(written, by_id, by_name) if a and b and a != b]
            names_first = any(isinstance(one, str) for one in unclear)
            if names_first and not self.numbers:
                raise InputError(
                    f"image_id {unclear[0]!r} may be the id of one image and the name of another: write names with "
                    "their extension"
                )
        return [(b or a) if names_first else (a or b) for a, b in zip(by_id, by_name)]


def tidy(file_name: Any) -> str:
    """A file name as a path below some folder: `/` for a backslash, no drive, no way up; empty if nothing is left."""
    if not isinstance(file_name, str) or any(
        unicodedata.category(character) in ("Cc", "Cs") for character in file_name
    ):
        return ""
    parts = file_name.replace("\\", "/").split("/")
    if len(parts[0]) == 2 and parts[0][1] == ":":
        parts = parts[1:]
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def stem(path: str) -> str:
    """A path without the extension of a picture."""
    suffix = PurePosixPath(path).suffix
    return path[: -len(suffix)] if suffix.lower() in SUFFIXES | UNREAD else path


def spellings(path: str) -> list[str]:
    """Ways in which a file is named: with and without folders and extension, with percent signs resolved."""
    path = tidy(path)
    whole = dict.fromkeys((path, unquote(path)))
    return [spelling for text in whole for spelling in (stem(text), stem(PurePosixPath(text).name))]
