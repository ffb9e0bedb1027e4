"""How objects are called: the everyday word most of the time, a synonym now and then.

`variety` v in [0, 1] says how rich the language is: of a word's two synonyms the usual one is taken with probability
v (1 - v) and the rare one with v squared. Pretraining uses a small v (rare words exist, but are rare, as in any
corpus), annotation a large one, as a language model that likes to vary its wording would. Colours, sizes and places
have their synonyms here; those of a thing's name come with the thing, as `also`, and so does the word of its `family`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PLACES = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
SYNONYMS: dict[str, tuple[str, str]] = {
    "red": ("crimson", "scarlet"),
    "green": ("emerald", "leaf-green"),
    "blue": ("azure", "navy"),
    "yellow": ("golden", "lemon"),
    "purple": ("violet", "plum"),
    "orange": ("amber", "tangerine"),
    "brown": ("tan", "chestnut"),
    "pink": ("rosy", "fuchsia"),
    "white": ("snowy", "ivory"),
    "grey": ("gray", "silver"),
    "black": ("dark", "ebony"),
    "object": ("thing", "item"),
    "large": ("big", "sizeable"),
    "small": ("little", "tiny"),
    "faint": ("pale", "washed-out"),
    "top left": ("upper left", "top left corner"),
    "top": ("upper edge", "top edge"),
    "top right": ("upper right", "top right corner"),
    "left": ("left side", "left edge"),
    "centre": ("middle", "center"),
    "right": ("right side", "right edge"),
    "bottom left": ("lower left", "bottom left corner"),
    "bottom": ("lower edge", "bottom edge"),
    "bottom right": ("lower right", "bottom right corner"),
}


def word(canonical: str, rng: np.random.Generator, variety: float) -> str:
    """The canonical word or one of its synonyms, (usual, rare); unknown words stay as they are."""
    if canonical in SYNONYMS and rng.random() < variety:
        usual, rare = SYNONYMS[canonical]
        return rare if rng.random() < variety else usual
    return canonical


def noun(item: Mapping[str, Any], rng: np.random.Generator, variety: float) -> str:
    """What a thing is: its usual `name`, or a word of `also`, (usual, rare); where there is one only, it is both.

    Of names the synonyms above know "object" alone: an orange is no tangerine because the colour is.
    """
    also = item.get("also") or SYNONYMS.get(item["name"] if item["name"] == "object" else "", ())
    if not also:
        return str(item["name"])
    if rng.random() < variety:
        return str(also[-1] if rng.random() < variety else also[0])
    return str(item["name"])


def name(item: Mapping[str, Any], rng: np.random.Generator, variety: float = 0.0, detail: Sequence[str] = ()) -> str:
    """A noun phrase without article, such as "large red car"; `detail` adds attributes out of size, tone.

    A vivid tone is never said: vividness is what one does not notice about an object.
    """
    words = []
    if "tone" in detail and item["tone"] == "faint":
        words.append(word("faint", rng, variety))
    if "size" in detail:
        words.append(word(item["size"], rng, variety))
    if item["colour"]:
        words.append(word(item["colour"], rng, variety))
    if item["name"]:
        words.append(noun(item, rng, variety))
    return " ".join(words)


def at(place: str, rng: np.random.Generator, variety: float = 0.0) -> str:
    """A prepositional phrase such as "at the top left"."""
    return f"at the {word(place, rng, variety)}"


def join(parts: Sequence[str]) -> str:
    """An English enumeration: "a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def article(phrase: str) -> str:
    """The phrase with its indefinite article."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def describe(objects: Sequence[Mapping[str, Any]], rng: np.random.Generator, variety: float = 0.0) -> str:
    """What is in one image, in reading order: "a large red car at the top left and a faint small dog ..."."""
    parts = [
        f"{article(name(item, rng, variety, ('tone', 'size')))} {at(item['place'], rng, variety)}" for item in objects
    ]
    return join(parts)


def referring_phrase(item: Mapping[str, Any], rng: np.random.Generator, variety: float = 0.0, called: str = "") -> str:
    """One of the ways in which people point at an object: by name, by name and looks, by name and place.

    `called` is a name that is settled already, such as that of what several images share.
    """
    style = rng.random()
    detail = ("tone", "size") if style < 0.25 else ()
    if called:
        item = {**item, "colour": "", "name": "", "also": ()}
    phrase = " ".join(["the", *filter(None, (name(item, rng, variety, detail), called))])
    return f"{phrase} {at(item['place'], rng, variety)}" if style > 0.6 else phrase
