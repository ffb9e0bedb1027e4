"""What a task is: an instruction, a ground truth, a way from expressions to a prediction, and a reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from saliency_r1.cot import Parsed


class Segmented(Protocol):
    """What the segmenter makes of one phrase (see `segmenter.Segment`)."""

    @property
    def probability(self) -> NDArray[np.float32]:
        """Foreground probability, float32 H x W in [0, 1], at the size of the image."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Probability above one half, bool H x W."""

    @property
    def score(self) -> float:
        """The segmenter's own quality estimate, in [0, 1]."""


@dataclass(frozen=True)
class SaliencyTruth:
    """One binary mask (bool, H x W) for each image of the sample."""

    masks: tuple[NDArray[np.bool_], ...]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each image."""
        return [(mask.shape[0], mask.shape[1]) for mask in self.masks]

    @property
    def objects(self) -> int:
        """How many of the images something stands out in."""
        return sum(bool(mask.any()) for mask in self.masks)


@dataclass(frozen=True)
class InstanceTruth:
    """The instance-id map of one image (integers, H x W, 0 = background) and its instances' masks (bool, H x W)."""

    ids: NDArray[np.uint16]

    @property
    def numbers(self) -> list[int]:
        """The ids, ascending."""
        return [int(value) for value in np.unique(self.ids) if value]

    @property
    def masks(self) -> tuple[NDArray[np.bool_], ...]:
        """One mask for each id, in order of the ids."""
        return tuple(self.ids == number for number in self.numbers)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of the image."""
        return [(self.ids.shape[0], self.ids.shape[1])]

    @property
    def objects(self) -> int:
        """How many instances there are."""
        return len(self.numbers)


Truth = SaliencyTruth | InstanceTruth


@dataclass(frozen=True)
class Prediction:
    """What a response amounts to: saliency maps (float32 in [0, 1], one an image), or the segments of instances."""

    maps: tuple[NDArray[np.float32], ...] = ()
    instances: tuple[Segmented, ...] = ()

    @property
    def masks(self) -> list[NDArray[np.bool_]]:
        """The mask (bool, H x W) of each map, what is above one half, or of each instance."""
        return [one > 0.5 for one in self.maps] + [one.mask for one in self.instances]

    @property
    def empty(self) -> float:
        """The share of its masks without a pixel, in [0, 1]; 1 where there are none."""
        filled = [bool(mask.any()) for mask in self.masks]
        return 1 - sum(filled) / len(filled) if filled else 1.0


@dataclass(frozen=True)
class Reward:
    """A value in [0, 1], the weighted sum of its named components, each in [0, 1]."""

    value: float
    components: dict[str, float]


class Task(Protocol):
    """One of the three tasks. Stateless: everything about a sample comes in as an argument."""

    name: str
    kind: str
    instruction: str

    def truth(self, masks: Sequence[NDArray[np.generic]]) -> Truth:
        """The ground truth from arrays as they are stored in the files of the sample table."""

    def predict(self, parsed: Parsed, segments: Sequence[Segmented], sizes: Sequence[tuple[int, int]]) -> Prediction:
        """The prediction of a parsed response; `segments[i]` belongs to `parsed.expressions[i]`.

        `sizes` gives (height, width) of each image; a response that did not parse predicts nothing.
        """

    def reward(self, parsed: Parsed, prediction: Prediction, truth: Truth, weights: Mapping[str, float]) -> Reward:
        """The reward; 0 with all components 0 for a response that did not parse."""


def weighted(components: dict[str, float], weights: Mapping[str, float]) -> Reward:
    """The weighted sum of components, at most 1: weights such as .34, .55, .11 add up to a little more in floats.

    Raises `ValueError` when the names of the two differ.
    """
    if set(components) != set(weights):
        raise ValueError(f"reward weights {sorted(weights)} do not fit the components {sorted(components)}")
    value = float(sum(weights[name] * component for name, component in components.items()))
    return Reward(1.0 if value > 1 else value, components)  # not `min`, which makes 1 of what is not a number
