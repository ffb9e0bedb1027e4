"""The annotator that needs no model: it knows the objects and says what a careful observer would.

Expressions come first, from the ground truth; the reasoning is then written towards them: what is in the image, what
speaks against the distractors, what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_r1.annotation.interface import Proposal, Try
from saliency_r1.cot import KINDS, Expression
from saliency_r1.data import wording

Objects = Sequence[Mapping[str, Any]]
SHOWS = ("There is {}.", "The image shows {}.", "In the image there is {}.")
FAINT = ("{} blends into the background.", "{} fades into the background.", "{} is too faint to notice.")
SMALL = ("{} is too small to notice.", "{} is a minor element.", "{} is small and leaves the eye.")
STANDS_OUT = (("{} stands out.", "{} stand out."), ("{} draws the eye.", "{} draw the eye."),
              ("{} catches attention.", "{} catch attention."))  # fmt: skip
SHARED = ("{} is in every image.", "{} occurs in each image.", "Only {} is shared.")


def _upper(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


class OfflineAnnotator:
    """Writes reasoning and expressions from the objects' attributes, in wording as rich as `variety` in [0, 1] says."""

    def __init__(self, variety: float) -> None:
        self.variety = variety

    def write(self, tries: Sequence[Try]) -> list[Proposal]:
        """The same for equal seeds; plainer at every further attempt."""
        return [self._proposal(one) for one in tries]

    def _proposal(self, one: Try) -> Proposal:
        subject, rng = one.subject, np.random.default_rng(one.seed)
        variety = self.variety * (1 - one.number / one.of)
        expressions = tuple(
            Expression(KINDS[subject.task], index, wording.referring_phrase(item, rng, variety))
            for index, items in enumerate(subject.salient)
            for item in items
        )
        if subject.task == "cosod":
            reasoning = self._shared(subject.objects, subject.salient, rng, variety)
        else:
            reasoning = self._standing_out(subject.objects[0], subject.salient[0], rng, variety)
        return Proposal(reasoning, expressions)

    def _standing_out(self, objects: Objects, salient: Objects, rng: np.random.Generator, variety: float) -> str:
        """What is there, what does not matter and why, what stands out."""
        sentences = [str(rng.choice(SHOWS)).format(wording.describe(objects, rng, variety))]
        for item in objects:
            if not item["salient"]:
                reasons = FAINT if item["tone"] == "faint" else SMALL
                sentences.append(_upper(str(rng.choice(reasons)).format(self._the(item, rng, variety))))
        names = [self._the(item, rng, variety) for item in salient]
        singular, plural = STANDS_OUT[rng.integers(len(STANDS_OUT))]
        sentences.append(_upper((singular if len(names) == 1 else plural).format(wording.join(names))))
        return " ".join(sentences)

    def _shared(
        self, objects: Sequence[Objects], salient: Sequence[Objects], rng: np.random.Generator, variety: float
    ) -> str:
        """What each image shows, by name alone (what is shared is a kind, not a place), and what occurs in all."""
        sentences = []
        for number, image in enumerate(objects, start=1):
            names = [wording.article(wording.name(item, rng, variety)) for item in image]
            sentences.append(f"Image {number} shows {wording.join(names)}.")
        name = self._the(salient[0][0], rng, variety)
        sentences.append(_upper(str(rng.choice(SHARED)).format(name)))
        return " ".join(sentences)

    def _the(self, item: Mapping[str, Any], rng: np.random.Generator, variety: float) -> str:
        return f"the {wording.name(item, rng, variety)}"
