"""The annotator that needs no model: it knows the objects and says what a careful observer would.

Expressions come first, from the ground truth; the reasoning is then written towards them: what is in the image, what
speaks against the distractors, what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_r1.annotation import wording
from saliency_r1.annotation.interface import Proposal, Try
from saliency_r1.cot import KINDS, Expression

Objects = Sequence[Mapping[str, Any]]
SHOWS = ("There is {}.", "The image shows {}.", "In the image there is {}.")
FAINT = ("{} blends into the background.", "{} fades into the background.", "{} is too faint to notice.")
SMALL = ("{} is too small to notice.", "{} is a minor element.", "{} is too small to catch the eye.")
PLAIN = ("{} is nothing special.", "{} is there as well.", "{} is not what one looks at.")
STANDS_OUT = (("{} stands out.", "{} stand out."), ("{} draws the eye.", "{} draw the eye."),
              ("{} catches attention.", "{} catch attention."))  # fmt: skip
NOTHING = ("Nothing stands out.", "Nothing draws the eye.", "Nothing catches attention.")
SHARED = ("{} is in every image.", "{} occurs in each image.", "Only {} is shared.")


def _upper(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


class OfflineAnnotator:
    """Writes reasoning and expressions from the objects' attributes.

    `variety` in [0, 1] is how richly it words things, `vagueness` in [0, 1] how many of its expressions leave open what
    the object is.
    """

    def __init__(self, variety: float, vagueness: float = 0.0) -> None:
        self.variety = variety
        self.vagueness = vagueness

    def write(self, tries: Sequence[Try]) -> list[Proposal]:
        """The same for equal seeds; plainer at every further attempt."""
        return [self._proposal(one) for one in tries]

    def _proposal(self, one: Try) -> Proposal:
        subject, rng = one.subject, np.random.default_rng(one.seed)
        variety, vagueness = (share * (1 - one.number / one.of) for share in (self.variety, self.vagueness))
        shared = called = ""
        if subject.task == "cosod" and any(subject.salient):
            kind = _common(subject.salient)
            shared = wording.name(kind, rng, variety)
            called = wording.name(_vaguely(kind, rng, vagueness), rng, variety)
        phrases = [
            [wording.referring_phrase(_vaguely(item, rng, vagueness), rng, variety, called) for item in items]
            for items in subject.salient
        ]
        if subject.task == "sis":
            phrases = [_told_apart(phrases[0], subject.salient[0], rng, variety)]
        if subject.task == "cosod":
            phrases = [own or [""] for own in phrases]
        expressions = tuple(
            Expression(KINDS[subject.task], index, phrase) for index, own in enumerate(phrases) for phrase in own
        )
        if subject.task == "cosod":
            reasoning = self._shared(subject.objects, shared, rng, variety)
        else:
            reasoning = self._standing_out(subject.objects[0], subject.salient[0], rng, variety)
        return Proposal(reasoning, expressions)

    def _standing_out(self, objects: Objects, salient: Objects, rng: np.random.Generator, variety: float) -> str:
        """What is there, what does not matter and why, what stands out."""
        sentences = [str(rng.choice(SHOWS)).format(wording.describe(objects, rng, variety))] if objects else []
        for item in objects:
            if not item["salient"]:
                reasons = FAINT if item["tone"] == "faint" else SMALL if item["size"] == "small" else PLAIN
                sentences.append(_upper(str(rng.choice(reasons)).format(self._the(item, rng, variety))))
        if not salient:
            return " ".join([*sentences, str(rng.choice(NOTHING))])
        names = [self._the(item, rng, variety) for item in salient]
        singular, plural = STANDS_OUT[rng.integers(len(STANDS_OUT))]
        sentences.append(_upper((singular if len(names) == 1 else plural).format(wording.join(names))))
        return " ".join(sentences)

    def _shared(self, objects: Sequence[Objects], shared: str, rng: np.random.Generator, variety: float) -> str:
        """What each image shows, by name alone (what is shared is a kind, not a place), and what occurs in all.

        `shared` is empty where nothing is.
        """
        sentences, without = [], []
        for number, image in enumerate(objects, start=1):
            names = [shared if item["salient"] else wording.name(item, rng, variety) for item in image]
            if names:
                sentences.append(f"Image {number} shows {wording.join([wording.article(name) for name in names])}.")
            if not any(item["salient"] for item in image):
                without.append(f"image {number}")
        if not shared:
            sentences.append("Nothing is shared.")
        elif without:
            sentences.append(f"The {shared} is in every image but {wording.join(without)}.")
        else:
            sentences.append(_upper(str(rng.choice(SHARED)).format(f"the {shared}")))
        return " ".join(sentences)

    def _the(self, item: Mapping[str, Any], rng: np.random.Generator, variety: float) -> str:
        return f"the {wording.name(item, rng, variety)}"


def _vaguely(item: Mapping[str, Any], rng: np.random.Generator, share: float) -> Mapping[str, Any]:
    """The object, in a share of the cases without saying what it is: "the animal", "the red thing"."""
    if rng.random() >= share:
        return item
    family = item.get("family", "")
    if family and rng.random() < 0.5:
        return {**item, "colour": item["colour"] if rng.random() < 0.5 else "", "name": family, "also": ()}
    return {**item, "name": "object", "also": ()} if item["colour"] else item


def _common(salient: Sequence[Objects]) -> dict[str, Any]:
    """What gives all objects of a group their name; a colour that differs is left out."""
    items = [item for image in salient for item in image]
    colours, names = ({item[key] for item in items} for key in ("colour", "name"))
    first = items[0] if len(names) == 1 else {"name": "object"}
    shared = {key: first.get(key, default) for key, default in (("name", ""), ("also", ()), ("family", ""))}
    return {**shared, "colour": items[0]["colour"] if len(colours) == 1 else ""}


def _told_apart(phrases: list[str], items: Objects, rng: np.random.Generator, variety: float) -> list[str]:
    """The phrases of one image's instances; where two are the same, looks and place are added to them."""
    return [
        f"the {wording.name(item, rng, variety, ('tone', 'size'))} {wording.at(item['place'], rng, variety)}"
        if phrases.count(phrase) > 1
        else phrase
        for phrase, item in zip(phrases, items)
    ]
