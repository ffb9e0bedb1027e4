"""Referring segmentation: an expression and a picture in, a mask and a score out.

segmenter = load("embedded/models/segmenter")
encoded = segmenter.encode(images)
segments = segmenter.segment(encoded, [["the red car"], ["the dog", "the large blue balloon"]])
"""

from saliency_r1.segmenter.backend import EncodedImage, EvfSamSegmenter
from saliency_r1.segmenter.interface import Encoded, PresenceGate, Segment, Segmenter
from saliency_r1.segmenter.loading import WeightsError, from_pretrained, load

__all__ = [
    "Encoded",
    "EncodedImage",
    "EvfSamSegmenter",
    "PresenceGate",
    "Segment",
    "Segmenter",
    "WeightsError",
    "from_pretrained",
    "load",
]
