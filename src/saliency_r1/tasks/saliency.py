"""SOD and CoSOD: regions become one saliency map for each image.

The reward's equations are not published; these are this project's (README, "What differs from the paper"): the mean
over the sample's images of the S-measure and of the IoU of the predicted map, as in the results table, and 1 for form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from saliency_r1.cot import Parsed
from saliency_r1.metrics.saliency import sm_and_iou
from saliency_r1.tasks.base import Prediction, Reward, SaliencyTruth, Segmented, Truth, weighted


class Sod:
    """Salient object detection: one image, its salient regions united."""

    name = "sod"
    kind = "rg"
    instruction = (
        "Find the salient objects in the image. Reason first, then name each salient region in <rg></rg> tags."
    )

    def truth(self, masks: Sequence[NDArray[np.generic]]) -> SaliencyTruth:
        """Masks are 8-bit {0, 255}."""
        return SaliencyTruth(tuple(np.asarray(mask) > 127 for mask in masks))

    def predict(self, parsed: Parsed, segments: Sequence[Segmented], sizes: Sequence[tuple[int, int]]) -> Prediction:
        """The pixelwise maximum over the expressions of an image; an image nobody speaks of stays empty."""
        maps = [np.zeros(size, np.float32) for size in sizes]
        for expression, segment in zip(parsed.expressions, segments, strict=True):
            np.maximum(maps[expression.image], segment.probability, out=maps[expression.image])
        return Prediction(maps=tuple(maps))

    def reward(self, parsed: Parsed, prediction: Prediction, truth: Truth, weights: Mapping[str, float]) -> Reward:
        """Components `s_measure` and `iou` (means over the images) and `format` (1 if the response parsed)."""
        if not parsed.ok:
            return weighted(dict.fromkeys(("s_measure", "iou", "format"), 0.0), weights)
        s_measures, ious = sm_and_iou(prediction.maps, truth.masks)
        components = {"s_measure": float(s_measures.mean()), "iou": float(ious.mean()), "format": 1.0}
        return weighted(components, weights)


class CoSod(Sod):
    """Co-salient object detection: a group of images, the object they share in each of them."""

    name = "cosod"
    instruction = (
        "Find the object that all images share. Reason first, then name it once for every image in <rg></rg> tags."
    )
