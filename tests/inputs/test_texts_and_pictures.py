"""Encodings of lists and JSON, and the one way a picture becomes pixels."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

from saliency_r1.data.catalogue import MaskRule
from saliency_r1.data.importers import LAYOUTS, Item
from saliency_r1.data.samples import read_images
from saliency_r1.data.store import Imported, import_item
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.pictures import FORMATS, MOST_ASPECT, read_picture, to_rgb
from saliency_r1.inputs.text import read_json, read_text
from saliency_r1.prediction import PredictError, read_image

WORDS = "0001\nGröße\n花朵\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_texts_with_a_mark_are_read(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    (tmp_path / "list.txt").write_text(mark + WORDS, encoding=encoding)
    assert read_text(tmp_path / "list.txt") == WORDS
    (tmp_path / "a.json").write_text(mark + json.dumps([WORDS], ensure_ascii=False), encoding=encoding)
    assert read_json(tmp_path / "a.json") == [WORDS]


@pytest.mark.parametrize(
    ("text", "encoding", "says"),
    [
        ("花朵花朵", "gbk", "GBK"),
        ("Größe", "latin-1", "CP1252"),
        ("花", "shift_jis", "SHIFT_JIS"),
        ("a", "utf-16-le", "UTF-16"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, text: str, encoding: str, says: str) -> None:
    (tmp_path / "list.txt").write_text("0001\n" + text, encoding=encoding)
    with pytest.raises(InputError, match=rf"list\.txt: .*{says}.*save it as UTF-8"):
        read_text(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": NaN}', "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands twice"),
        ("[" * 100_000, "nested too deeply"),
        ("[1, 2", "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_json_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=rf"a\.json: .*{says}"):
        read_json(tmp_path / "a.json")


def pictures() -> dict[str, tuple[Image.Image, dict[str, object]]]:
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (20, 30, 3), np.uint8)
    alpha = np.dstack([rgb, rng.integers(0, 256, (20, 30), np.uint8)])
    wide = np.linspace(0, 16_000, 600).astype(np.uint16).reshape(20, 30)  # a camera of 14 bits
    exif = Image.Exif()
    exif[0x0112] = 5
    return {
        "plain.png": (Image.fromarray(rgb), {}),
        "turned.jpg": (Image.fromarray(rgb), {"exif": exif, "quality": 95}),
        "cmyk.jpg": (Image.fromarray(rgb).convert("CMYK"), {}),
        "alpha.png": (Image.fromarray(alpha), {}),
        "alpha.webp": (Image.fromarray(alpha), {"lossless": True, "exact": True}),
        "key.png": (Image.fromarray(rgb), {"transparency": tuple(rgb[0, 0].tolist())}),
        "greyalpha.png": (Image.fromarray(alpha).convert("LA"), {}),
        "palette.gif": (Image.fromarray(rgb).quantize(16), {"transparency": 3}),
        "wide.png": (Image.fromarray(wide), {}),
        "wide.tif": (Image.fromarray(wide), {}),
        "float.tif": (Image.fromarray(wide.astype(np.float32) / 16_000), {}),
        "bits.png": (Image.fromarray(rgb[..., 0] > 99), {}),
    }


@pytest.mark.parametrize("name", pictures())
def test_training_and_predict_see_the_same_pixels(tmp_path: Path, name: str) -> None:
    image, options = pictures()[name]
    image.save(tmp_path / name, **options)
    shown = read_image(tmp_path / name)
    mask = np.zeros((shown.height, shown.width), np.uint8)
    mask[3:9, 3:9] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    stored = import_item(
        Item("a", tmp_path / name, tmp_path / "mask.png"), LAYOUTS["pairs"], MaskRule(), tmp_path / "out"
    )
    assert isinstance(stored, Imported)
    (seen,) = read_images({"images": [stored.image]}, tmp_path / "out")
    assert np.array_equal(np.asarray(seen), np.asarray(shown))
    assert np.array_equal(np.asarray(to_rgb(shown)), np.asarray(shown)), "a second time changes nothing"


def test_depth_transparency_and_orientation() -> None:
    def grey(values: list[int]) -> list[int]:
        return np.asarray(to_rgb(Image.fromarray(np.array([values], np.uint16))))[0, :, 0].tolist()

    assert grey([0, 257, 65535]) == [0, 1, 255]
    assert grey([0, 128, 255]) == [0, 128, 255]
    assert grey([0, 2048, 4095]) == [0, 128, 255]
    assert to_rgb(Image.new("RGBA", (1, 1), (10, 20, 30, 0))).getpixel((0, 0)) == (255, 255, 255)
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for turn in range(10):
        image = Image.fromarray(values)
        image.getexif()[0x0112] = turn
        buffer = io.BytesIO()
        image.save(buffer, "PNG", exif=image.getexif())
        again = Image.open(buffer)
        shown = np.asarray(ImageOps.exif_transpose(again))
        assert np.array_equal(np.asarray(to_rgb(again))[..., 0], shown)
        tiff = io.BytesIO()
        image.save(tiff, "TIFF", exif=image.getexif())
        assert np.array_equal(np.asarray(to_rgb(Image.open(tiff)))[..., 0], shown)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (np.float32([-0.05, 0.5, 1.06]), [0, 128, 255]),
        (np.float32([-3, 127.6, 258]), [0, 128, 255]),
        (np.float32([0, 1, 3]), "grey values from 0 to 3, expected 0 to 1, or 0 to 255 with 32 or more"),
        (np.float32([0, 500]), "grey values from 0 to 500"),
        (np.float32([-100, 100]), "grey values from -100 to 100"),
        (np.float32([0, np.nan, 1]), "grey values from nan to nan"),
        (np.float32([0, np.inf]), "grey values from 0 to inf"),
        (np.int32([0, 70_000]), "grey values from 0 to 70000, expected 0 to 65535: save it as grey of 8 or 16 bits"),
        (np.int32([-1, 200]), "grey values from -1 to 200, expected 0 to 65535"),
    ],
)
def test_greys_that_fit_no_depth_are_refused(tmp_path: Path, values: np.ndarray, shown: list[int] | str) -> None:
    Image.fromarray(values[None].repeat(3, axis=0)).save(tmp_path / "a.tif")
    if isinstance(shown, list):
        assert np.asarray(read_picture(tmp_path / "a.tif"))[0, :, 0].tolist() == shown
        return
    with pytest.raises(InputError, match=rf"a\.tif: {shown}"):
        read_picture(tmp_path / "a.tif")


def test_a_raw_picture_is_not_taken_for_its_preview(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0xC612] = b"\1\4\0\0"
    Image.new("RGB", (8, 6)).save(tmp_path / "a.tif", tiffinfo=tags)
    (tmp_path / "a.tif").rename(tmp_path / "a.dng")
    with pytest.raises(InputError, match=r"a\.dng is a raw picture .*: export it"):
        read_picture(tmp_path / "a.dng")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colours_of_sixteen_bits_that_hold_fewer_are_refused(tmp_path: Path, suffix: str) -> None:
    """Pillow keeps the upper 8 of 16 bits, which of 12 are next to nothing."""
    values = np.linspace(0, 4095, 48).astype(np.uint16).reshape(4, 4, 3)
    for name, there in (("few", values), ("all", values * 16)):
        cv2.imwrite(str(tmp_path / f"{name}.{suffix}"), there)
    assert np.array_equal(np.asarray(read_picture(tmp_path / f"all.{suffix}")), (values >> 4)[..., ::-1])
    with pytest.raises(InputError, match=rf"few\.{suffix} has 16 bits .*save it with 8 bits a channel"):
        read_picture(tmp_path / f"few.{suffix}")


def test_what_a_later_stage_cannot_take_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (MOST_ASPECT * 3, 3)).save(tmp_path / "just.png")
    Image.new("RGB", (2, MOST_ASPECT * 2 + 1)).save(tmp_path / "tall.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    notes = PngImagePlugin.PngInfo()
    notes.add_text("note", "x" * 3_000_000, zip=True)
    Image.new("L", (9, 9)).save(tmp_path / "note.png", pnginfo=notes)
    assert read_picture(tmp_path / "just.png").size == (600, 3)
    for name, says in (("tall", "more than 200 times"), ("bomb", "too large to be opened"), ("note", "too large")):
        for read in (read_picture, read_image):
            with pytest.raises((InputError, PredictError), match=rf"{name}\.png.*{says}"):
                read(tmp_path / f"{name}.png")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC or another format"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><title>Quota exceeded</title>", "an HTML page"),
        (b"whatever", "cannot identify image file"),
    ],
)
def test_what_lies_in_the_place_of_a_picture_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "cat.jpg").write_bytes(content)
    with pytest.raises(InputError, match=rf"cat\.jpg is not a readable image \(.*{says}"):
        read_picture(tmp_path / "cat.jpg")


def test_the_limit_is_that_of_the_policy() -> None:
    smart_resize = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl").smart_resize
    smart_resize(3, 3 * MOST_ASPECT)
    with pytest.raises(ValueError, match="aspect ratio"):
        smart_resize(3, 3 * MOST_ASPECT + 1)


def test_a_picture_starts_no_other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow opens files by their content, and PostScript with ghostscript."""
    from PIL import EpsImagePlugin

    def started(*_: object) -> None:
        raise AssertionError("ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "load", started)
    (tmp_path / "cat.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match="cannot identify image file"):
        read_picture(tmp_path / "cat.png")


@pytest.mark.parametrize("format", FORMATS)
def test_the_content_says_the_format(tmp_path: Path, format: str) -> None:
    Image.new("RGB", (8, 6), "white").save(tmp_path / "cat.jpg", format)
    assert read_picture(tmp_path / "cat.jpg").size == (8, 6)
