"""Views and masks of real photographs, where they are at hand."""

import pytest
import torch
from PIL import Image
from tiny import SHARED

from saliency_r1.inputs.pictures import to_rgb
from saliency_r1.segmenter.preprocess import beit_view, sam_view

PHOTOGRAPHS = sorted((SHARED / "data" / "real").glob("*/images/*.jpg"))[::12]


@pytest.mark.skipif(not PHOTOGRAPHS, reason="real photographs are not at hand")
def test_views_and_masks(segmenter):
    images = [Image.open(path) for path in PHOTOGRAPHS]
    for image in images:
        view, (height, width) = sam_view(to_rgb(image), 1024)
        assert view.shape == (3, 1024, 1024)
        assert max(height, width) == 1024
        assert not view[:, height:].any()
        assert not view[:, :, width:].any()
        small = beit_view(to_rgb(image), 224)
        assert small.shape == (3, 224, 224)
        assert torch.isfinite(small).all()
        assert small.abs().max() < 2  # bicubic overshoot leaves [-1, 1], but not by much
    answers = segmenter.segment(segmenter.encode(images), [["the bird", "the person"]] * len(images))
    for image, segments in zip(images, answers):
        upright = to_rgb(image)
        assert all(segment.logits.shape == (upright.height, upright.width) for segment in segments)
