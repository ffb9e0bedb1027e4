"""One answer on the page: what was said, the mask of every expression, and what becomes of it when it is reworded."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saliency_r1 import cot
from saliency_r1.app.uploads import Upload
from saliency_r1.prediction.models import Chosen, prepare
from saliency_r1.prediction.predictor import Answer, PredictError, ask, check_finite, task_named
from saliency_r1.rollout.grounding import Answered, ground

if TYPE_CHECKING:
    from PIL.Image import Image

    from saliency_r1.policy.adapters import Policies
    from saliency_r1.segmenter import Segment, Segmenter

MOST_EXPRESSIONS = 40  # of an edited answer
MOST_LETTERS = 300  # of an edited expression


@dataclass(frozen=True)
class Turn:
    """An answer to some pictures.

    Attributes:
        model: who answered.
        task: sod, sis or cosod.
        uploads: the pictures of the prompt.
        answer: what was said, or made of reworded expressions, and what the task makes of it: maps, or instances.
        segments: one an expression, in order; `mask` is bool H x W at the size of its picture.
        edited: whether a person has worded the expressions.
    """

    model: str
    task: str
    uploads: tuple[Upload, ...]
    answer: Answer
    segments: tuple[Segment, ...]
    edited: bool = False

    @property
    def phrases(self) -> list[str]:
        """What is named: an expression each; for CoSOD one a picture, empty where the shared object is not."""
        if self.task != "cosod":
            return [item.text for item in self.answer.expressions]
        said = {item.image: item.text for item in self.answer.expressions}
        return [said.get(index, "") for index in range(len(self.uploads))]


class Speaker(NamedTuple):
    """Who answers: a base, what was learnt on it, and the segmenter it speaks to. Base and segmenter may be shared."""

    policies: Policies
    adapter: Path | None
    segmenter: Segmenter
    max_new_tokens: int


class Models:
    """Models by name; one prompt at a time."""

    def __init__(self, speakers: Mapping[str, Speaker]) -> None:
        self.speakers = dict(speakers)
        self._busy = threading.Lock()  # an adapter is put on a shared base; two prompts must not do so at once

    @classmethod
    def load(cls, chosen: Mapping[str, Chosen]) -> Models:
        """Read models; what several have in common, a base or a segmenter, is in memory once.

        Bases are read when they are first asked. Raises `StageError` for a device that is not there, and what loading a
        segmenter raises.
        """
        from saliency_r1.policy.adapters import Policies
        from saliency_r1.segmenter import load

        bases: dict[str, Policies] = {}
        segmenters: dict[str, Segmenter] = {}
        speakers = {}
        for name, one in chosen.items():
            device, dtype = prepare(one.settings)
            base: dict[str, Any] = {"device": device, "dtype": dtype, **one.settings.loading}
            seen_by: dict[str, Any] = {"device": device, "dtype": dtype, **one.settings.batches}
            policies = bases.setdefault(f"{one.policy} {base}", Policies(one.policy, **base))
            place = f"{one.segmenter} {seen_by}"
            if place not in segmenters:
                segmenters[place] = load(one.segmenter, **seen_by)
            speakers[name] = Speaker(policies, one.adapter, segmenters[place], one.settings.max_new_tokens)
        return cls(speakers)

    @property
    def names(self) -> list[str]:
        """The names of the models, in the order given."""
        return list(self.speakers)

    def ask(self, model: str, uploads: Sequence[Upload], task: str) -> Turn:
        """The answer of a model, as `predict` gives it. Raises `PredictError` for an unknown model or task."""
        rules = task_named(task)
        if model not in self.speakers:
            raise PredictError(f"unknown model {model!r}, expected one of {', '.join(self.speakers)}")
        speaker = self.speakers[model]
        with self._busy:
            with speaker.policies.using(speaker.adapter) as policy:
                prompt = policy.prompt([upload.picture for upload in uploads], rules.instruction)
                (text,), (attempts,) = ask(policy, [prompt], rules, [len(uploads)], speaker.max_new_tokens)
            return self._ground(model, uploads, task, text, attempts)

    def reword(self, turn: Turn, phrases: Sequence[str]) -> Turn:
        """The same answer with other expressions, segmented again; nothing is generated.

        For SOD and SIS any number of them, empty ones count for nothing; for CoSOD one a picture, in order, an empty
        one for a picture without the shared object. Raises `PredictError` for what cannot be said in a tag.
        """
        words = [" ".join(phrase.split()) for phrase in phrases]
        if turn.task != "cosod":
            words = [phrase for phrase in words if phrase]
        elif len(words) != len(turn.uploads):
            raise PredictError(
                f"one line a picture: {len(turn.uploads)} pictures, {len(words)} lines; leave a line empty where the "
                "shared object is not"
            )
        if len(words) > MOST_EXPRESSIONS:
            raise PredictError(f"at most {MOST_EXPRESSIONS} expressions are taken here, these are {len(words)}")
        for phrase in words:
            if len(phrase) > MOST_LETTERS:
                raise PredictError(f"an expression has at most {MOST_LETTERS} letters here, one has {len(phrase)}")
            if set(phrase) & set("<>"):
                raise PredictError(f"an expression holds no < or >, which are the marks of the tags: {phrase}")
        kind = cot.KINDS[turn.task]
        reasoning = turn.answer.reasoning if not turn.answer.errors else "Worded by hand."
        text = cot.render(reasoning, [cot.Expression(kind, index, phrase) for index, phrase in enumerate(words)])
        with self._busy:
            return self._ground(turn.model, turn.uploads, turn.task, text, edited=True)

    def _ground(
        self, model: str, uploads: Sequence[Upload], task: str, text: str, attempts: int = 1, edited: bool = False
    ) -> Turn:
        """What is said and where that is in the pictures, with the segment of every expression."""
        pictures = [upload.picture for upload in uploads]
        sizes = [(picture.height, picture.width) for picture in pictures]
        said = Answered(text, task_named(task), sizes, lambda: pictures, None)
        keeping = _Keeping(self.speakers[model].segmenter, [upload.name for upload in uploads])
        (grounded,) = ground(keeping, [said], 1)
        return Turn(model, task, tuple(uploads), Answer.of(said, grounded, attempts), tuple(keeping.found), edited)


@dataclass(frozen=True)
class _Keeping:
    """A segmenter around another: keeps what it finds, and names the picture for which that is no number."""

    segmenter: Segmenter
    names: Sequence[str]
    found: list[Segment] = field(default_factory=list)

    def encode(self, images: Sequence[Image]) -> list[Any]:
        return self.segmenter.encode(images)

    def segment(self, encoded: Sequence[Any], phrases: Sequence[Sequence[str]]) -> list[list[Segment]]:
        segments = self.segmenter.segment(encoded, phrases)
        for name, own in zip(self.names, segments, strict=True):
            check_finite(own, name)
            self.found.extend(own)
        return segments
