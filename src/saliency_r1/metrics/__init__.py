"""The measures of the field, for the reward and for the evaluation alike."""

from saliency_r1.metrics.evaluator import DatasetCurves, SaliencyEvaluator
from saliency_r1.metrics.instances import evaluate_instances
from saliency_r1.metrics.resampling import Difference
from saliency_r1.metrics.saliency import Pair, iou, s_measure, sm_and_iou
from saliency_r1.metrics.truth import MeasureError, Protocol, Truth

__all__ = [
    "DatasetCurves",
    "Difference",
    "MeasureError",
    "Pair",
    "Protocol",
    "SaliencyEvaluator",
    "Truth",
    "evaluate_instances",
    "iou",
    "s_measure",
    "sm_and_iou",
]
