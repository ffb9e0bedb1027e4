"""The measures of the field, for the reward and for the evaluation alike."""

from saliency_r1.metrics.evaluator import DatasetCurves, Difference, SaliencyEvaluator
from saliency_r1.metrics.instances import evaluate_instances
from saliency_r1.metrics.saliency import Pair, Protocol, Truth, iou, s_measure, sm_and_iou

__all__ = [
    "DatasetCurves",
    "Difference",
    "Pair",
    "Protocol",
    "SaliencyEvaluator",
    "Truth",
    "evaluate_instances",
    "iou",
    "s_measure",
    "sm_and_iou",
]
