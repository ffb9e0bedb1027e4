"""Any picture, any expression, in any batch: the same answer."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import PHRASES, close, picture

from saliency_r1.inputs.pictures import to_rgb
from saliency_r1.segmenter import PresenceGate, Segment, loading
from saliency_r1.segmenter.preprocess import inner_size


def test_batched_equals_one_at_a_time(segmenter):
    images = [picture(50, 40), picture(33, 90, 1), picture(50, 40, 2)]
    phrases = [PHRASES, PHRASES[:1], []]
    together = segmenter.segment(segmenter.encode(images), phrases)
    assert [len(row) for row in together] == [5, 1, 0]
    for image, row, segments in zip(images, phrases, together):
        for phrase, segment in zip(row, segments):
            alone = segmenter.segment(segmenter.encode([image]), [[phrase]])[0][0]
            assert close(segment, alone)


def test_batch_size_does_not_matter(folder, segmenter):
    small = loading.load(folder, batch_images=1, batch_phrases=2)
    images = [picture(30, 20), picture(64, 64, 1)]
    left = small.segment(small.encode(images), [PHRASES, PHRASES])
    right = segmenter.segment(segmenter.encode(images), [PHRASES, PHRASES])
    assert all(close(a, b) for x, y in zip(left, right) for a, b in zip(x, y))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (300, 1), (64, 64), (65, 43)])
def test_own_size(segmenter, width, height):
    [[segment]] = segmenter.segment(segmenter.encode([picture(width, height)]), [["the ring"]])
    assert segment.logits.shape == (height, width)
    assert segment.logits.dtype == np.float32
    assert np.isfinite(segment.logits).all()
    assert 0 <= segment.score <= 1


def test_nothing_to_do(segmenter):
    assert segmenter.encode([]) == []
    assert segmenter.segment([], []) == []
    assert segmenter.segment(segmenter.encode([picture(9, 9)]), [[]]) == [[]]


def test_refusals(segmenter):
    encoded = segmenter.encode([picture(9, 9)])
    with pytest.raises(ValueError, match="1 pictures, but expressions for 2"):
        segmenter.segment(encoded, [["a"], ["b"]])
    with pytest.raises(TypeError, match="list of expressions"):
        segmenter.segment(encoded, ["the ring"])
    with pytest.raises(ValueError, match="multitask"):
        segmenter.segment(encoded, [["[semantic] hair"]])


def test_bfloat16_is_near(folder, segmenter):
    low = loading.load(folder, dtype=torch.bfloat16)
    images = [picture(50, 40), picture(33, 90, 1)]
    exact = segmenter.segment(segmenter.encode(images), [["the ring"], ["the star"]])
    rough = low.segment(low.encode(images), [["the ring"], ["the star"]])
    for a, b in zip(exact, rough):
        spread = a[0].logits.std()
        assert np.abs(a[0].logits - b[0].logits).mean() < 0.1 * spread
    decoder = low.model.visual_model.mask_decoder
    assert {p.dtype for p in decoder.parameters()} == {torch.float32}
    assert low.model.visual_model.image_encoder.neck[0].weight.dtype == torch.float32
    assert low.model.visual_model.image_encoder.blocks[0].attn.qkv.weight.dtype == torch.bfloat16


def test_segment_properties():
    logits = np.full((4, 5), -1.0, dtype=np.float32)
    logits[1:3, 2] = 100.0
    segment = Segment(logits, 0.5)
    assert segment.box == (2, 1, 3, 3)
    assert segment.mask.sum() == 2
    assert segment.probability[1, 2] == 1
    assert segment.probability[0, 0] == pytest.approx(1 / (1 + np.e))
    assert Segment.empty((4, 5)).box is None
    assert Segment.empty((4, 5)).probability.max() < 1e-8


def test_presence_gate(segmenter):
    encoded = segmenter.encode([picture(20, 10)])
    [[raw]] = segmenter.segment(encoded, [["the ring"]])
    open_gate, closed = PresenceGate(segmenter, 0.0), PresenceGate(segmenter, 1.0)
    assert open_gate.segment(open_gate.encode([picture(20, 10)]), [["the ring"]])[0][0].score == raw.score
    [[gone]] = closed.segment(encoded, [["the ring"]])
    assert not gone.mask.any()
    assert gone.score == raw.score
    assert gone.logits.shape == (10, 20)
    with pytest.raises(ValueError, match="threshold"):
        PresenceGate(segmenter, 1.5)


def as_file(image: Image.Image, kind: str, **options) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_modes_become_rgb():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    expected = np.repeat(grey[..., None], 3, axis=2)
    for image in (
        Image.fromarray(grey),
        as_file(wide, "PNG"),
        wide.convert("I"),
        Image.fromarray(grey.astype(np.float32)),
        Image.fromarray(grey.astype(np.float32) / 255),
    ):
        assert np.array_equal(np.asarray(to_rgb(image)), expected), image.mode
    colour = picture(8, 6)
    assert to_rgb(colour.quantize(8)).mode == "RGB"
    assert to_rgb(as_file(colour.convert("CMYK"), "TIFF")).size == (8, 6)
    assert to_rgb(Image.new("1", (3, 2), 1)).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("RGBA", (3, 2), (10, 20, 30, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("LA", (3, 2), (10, 255))).getpixel((0, 0)) == (10, 10, 10)


def test_exif_rotation():
    image = picture(8, 6)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = to_rgb(as_file(image, "PNG", exif=exif))
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))


def test_no_pixels():
    with pytest.raises(ValueError, match="0 x 4"):
        to_rgb(Image.new("RGB", (0, 4)))


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(427, 640, (683, 1024)), (1, 3000, (1, 1024)), (91, 57, (1024, 641))]
)
def test_inner_size(height, width, expected):
    assert inner_size(height, width, 1024) == expected
