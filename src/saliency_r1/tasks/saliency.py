"""SOD and CoSOD: regions become one saliency map for each image.

The reward's equations are not published; these are this project's (README, "What differs from the paper"): the mean
over the sample's images of the S-measure and of the IoU of the predicted map, and 1 for form. Maps are scored as they
are: the results table stretches each to [0, 1] first, as the field does, and would pay for a map whose mask is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from saliency_r1.cot import KINDS, Parsed
from saliency_r1.metrics.saliency import sm_and_iou
from saliency_r1.metrics.truth import Protocol
from saliency_r1.tasks.base import Prediction, Reward, SaliencyTruth, Segmented, Truth, weighted

AS_PREDICTED = Protocol(stretch=False, empty="agree")


class Sod:
    """Salient object detection: one image, its salient regions united."""

    name = "sod"
    kind = KINDS[name]
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
        """Components `s_measure` and `iou` (means over the images) and `format` (1 if the response parsed).

        An image of which nothing is said scores 1 where nothing stands out and else 0: the S-measure of an empty map
        is .4 to .5, and saying nothing would earn it for certain.
        """
        if not parsed.ok:
            return weighted(dict.fromkeys(weights, 0.0), weights)
        s_measures, ious = sm_and_iou(prediction.maps, truth.masks, AS_PREDICTED)
        spoken_of = {expression.image for expression in parsed.expressions}
        for image, true in enumerate(truth.masks):
            if image not in spoken_of and true.any():
                s_measures[image] = ious[image] = 0.0
        components = {"s_measure": float(s_measures.mean()), "iou": float(ious.mean()), "format": 1.0}
        return weighted(components, weights)


class CoSod(Sod):
    """Co-salient object detection: a group of images, the object they share in each of them."""

    name = "cosod"
    kind = KINDS[name]
    instruction = (
        "Find the object that all images share. Reason first, then name it once for every image in <rg></rg> tags."
    )
