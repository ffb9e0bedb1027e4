"""Output-to-reasoning: from the ground truth to expressions, and from there to a reasoning that leads to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saliency_r1.annotation.agreement import Annotation, annotate, read_parts, tabulate
from saliency_r1.annotation.interface import AnnotationError, Annotator
from saliency_r1.annotation.offline import OfflineAnnotator
from saliency_r1.params import Annotate

if TYPE_CHECKING:
    import torch

__all__ = [
    "Annotation",
    "AnnotationError",
    "Annotator",
    "OfflineAnnotator",
    "annotate",
    "load",
    "read_parts",
    "tabulate",
]


def load(options: Annotate, cache: Path, device: torch.device, dtype: torch.dtype) -> Annotator:
    """The annotator that `annotate.annotator` names; `cache` is where an endpoint's answers are kept.

    Raises `AnnotationError` where its server does not answer.
    """
    match options.annotator:
        case "offline":
            return OfflineAnnotator(options.variety, options.vagueness)
        case "openai":
            from saliency_r1.annotation.endpoint import EndpointAnnotator

            endpoint = EndpointAnnotator(options.model, options.answer_tokens, options.endpoint, cache)
            endpoint.check()
            return endpoint
        case "local":
            from saliency_r1.annotation.local import LocalAnnotator

            temperature = options.endpoint.temperature
            return LocalAnnotator(options.model, options.answer_tokens, device, dtype, temperature)
