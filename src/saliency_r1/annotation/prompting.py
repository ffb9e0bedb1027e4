"""How a vision-language model is asked for an annotation, and how its answer is read.

The prompts are the files of `prompts/`, one a task, with `{count}` for the number of expressions wanted, and those for
samples in which nothing stands out, which want a reasoning alone. The images carry the outlines of the ground truth.
Expressions come first and reasoning second, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from saliency_r1.annotation.interface import Proposal, Subject, Try
from saliency_r1.chat.dialect import without_thinking
from saliency_r1.cot import KINDS, Expression
from saliency_r1.tasks import InstanceTruth

PROMPTS = Path(__file__).with_name("prompts")
_MOST_OBJECTS = 100  # braces that are looked at in an answer
_MOST_EXPRESSIONS = 500  # more than a picture of COCO has instances
# Tags are the policy's own; an expression with one in it would not parse.
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^<>]*$")]
Prose = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000, pattern=r"^[^<>]*$")]


class NothingSchema(BaseModel):
    """The JSON that a model answers with where there is nothing to name."""

    model_config = ConfigDict(extra="forbid")
    reasoning: Prose


class AnswerSchema(BaseModel):
    """The JSON that a model answers with."""

    model_config = ConfigDict(extra="forbid")
    expressions: Annotated[list[Words], Field(min_length=1, max_length=_MOST_EXPRESSIONS)]
    reasoning: Prose


class SharedAnswerSchema(AnswerSchema):
    """The answer for a group of images, which names what is shared; an image without it has an empty expression."""

    expressions: Annotated[list[Words | Literal[""]], Field(min_length=1, max_length=_MOST_EXPRESSIONS)]
    shared: Words


Form = TypeVar("Form", bound=BaseModel)


def schema(subject: Subject) -> dict[str, Any]:
    """The JSON schema of an answer."""
    return _answer(subject).model_json_schema()


def prompt(one: Try) -> str:
    """The text of a prompt; a further attempt ends with what was wrong with the one before."""
    subject = one.subject
    nothing = "nothing_shared" if subject.task == "cosod" else "nothing"
    text = (PROMPTS / f"{subject.task if any(subject.salient) else nothing}.txt").read_text(encoding="utf-8").strip()
    text = text.replace("{count}", str(_wanted(subject)))
    return f"{text}\n\nYour last answer was not good enough. {one.feedback}" if one.feedback else text


def outlined(subject: Subject) -> list[Image.Image]:
    """The images with the outlines of their ground truth, numbered from 1 where it has instances."""
    if isinstance(subject.truth, InstanceTruth):
        ids = [item["id"] for item in subject.salient[0]]
        return [_drawn(subject.images[0], [subject.truth.ids == value for value in ids], numbered=True)]
    return [_drawn(image, [mask], numbered=False) for image, mask in zip(subject.images, subject.truth.masks)]


def read(text: str, subject: Subject) -> Proposal:
    """A model's answer as a proposal. Total: whatever is wrong with it becomes the proposal's fault."""
    answer = _answered(without_thinking(text), _answer(subject))
    if isinstance(answer, str):
        return Proposal(fault=f"It was not the JSON that was asked for: {answer}.")
    if isinstance(answer, NothingSchema):
        return Proposal(answer.reasoning, subject.silence)
    said, wanted = answer.expressions, _wanted(subject)
    if subject.task != "sod" and len(said) != wanted:
        return Proposal(fault=f"It had {len(said)} expressions, {wanted} were asked for.")
    if isinstance(answer, SharedAnswerSchema):
        for number, (text, items) in enumerate(zip(said, subject.salient), start=1):
            if bool(text) != bool(items):
                return Proposal(fault=f"Expression {number} was {text!r}; it is empty where an image has no outline.")
        strangers = [text for text in said if text and answer.shared.casefold() not in text.casefold()]
        if strangers:
            return Proposal(fault=f"The expression {strangers[0]!r} does not name the shared thing, {answer.shared!r}.")
    kind = KINDS[subject.task]
    images = range(len(said)) if subject.task == "cosod" else [0] * len(said)
    return Proposal(answer.reasoning, tuple(Expression(kind, image, text) for image, text in zip(images, said)))


def _answered(text: str, form: type[Form]) -> Form | str:
    """The first JSON object in a text that has the form, whatever stands around it; else what was wrong with one."""
    wrong = ""
    said = text.rpartition("</think>")[2]  # a template may have opened the thinking, so that only its end is seen
    for candidate in (text, *_objects(said), *_objects(text)):
        try:
            return form.model_validate_json(candidate)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            wrong = f"{'.'.join(map(str, first['loc'])) or 'the answer'}: {first['msg']}"
    return wrong


def _objects(text: str) -> Iterator[str]:
    """The JSON objects that stand in a text, outermost ones, from left to right."""
    decoder = json.JSONDecoder()
    position = text.find("{")
    for _ in range(_MOST_OBJECTS):
        if position < 0:
            return
        try:
            _, end = decoder.raw_decode(text, position)
            yield text[position:end]
        except (ValueError, RecursionError):  # no JSON, or a number of more digits than Python reads
            end = position + 1
        position = text.find("{", end)


def _answer(subject: Subject) -> type[NothingSchema] | type[AnswerSchema]:
    if not any(subject.salient):
        return NothingSchema
    return SharedAnswerSchema if subject.task == "cosod" else AnswerSchema


def _wanted(subject: Subject) -> int:
    """How many expressions a sample needs: one an instance, one an image of a group; for SOD at least one."""
    return len(subject.salient[0]) if subject.task == "sis" else len(subject.images)


def _drawn(image: Image.Image, masks: Sequence[NDArray[np.bool_]], numbered: bool) -> Image.Image:
    canvas = np.array(image.convert("RGB"))
    width = max(1, round(max(canvas.shape[:2]) / 300))
    for number, mask in enumerate(masks, start=1):
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, (0, 0, 0), 3 * width)
        cv2.drawContours(canvas, contours, -1, (255, 255, 255), width)
        if numbered and contours:
            x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
            place = (x + w // 2, y + h // 2)
            for colour, thick in (((0, 0, 0), 4 * width), ((255, 255, 255), width)):
                cv2.putText(canvas, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * width, colour, thick)
    return Image.fromarray(canvas)
