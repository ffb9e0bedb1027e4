"""Answers that no model has given, to know what is the model's part in a score and what the segmenter's.

Nothing said at all; one phrase that fits every picture; the phrases that the ground truth would be called by. They go
the way of any other answer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from saliency_r1 import cot
from saliency_r1.annotation.agreement import subject_of
from saliency_r1.annotation.interface import Try
from saliency_r1.annotation.offline import OfflineAnnotator
from saliency_r1.benchmark.prompts import Row
from saliency_r1.benchmark.rows import Kind
from saliency_r1.data.samples import read_images

PHRASE = "the salient object"
_WHY = "No model was asked."


def nothing(row: Row, folder: Path) -> str:
    """The answer that names nothing."""
    return _answer(row, "")


def fixed_phrase(row: Row, folder: Path) -> str:
    """The answer that says `PHRASE` of every image."""
    return _answer(row, PHRASE)


def true_phrases(row: Row, folder: Path) -> str:
    """The answer made from the ground truth: what its objects are called, or, where nobody knows, look like."""
    (proposal,) = OfflineAnnotator(0.0).write([Try(subject_of(row, folder, read_images(row, folder)), 0, 1, (0,))])
    return cot.render(_WHY, proposal.expressions)


FLOORS: dict[str, tuple[Kind, Callable[[Row, Path], str]]] = {
    "empty map": ("floor", nothing),
    f"segmenter, {PHRASE!r}": ("floor", fixed_phrase),
    "segmenter, phrases of the truth": ("ceiling", true_phrases),
}


def _answer(row: Row, phrase: str) -> str:
    kind, grouped = cot.KINDS[row["task"]], row["task"] == "cosod"
    if not phrase and not grouped:
        return cot.render(_WHY, [])
    return cot.render(_WHY, [cot.Expression(kind, image, phrase) for image in range(len(row["images"]))])
