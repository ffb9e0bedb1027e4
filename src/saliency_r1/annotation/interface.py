"""What an annotator is: it is given samples with their ground truth and proposes reasoning and expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from saliency_r1 import tasks
from saliency_r1.cot import KINDS, Expression


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

    @property
    def silence(self) -> tuple[Expression, ...]:
        """The expressions of an answer that names nothing: none, or for a group an empty one for each image."""
        images = range(len(self.images)) if self.task == "cosod" else ()
        return tuple(Expression(KINDS[self.task], image, "") for image in images)


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

    @property
    def spoken(self) -> tuple[Expression, ...]:
        """The expressions that name something; an image of a group without the shared object has an empty one."""
        return tuple(item for item in self.expressions if item.text)


class Annotator(Protocol):
    """Writes annotations. The offline one knows attributes; the others ask a vision-language model."""

    def write(self, tries: Sequence[Try]) -> list[Proposal]:
        """One proposal a try, in order. Raises `AnnotationError` when it cannot go on at all."""
