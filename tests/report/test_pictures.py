"""Overlays in pixels."""

import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image

from saliency_r1.report.pictures import paint


@pytest.mark.parametrize("scale", [1, 3])
def test_outside_of_a_mask_a_third_of_the_light_is_left(scale: int) -> None:
    """As in floating point, to the last bit."""
    values = np.random.default_rng(0).integers(0, 256, (256, 3, 3), np.uint8)
    values[:, 0, 0] = np.arange(256)
    image = Image.fromarray(values)
    mask = np.zeros((256, 3), bool)
    mask[:7, 1:] = True
    large = image.resize((3 * scale, 256 * scale), Image.Resampling.BICUBIC)
    bright = cv2.resize(mask.astype(np.float32), large.size, interpolation=cv2.INTER_LINEAR) >= 0.5
    expected = (np.asarray(large, np.float32) * np.where(bright, 1, 0.34)[..., None]).astype(np.uint8)
    painted = np.asarray(paint(image, [mask], scale=scale, line=1))
    below = 10 * scale  # past the outline
    assert np.array_equal(painted[below:], expected[below:])
    assert np.array_equal(np.asarray(paint(image, [], scale=scale)), _dark(large))


def _dark(image: Image.Image) -> np.ndarray:
    return (np.asarray(image, np.float32) * np.float64(0.34)).astype(np.uint8)


def test_a_large_picture_takes_little_more_memory_than_its_pixels() -> None:
    image, mask = Image.new("RGB", (2000, 1000)), np.zeros((1000, 2000), bool)
    tracemalloc.start()
    paint(image, [mask])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 14 * mask.size, "bytes a pixel"
