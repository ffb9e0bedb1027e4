"""Output-to-reasoning: from the ground truth to expressions, and from there to a reasoning that leads to them."""

from saliency_r1.annotation.agreement import Annotation, annotate
from saliency_r1.annotation.offline import OfflineAnnotator

__all__ = ["Annotation", "OfflineAnnotator", "annotate"]
