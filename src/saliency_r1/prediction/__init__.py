"""Answers of a model: to somebody's pictures, and to all samples of a split."""

from saliency_r1.prediction.errors import PredictError
from saliency_r1.prediction.predictor import Answer, Failure, Predictor, Region, read_image

__all__ = ["Answer", "Failure", "PredictError", "Predictor", "Region", "read_image"]
