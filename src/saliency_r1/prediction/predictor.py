"""The model for people who only want masks.

A prompt is one image for SOD and SIS, a group of images for CoSOD; `predict` answers one, `predict_many` any number in
batches, several times as fast (`predictor` stands for `Predictor.open("exported")`, see `prediction.models`):

    >>> answer = predictor.predict(["photos/cat.png"], "sod")
    >>> answer.maps[0].shape, answer.maps[0].dtype    # in [0, 1], at the picture's size
    ((24, 32), dtype('float32'))
    >>> answer.reasoning
    'It is red.'
    >>> files = ["photos/cat.png", "photos/gone.png", "photos/dog.png"]
    >>> for file, outcome in zip(files, predictor.predict_many([[file] for file in files], "sod", batch=8)):
    ...     if isinstance(outcome, Failure):
    ...         print(outcome.error)
    ...     else:
    ...         print(file, [item.text for item in outcome.expressions])
    photos/cat.png ['top', 'bottom']
    photos/gone.png is missing
    photos/dog.png ['top', 'bottom']
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saliency_r1 import cot, tasks
from saliency_r1.data.samples import chunks
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.pictures import check_shape, read_picture, to_rgb
from saliency_r1.prediction.errors import PredictError
from saliency_r1.rollout.grounding import Answered, Grounded, ground

if TYPE_CHECKING:
    import torch

    from saliency_r1.policy import Policy, Prompt
    from saliency_r1.segmenter import Segment, Segmenter
    from saliency_r1.tasks import Segmented

Source = Image.Image | str | Path
T = TypeVar("T")
ATTEMPTS, TEMPERATURE = 4, 0.7  # the first answer is greedy; one that does not parse is sampled anew, so often at most
HALVED = 4  # a group of so many images is asked about in halves where no answer parses; one image shares nothing


@dataclass(frozen=True)
class Region:
    """A part of an image: what was said of it, how sure the model is (in [0, 1]), and its mask, bool H x W."""

    text: str
    score: float
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Answer:
    """What the model says and sees.

    Attributes:
        text: the whole response.
        reasoning: what stands between `<think>` and `</think>`.
        expressions: what the answer names, in order; none where it says that nothing stands out.
        errors: why the response does not parse; empty if it does. Then nothing is predicted.
        maps: SOD and CoSOD: one saliency map an image, float32 H x W in [0, 1] at the image's size; SIS: none.
        instances: SIS: one segment an expression, with `mask` (bool H x W), `probability` and `score`; else none.
        sizes: (height, width) of each image.
        attempts: how often the model was asked; 1: the answer is the greedy one.
        parts: how many images each prompt showed, where a group was asked about in halves; empty: it was one prompt.
            Then `text` and `reasoning` are theirs, a line each, and `errors` are of those that do not parse.
    """

    text: str
    reasoning: str
    expressions: tuple[cot.Expression, ...]
    errors: tuple[str, ...]
    maps: tuple[NDArray[np.float32], ...]
    instances: tuple[Segmented, ...]
    sizes: tuple[tuple[int, int], ...]
    attempts: int = 1
    parts: tuple[int, ...] = ()

    @classmethod
    def of(cls, said: Answered, grounded: Grounded, attempts: int) -> Answer:
        """What was said, with what `rollout.grounding.ground` makes of it."""
        parsed, prediction = grounded
        return cls(
            text=said.text,
            reasoning=parsed.reasoning,
            expressions=parsed.expressions,
            errors=parsed.errors,
            maps=prediction.maps,
            instances=prediction.instances,
            sizes=tuple(said.sizes),
            attempts=attempts,
        )

    @property
    def summary(self) -> str:
        """What was found, in a line."""
        named = "; ".join(item.text for item in self.expressions)
        if self.errors:
            about = "of a part of the group nothing" if named else "nothing"
            return f"{named}{', ' if named else ''}{about}, the response does not parse: {'; '.join(self.errors)}"
        return named or "nothing stands out"

    @property
    def masks(self) -> list[list[NDArray[np.bool_]]]:
        """The masks of each image: its map above one half, or its instances."""
        if self.maps:
            return [[map_ > 0.5] for map_ in self.maps]
        return [[segment.mask for segment in self.instances] for _ in self.sizes]

    @property
    def regions(self) -> list[list[Region]]:
        """The regions of each image: SIS its instances, else its map above one half, as sure as the map is there."""
        if not self.maps:
            said = [item.text for item in self.expressions]
            return [[Region(text, one.score, one.mask) for text, one in zip(said, self.instances)] for _ in self.sizes]
        regions = []
        for index, map_ in enumerate(self.maps):
            mask = map_ > 0.5
            text = "; ".join(item.text for item in self.expressions if item.image == index)
            regions.append([Region(text, float(map_[mask].mean()) if mask.any() else 0.0, mask)])
        return regions

    @property
    def ids(self) -> NDArray[np.uint16]:
        """SIS: the map of instance ids (0 = background); where two overlap, the one with the higher score wins."""
        ids = np.zeros(self.sizes[0], np.uint16)
        numbered = sorted(enumerate(self.instances, 1), key=lambda item: item[1].score)
        for number, segment in numbered:
            ids[segment.mask] = number
        return ids


@dataclass(frozen=True)
class Failure:
    """A prompt without an answer, and why: a `PredictError` for what cannot be read, else what the models raised."""

    error: Exception


class Predictor:
    """A policy and a segmenter that belong together."""

    def __init__(self, policy: Policy, segmenter: Segmenter, max_new_tokens: int = 512) -> None:
        self.policy = policy
        self.segmenter = segmenter
        self.max_new_tokens = max_new_tokens

    @classmethod
    def load(
        cls,
        policy: str | Path,
        adapter: str | Path | None,
        segmenter: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        max_new_tokens: int = 512,
        batches: Mapping[str, int] | None = None,
        **loading: Any,
    ) -> Predictor:
        """Read the two models from their folders; `adapter=None` is the untrained policy.

        `loading` are further arguments of `policy.Policy.load`: `min_pixels` and `max_pixels` bound the area the policy
        sees and should be those of the training, or what the policy's folder says holds. `dtype` is float32 unless
        given. `batches` has `batch_images` and `batch_phrases`, what goes through the segmenter at once.
        """
        import torch

        from saliency_r1.policy import Policy
        from saliency_r1.segmenter import load

        dtype = dtype or torch.float32
        return cls(
            Policy.load(policy, adapter, device, dtype, **loading),
            load(segmenter, device, dtype, **(batches or {})),
            max_new_tokens,
        )

    @classmethod
    def open(cls, model: str | Path, segmenter: str | Path | None = None) -> Predictor:
        """What `saliency-r1 predict --model` takes: an exported model, a folder, `champion`, or a name of the hub."""
        from saliency_r1.prediction.models import choose, load

        return load(choose(str(model), None if segmenter is None else str(segmenter)))

    def predict(self, images: Sequence[Source], task: str) -> Answer:
        """Answer one prompt: `images` is one image for `sod` and `sis`, a group for `cosod`.

        The answer is greedy. Where it does not parse, up to three are sampled, with seeds of their own, and the first
        that parses stands in its place; where none does, it stays, but a group of four and more is asked about in
        halves.

        Raises `PredictError` for an unknown task, no image, or several images where the task takes one.
        """
        rules = task_named(task)
        return self._answers([_read(images, rules)], rules)[0]

    def predict_many(
        self, prompts: Iterable[Sequence[Source]], task: str, batch: int = 16
    ) -> Iterator[Answer | Failure]:
        """Answer any number of prompts, `batch` at a time, in order; they are read as they are needed.

        A prompt that cannot be read or answered gives a `Failure` and costs the others nothing. Raises `PredictError`
        for an unknown task and for a `batch` below 1.
        """
        rules = task_named(task)
        if batch < 1:
            raise PredictError(f"batch = {batch}, expected at least 1")
        return (outcome for part in batches(prompts, batch) for outcome in self._outcomes(part, rules))

    def _outcomes(self, prompts: Sequence[Sequence[Source]], rules: tasks.Task) -> list[Answer | Failure]:
        read: list[list[Image.Image] | Failure] = []
        for images in prompts:
            try:
                read.append(_read(images, rules))
            except (PredictError, OSError) as error:
                read.append(Failure(error))
        answered = iter(self.answer([one for one in read if not isinstance(one, Failure)], rules.name))
        return [one if isinstance(one, Failure) else next(answered) for one in read]

    def answer(self, prompts: Sequence[Sequence[Image.Image]], task: str) -> list[Answer | Failure]:
        """Answer prompts whose pictures are read, all at once; where that fails one by one, to find whose fault it is.

        Memory that lasts for one prompt and not for all of them costs time and no answer.
        """
        rules = task_named(task)
        try:
            return list(self._answers(prompts, rules))
        except Exception as error:  # whatever the models raise; it is handed on with the prompt that it belongs to
            if len(prompts) == 1:
                return [Failure(error)]
        return [outcome for prompt in prompts for outcome in self.answer([prompt], task)]

    def _answers(self, prompts: Sequence[Sequence[Image.Image]], rules: tasks.Task) -> list[Answer]:
        if not prompts:
            return []
        encoded = [self.policy.prompt(pictures, rules.instruction) for pictures in prompts]
        sizes = [[(picture.height, picture.width) for picture in pictures] for pictures in prompts]
        texts, attempts = ask(self.policy, encoded, rules, list(map(len, sizes)), self.max_new_tokens)
        said = [
            Answered(text, rules, each, partial(list, pictures), about)
            for about, (text, each, pictures) in enumerate(zip(texts, sizes, prompts, strict=True))
        ]
        grounded = ground(_Checked(self.segmenter), said, len(said))
        answers = [Answer.of(*one) for one in zip(said, grounded, attempts, strict=True)]
        return [
            self._halved(answer, pictures, rules) if answer.errors and len(pictures) >= HALVED else answer
            for answer, pictures in zip(answers, prompts, strict=True)
        ]

    def _halved(self, answer: Answer, pictures: Sequence[Image.Image], rules: tasks.Task) -> Answer:
        """The answer to a group that is asked about in halves, because that to the whole does not parse; where none of
        theirs does, it stays.
        """
        halves = self._answers(chunks(pictures, -(-len(pictures) // 2)), rules)
        found = _joined(halves)
        attempts = answer.attempts + found.attempts
        return replace(answer if all(half.errors for half in halves) else found, attempts=attempts)


def _joined(parts: Sequence[Answer]) -> Answer:
    """The answers to parts of a group as one, in order; at least one part, of SOD or CoSOD."""
    begins = [sum(len(part.sizes) for part in parts[:place]) for place in range(len(parts))]
    return Answer(
        text="\n".join(part.text for part in parts),
        reasoning="\n".join(part.reasoning for part in parts),
        expressions=tuple(
            replace(item, image=item.image + begin) for part, begin in zip(parts, begins) for item in part.expressions
        ),
        errors=tuple(error for part in parts for error in part.errors),
        maps=tuple(map_ for part in parts for map_ in part.maps),
        instances=(),
        sizes=tuple(size for part in parts for size in part.sizes),
        attempts=sum(part.attempts for part in parts),
        parts=tuple(count for part in parts for count in part.parts or [len(part.sizes)]),
    )


def ask(
    policy: Policy, encoded: Sequence[Prompt], rules: tasks.Task, images: Sequence[int], max_new_tokens: int
) -> tuple[list[str], list[int]]:
    """What a policy says to prompts of so many images, and how often it was asked; see `Predictor.predict`."""
    texts = [response.text for response in policy.generate(encoded, max_new_tokens)]
    attempts = [1] * len(texts)
    parses = lambda index, text: cot.parse(text, rules.name, images[index]).ok  # noqa: E731
    failed = [index for index, text in enumerate(texts) if not parses(index, text)]
    for attempt in range(2, ATTEMPTS + 1):
        if not failed:
            break
        prompts, seeds = [encoded[index] for index in failed], [attempt] * len(failed)
        said = zip(failed, policy.generate(prompts, max_new_tokens, seeds, TEMPERATURE), strict=True)
        found = {index: response.text for index, response in said if parses(index, response.text)}
        for index in failed:
            attempts[index], texts[index] = attempt, found.get(index, texts[index])
        failed = [index for index in failed if index not in found]
    return texts, attempts


@dataclass(frozen=True)
class _Checked:
    """A segmenter around another: what is no number ends as an error, and in no file."""

    segmenter: Segmenter

    def encode(self, images: Sequence[Image.Image]) -> list[Any]:
        return self.segmenter.encode(images)

    def segment(self, encoded: Sequence[Any], phrases: Sequence[Sequence[str]]) -> list[list[Segment]]:
        found = self.segmenter.segment(encoded, phrases)
        for segments in found:
            check_finite(segments)
        return found


def check_finite(segments: Sequence[Segment], where: str = "") -> None:
    """Raise `PredictError` where a logit or a score is no number; `where` names the picture, if it is known here."""
    if not all(np.isfinite(one.score) and np.isfinite(one.logits).all() for one in segments):
        raise PredictError(
            f"{where}{': ' if where else ''}the segmenter gives NaN or infinity: damaged weights, or a type too small "
            "for it, such as float16?"
        )


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Runs of at most `size` items, read as they are needed."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _read(images: Sequence[Source], rules: tasks.Task) -> list[Image.Image]:
    if isinstance(images, str) or not isinstance(images, Sequence):  # a picture by itself, an array, a generator
        raise PredictError(f"a prompt is a list of pictures, got {type(images).__name__} by itself: write [picture]")
    if not images or (len(images) > 1 and rules.name != "cosod"):
        takes = "images" if rules.name == "cosod" else "one image"
        raise PredictError(f"{rules.name} takes {takes}, got {len(images)}")
    return [read_image(image) for image in images]


def task_named(name: str) -> tasks.Task:
    """The task of that name; `PredictError` names the known ones."""
    if name not in tasks.TASKS:
        raise PredictError(f"unknown task {name!r}, expected one of {', '.join(tasks.TASKS)}")
    return tasks.get(name)


def read_image(source: Source) -> Image.Image:
    """A picture as 8-bit RGB, upright, transparency laid on white, as the importer reads it.

    Raises `PredictError` that names a file that is missing, no picture, or of a shape that the policy does not take.
    """
    if not isinstance(source, Source):  # an array, most often, which does not say in what order its colours are
        raise PredictError(f"expected a picture of Pillow or the path of a file, got {type(source).__name__}")
    try:
        return _opened(source) if isinstance(source, Image.Image) else read_picture(Path(source))
    except InputError as error:
        raise PredictError(str(error)) from error


def _opened(picture: Image.Image) -> Image.Image:
    """A picture of Pillow as 8-bit RGB; it may be closed by now, or be read from its file only here."""
    check_shape(picture.size, "the picture")
    try:
        return to_rgb(picture)
    except Exception as error:  # Pillow raises whatever it stumbles over
        raise PredictError(
            f"the picture cannot be read ({error}): it stays open until its answer is there, or give the file's path"
        ) from error
