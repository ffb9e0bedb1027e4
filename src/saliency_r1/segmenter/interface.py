"""What every segmenter gives: pictures encoded once, any number of expressions afterwards, a mask and a score for each.

A failure raises. An expression for which nothing is found is an ordinary answer: an empty mask, a low score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

NOTHING = -20.0  # logit of every pixel of an empty mask: probability 2e-9


@dataclass(frozen=True)
class Segment:
    """One expression in one picture.

    Attributes:
        logits: float32 H x W at the picture's own size.
        score: how good the mask is, in [0, 1]: the predicted IoU, where the backend has one.
    """

    logits: np.ndarray
    score: float

    @classmethod
    def empty(cls, size: tuple[int, int], score: float = 0.0) -> Segment:
        """A segment without any pixel, for a picture of ``size`` (height, width)."""
        return cls(np.full(size, NOTHING, dtype=np.float32), score)

    @property
    def mask(self) -> np.ndarray:
        """Bool H x W."""
        return self.logits > 0

    @property
    def probability(self) -> np.ndarray:
        """Float32 H x W in [0, 1]."""
        return (0.5 * (1 + np.tanh(0.5 * self.logits))).astype(np.float32)

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom of the mask in pixels, right and bottom exclusive; None if it is empty."""
        mask = self.mask
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class Encoded(Protocol):
    """A picture as one backend keeps it between :meth:`Segmenter.encode` and :meth:`Segmenter.segment`."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture."""


class Segmenter(Protocol):
    """A model that turns expressions into masks."""

    def encode(self, images: Sequence[Image.Image]) -> list[Any]:
        """Do once what depends on the pictures alone; returns one :class:`Encoded` a picture."""

    def segment(self, encoded: Sequence[Any], phrases: Sequence[Sequence[str]]) -> list[list[Segment]]:
        """Segment ``phrases[i]`` in ``encoded[i]``; the answer has the same nesting, also where a list is empty."""


class PresenceGate:
    """A segmenter around another: what scores below a threshold is not there, so its mask is empty.

    EVF-SAM always draws something, also for an object that is not in the picture. The score is kept.
    """

    def __init__(self, segmenter: Segmenter, threshold: float) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"a presence threshold is in [0, 1], not {threshold}")
        self.segmenter = segmenter
        self.threshold = threshold

    def encode(self, images: Sequence[Image.Image]) -> list[Any]:
        """As the inner segmenter."""
        return self.segmenter.encode(images)

    def segment(self, encoded: Sequence[Any], phrases: Sequence[Sequence[str]]) -> list[list[Segment]]:
        """As the inner segmenter, with the masks of absent objects emptied."""
        return [[self._gate(item) for item in row] for row in self.segmenter.segment(encoded, phrases)]

    def _gate(self, item: Segment) -> Segment:
        if item.score >= self.threshold:
            return item
        return Segment.empty((item.logits.shape[0], item.logits.shape[1]), item.score)


def check_pairs(encoded: Sequence[Any], phrases: Sequence[Sequence[str]]) -> None:
    """Refuse lists of different lengths, and a bare string where a list of expressions belongs."""
    if len(encoded) != len(phrases):
        raise ValueError(f"{len(encoded)} pictures, but expressions for {len(phrases)}")
    if any(isinstance(row, str) for row in phrases):
        raise TypeError("phrases[i] is a list of expressions, not one string")
