"""From answers to predictions: parse, segment, predict; the one way for training, for a split and for one picture."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from saliency_r1 import cot, tasks

if TYPE_CHECKING:  # a person who asks for a file that is not there waits for no torch
    from saliency_r1.segmenter import Segmenter

Size = tuple[int, int]  # height, width


class Answered(NamedTuple):
    """An answer to ground: its words, the task it answers, the (height, width) of each image and how to read them.

    `about` tells its images from others: answers about the same ones share it.
    """

    text: str
    task: tasks.Task
    sizes: Sequence[Size]
    images: Callable[[], Sequence[Image.Image]]
    about: Hashable


class Grounded(NamedTuple):
    """What an answer says, and where that is in its images."""

    parsed: cot.Parsed
    prediction: tasks.Prediction


def ground(segmenter: Segmenter, answers: Sequence[Answered], batch_size: int) -> list[Grounded]:
    """Parse the answers and segment what they name, `batch_size` answers at a time; the order is kept.

    Within a batch an image is encoded once, however many answers are about it, as a group of GRPO's. The images of an
    answer that names nothing are not even read: it predicts nothing. A failure of the segmenter raises: it never turns
    into an empty prediction.
    """
    parsed = [cot.parse(answer.text, answer.task.name, len(answer.sizes)) for answer in answers]
    grounded: dict[int, Grounded] = {
        index: Grounded(said, answers[index].task.predict(said, [], answers[index].sizes))
        for index, said in enumerate(parsed)
        if not said.expressions
    }
    speaking = [index for index, said in enumerate(parsed) if said.expressions]
    for first in range(0, len(speaking), batch_size):
        part = speaking[first : first + batch_size]
        shown = {answers[index].about: answers[index] for index in part}
        encoded = iter(segmenter.encode([image for answer in shown.values() for image in answer.images()]))
        known = {about: [next(encoded) for _ in answer.sizes] for about, answer in shown.items()}
        images = [image for index in part for image in known[answers[index].about]]
        phrases = [row for index in part for row in _phrases(parsed[index], len(answers[index].sizes))]
        found = iter(segmenter.segment(images, phrases))
        for index in part:
            answer = answers[index]
            # Expressions stand in the order of their images, so concatenation restores the answer's order.
            segments = [segment for _ in answer.sizes for segment in next(found)]
            grounded[index] = Grounded(parsed[index], answer.task.predict(parsed[index], segments, answer.sizes))
    return [grounded[index] for index in range(len(answers))]


def _phrases(said: cot.Parsed, images: int) -> list[list[str]]:
    """What is said of each image."""
    return [[item.text for item in said.expressions if item.image == image] for image in range(images)]
