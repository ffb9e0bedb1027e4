"""SIS: each expression is one instance.

The reward's equation is not published; this is the project's: predicted and true instances are matched one to one so
that the summed IoU is largest, and the sum is divided by the mean of the two counts, so that a missing, a surplus and a
repeated instance all cost the same. It is to IoU what the Dice coefficient is to pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from saliency_r1.cot import KINDS, Parsed
from saliency_r1.tasks.base import InstanceTruth, Prediction, Reward, Segmented, Truth, weighted


class Sis:
    """Salient instance segmentation: one image, one mask for each salient instance."""

    name = "sis"
    kind = KINDS[name]
    instruction = (
        "Find every salient object in the image. Reason first, then name each instance separately in <ins></ins> tags."
    )

    def truth(self, masks: Sequence[NDArray[np.generic]]) -> InstanceTruth:
        """One 16-bit map of instance ids."""
        (ids,) = masks
        return InstanceTruth(np.asarray(ids).astype(np.uint16))

    def predict(self, parsed: Parsed, segments: Sequence[Segmented], sizes: Sequence[tuple[int, int]]) -> Prediction:
        """Each expression's segment is an instance."""
        if len(segments) != len(parsed.expressions):
            raise ValueError(f"{len(parsed.expressions)} expressions, {len(segments)} segments")
        return Prediction(instances=tuple(segments))

    def reward(self, parsed: Parsed, prediction: Prediction, truth: Truth, weights: Mapping[str, float]) -> Reward:
        """Components `matched_iou` and `format` (1 if the response parsed).

        Naming no instance is right where there is none, and matches nothing elsewhere.
        """
        if not parsed.ok:
            return weighted(dict.fromkeys(weights, 0.0), weights)
        ious = pairwise_iou([segment.mask for segment in prediction.instances], truth.masks)
        return weighted({"matched_iou": matched_iou(ious), "format": 1.0}, weights)


def pairwise_iou(predicted: Sequence[NDArray[np.bool_]], true: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """IoU of every predicted with every true mask, (predicted, true); 0 for two empty masks."""
    if not predicted or not true:
        return np.zeros((len(predicted), len(true)))
    a = np.stack([mask.ravel() for mask in predicted]).astype(np.float32)
    b = np.stack([mask.ravel() for mask in true]).astype(np.float32)
    inside = (a @ b.T).astype(np.float64)
    union = a.sum(1)[:, None] + b.sum(1)[None, :] - inside
    return inside / np.maximum(union, 1)


def matched_iou(ious: NDArray[np.float64]) -> float:
    """Summed IoU of the best one-to-one matching, over the mean of the two counts; 1 when both are zero."""
    from scipy.optimize import linear_sum_assignment

    predicted, true = ious.shape
    if predicted + true == 0:
        return 1.0
    rows, columns = linear_sum_assignment(ious, maximize=True)
    return float(2 * ious[rows, columns].sum() / (predicted + true))
