"""What an annotator is: it is given samples with their ground truth and proposes reasoning and expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from saliency_r1 import tasks
from saliency_r1.cot import Expression


class AnnotationError(ValueError):
    """Annotation cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Subject:
    """A sample as annotators see it: its images, and for each image its objects (see `attributes`)."""

    sample_id: str
    task: str
    images: Sequence[Image.Image]
    truth: tasks.Truth
    objects: Sequence[Sequence[Mapping[str, Any]]]

    @property
    def salient(self) -> list[list[Mapping[str, Any]]]:
        """The objects that belong to the ground truth, image by image; expressions come in this order."""
        return [[item for item in image if item["salient"]] for image in self.objects]


@dataclass(frozen=True)
class Try:
    """One attempt at a sample: its number from 0, of how many, the seed of its wording, what was wrong before."""

    subject: Subject
    number: int
    of: int
    seed: tuple[int, ...]
    feedback: str = ""


@dataclass(frozen=True)
class Proposal:
    """What an annotator says, or the `fault` that makes it unusable."""

    reasoning: str = ""
    expressions: tuple[Expression, ...] = ()
    fault: str = ""


class Annotator(Protocol):
    """Writes annotations. The offline one knows attributes; the others ask a vision-language model."""

    def write(self, tries: Sequence[Try]) -> list[Proposal]:
        """One proposal a try, in order. Raises `AnnotationError` when it cannot go on at all."""
