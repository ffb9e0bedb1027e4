"""The model for people who only want masks.

    predictor = Predictor.load("policy", "adapter", "segmenter")
    result = predictor.predict([Image.open("cat.jpg")], "sod")
    result.maps[0]          # float32 H x W in [0, 1]
    result.reasoning        # why

One call is one prompt: one image for SOD and SIS, a group of images for CoSOD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saliency_r1 import cot, tasks
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.pictures import check_shape, read_picture, to_rgb
from saliency_r1.prediction.errors import PredictError
from saliency_r1.rollout.grounding import Answered, ground

if TYPE_CHECKING:
    import torch

    from saliency_r1.policy import Policy
    from saliency_r1.segmenter import Segmenter
    from saliency_r1.tasks import Segmented

Source = Image.Image | str | Path


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
    """

    text: str
    reasoning: str
    expressions: tuple[cot.Expression, ...]
    errors: tuple[str, ...]
    maps: tuple[NDArray[np.float32], ...]
    instances: tuple[Segmented, ...]
    sizes: tuple[tuple[int, int], ...]

    @property
    def masks(self) -> list[list[NDArray[np.bool_]]]:
        """The masks of each image: its map above one half, or its instances."""
        if self.maps:
            return [[map_ > 0.5] for map_ in self.maps]
        return [[segment.mask for segment in self.instances] for _ in self.sizes]

    @property
    def ids(self) -> NDArray[np.uint16]:
        """SIS: the map of instance ids (0 = background); where two overlap, the one with the higher score wins."""
        ids = np.zeros(self.sizes[0], np.uint16)
        numbered = sorted(enumerate(self.instances, 1), key=lambda item: item[1].score)
        for number, segment in numbered:
            ids[segment.mask] = number
        return ids


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

    def predict(self, images: Sequence[Source], task: str) -> Answer:
        """Answer one prompt, greedily: `images` is one image for `sod` and `sis`, a group for `cosod`.

        Raises `PredictError` for an unknown task, no image, or several images where the task takes one.
        """
        rules = task_named(task)
        if not images or (len(images) > 1 and task != "cosod"):
            raise PredictError(f"{task} takes {'images' if task == 'cosod' else 'one image'}, got {len(images)}")
        pictures = [read_image(image) for image in images]
        sizes = [(picture.height, picture.width) for picture in pictures]
        prompt = self.policy.prompt(pictures, rules.instruction)
        (response,) = self.policy.generate([prompt], self.max_new_tokens)
        answered = Answered(response.text, rules, sizes, lambda: pictures)
        ((parsed, prediction),) = ground(self.segmenter, [answered], 1)
        return Answer(
            text=response.text,
            reasoning=parsed.reasoning,
            expressions=parsed.expressions,
            errors=parsed.errors,
            maps=prediction.maps,
            instances=prediction.instances,
            sizes=tuple(sizes),
        )


def task_named(name: str) -> tasks.Task:
    """The task of that name; `PredictError` names the known ones."""
    if name not in tasks.TASKS:
        raise PredictError(f"unknown task {name!r}, expected one of {', '.join(tasks.TASKS)}")
    return tasks.get(name)


def read_image(source: Source) -> Image.Image:
    """A picture as 8-bit RGB, upright, transparency laid on white, as the importer reads it.

    Raises `PredictError` that names a file that is missing, no picture, or of a shape that the policy does not take.
    """
    try:
        if isinstance(source, Image.Image):
            check_shape(source.size, "the picture")
            return to_rgb(source)
        return read_picture(Path(source))
    except InputError as error:
        raise PredictError(str(error)) from error
