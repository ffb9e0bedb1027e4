"""What several tests of the segmenter share: a tiny configuration, noise as a picture, odd phrases."""

from pathlib import Path

import numpy as np
from PIL import Image

from saliency_r1.segmenter import Segment
from saliency_r1.segmenter.beit3 import Beit3Config
from saliency_r1.segmenter.evf_sam import EvfSamConfig, ImageEncoderConfig, MaskDecoderConfig

SHARED = Path(__file__).resolve().parents[3] / "shared"
TINY = EvfSamConfig(
    beit3=Beit3Config(32, 16, 320, 32, 2, 48, 2, 40),
    sam_image_encoder=ImageEncoderConfig(64, 8, 32, 2, 2, 2.0, 3, (1,), 32),
    sam_mask_decoder=MaskDecoderConfig(32, 2, 2, 48, 3, 3, 32),
    projector_hidden=32,
)


PHRASES = ["the ring", "the large star and the small square", "", "circle " * 200, "Ünknown ☃ words"]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def close(left: Segment, right: Segment) -> bool:
    return np.abs(left.logits - right.logits).max() <= 1e-5 and abs(left.score - right.score) <= 1e-5
