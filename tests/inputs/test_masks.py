"""What is foreground, and what is an instance: one rule for every file that people keep masks in."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_r1.data.catalogue import MaskRule
from saliency_r1.data.importers import LAYOUTS
from saliency_r1.evaluation.folders import read_truth, score_folders
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.masks import read_id_map, read_ids, read_levels, read_mask
from saliency_r1.metrics import MeasureError, Protocol

OBJECT = np.zeros((12, 16), bool)
OBJECT[3:9, 4:11] = True
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
CREAM = (224, 224, 192)
BORDERED = [0, 0, 0, 255, 255, 255, *[0] * (3 * 253), *CREAM]  # object 1 is white, 255 is VOC's border


def save(path: Path, values: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def indexed(path: Path, indices: np.ndarray, palette: list[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices.astype(np.uint8), "L").convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(palette + [0] * (768 - len(palette)))
    image.save(path)
    return path


def foreground(path: Path, above: int = 128, **choices: object) -> np.ndarray:
    return read_mask(path, above, "from {}".format, **choices).foreground  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (OBJECT * np.uint8(1), "values 0, 1, none of them above 128: from 1"),
        (OBJECT * np.uint8(3), "values 0, 3, none"),
        (OBJECT * np.uint8(100), "values 0, 100, none of them above 128: from 100"),
        (OBJECT * np.uint16(1), "values 0, 1 of 255 .stored as 0, 1., none"),
        (
            OBJECT * np.uint16(7000),
            "values of 16 bits 0, 27 of 255 .stored as 0, 7000., none of them above 128: from 27",
        ),
        (np.full((12, 16), 9, np.uint8), "values 9, none"),
        (OBJECT[..., None] * np.array([90, 0, 0], np.uint8), "the luma of its colours 0, 27, none"),
    ],
)
def test_nothing_above_the_threshold_is_refused_and_black_is_empty(
    tmp_path: Path, values: np.ndarray, found: str
) -> None:
    path = save(tmp_path / "mask.png", values)
    with pytest.raises(InputError, match=f"mask.png: {found}"):
        foreground(path)
    with pytest.raises(MeasureError, match="--gt-threshold"):
        read_truth(path)
    for rule in (MaskRule(), MaskRule(rule="threshold", threshold=129)):
        with pytest.raises(InputError, match=r"declare mask: \{rule: threshold, threshold: "):
            LAYOUTS["pairs"].mask(path, rule)
    assert not foreground(path, may_be_empty=True).any()
    black = save(tmp_path / "black.png", np.zeros_like(values))
    assert not foreground(black).any()
    assert read_truth(black).foreground == 0


def test_the_advice_of_the_message_gives_the_object(tmp_path: Path) -> None:
    path = indexed(tmp_path / "voc.png", OBJECT * 1 + (np.arange(16) > 6) * OBJECT, VOC)  # luma 38 and 75
    with pytest.raises(InputError, match="luma of its palette 0, 38, 75") as refusal:
        LAYOUTS["pairs"].mask(path, MaskRule(rule="threshold", threshold=128))
    advised = MaskRule(rule="threshold", threshold=int(str(refusal.value).rpartition(" ")[2].rstrip("}")))
    assert (LAYOUTS["pairs"].mask(path, advised) > 0).tolist() == OBJECT.tolist()
    with pytest.raises(MeasureError, match="--gt-threshold 37"):
        read_truth(path)
    assert read_truth(path, Protocol(gt_threshold=37)).mask.tolist() == OBJECT.tolist()


def test_colours_of_a_palette_on_both_sides_of_the_threshold(tmp_path: Path) -> None:
    path = indexed(tmp_path / "two.png", OBJECT + 1 * (np.arange(16) > 6) * OBJECT, [0, 0, 0, 200, 0, 0, 255, 255, 0])
    with pytest.raises(InputError, match="some of its colours above 128 and some not: from 60"):
        foreground(path)
    grey = indexed(
        tmp_path / "grey.png", OBJECT + 1 * (np.arange(16) > 6) * OBJECT, [0, 0, 0, 90, 90, 90, 255, 255, 255]
    )
    assert foreground(grey).sum() == OBJECT[:, 7:].sum(), "a palette of greys is a grey mask"
    with pytest.raises(InputError, match="all its colours are black"):
        foreground(indexed(tmp_path / "none.png", OBJECT, []))


def test_sixteen_bits_that_hold_eight(tmp_path: Path) -> None:
    soft = np.arange(256, dtype=np.uint16).reshape(16, 16)
    assert (read_levels(save(tmp_path / "low.png", soft)).values == soft).all()
    assert (read_levels(save(tmp_path / "full.png", soft * 257)).values == soft).all()
    assert foreground(save(tmp_path / "mask.png", OBJECT * np.uint16(255))).tolist() == OBJECT.tolist()
    with pytest.raises(InputError, match="float32"):
        read_levels(save(tmp_path / "float.tif", OBJECT.astype(np.float32)))
    with pytest.raises(InputError, match="-1 to 0"):
        read_levels(save(tmp_path / "signed.tif", -OBJECT.astype(np.int32)))


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_mask_in_the_alpha_channel(tmp_path: Path, colour: int, mode: str) -> None:
    alpha = Image.fromarray(OBJECT * np.uint8(255))
    image = Image.new("L", alpha.size, colour).convert(mode)
    image.putalpha(alpha)
    image.save(tmp_path / "mask.png")
    assert foreground(tmp_path / "mask.png").tolist() == OBJECT.tolist()
    assert (LAYOUTS["pairs"].mask(tmp_path / "mask.png", MaskRule()) > 0).tolist() == OBJECT.tolist()


def test_alpha_beside_colours_that_say_something_else(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    cutout = np.dstack([photo, OBJECT * np.uint8(255)])
    with pytest.raises(InputError, match="another one in its alpha channel"):
        foreground(save(tmp_path / "cutout.png", cutout))
    grey = OBJECT[..., None] * np.array([255, 255, 255], np.uint8)
    solid = np.dstack([grey, np.full((12, 16), 255, np.uint8)])
    assert foreground(save(tmp_path / "solid.png", solid)).tolist() == OBJECT.tolist(), "opaque: alpha says nothing"
    faint = np.dstack([grey * 0, OBJECT * np.uint8(90)])
    with pytest.raises(InputError, match="its alpha channel 0, 90, none of them above 128"):
        foreground(save(tmp_path / "faint.png", faint))


def test_void_is_neither(tmp_path: Path) -> None:
    values = OBJECT * np.uint8(255)
    values[0] = 128
    path = save(tmp_path / "mask.png", values)
    mask = read_mask(path, 127, str, void=128, exact=True)
    assert mask.foreground.tolist() == OBJECT.tolist()
    assert mask.void is not None
    assert mask.void[0].all()
    assert not mask.void[1:].any()
    with pytest.raises(InputError, match="128 beside 0 and 255"):
        read_mask(path, 127, str, exact=True)
    assert (LAYOUTS["pairs"].mask(path, MaskRule(void=128)) > 0).tolist() == OBJECT.tolist()


def test_the_border_of_a_voc_palette_is_asked_about_whatever_the_threshold(tmp_path: Path) -> None:
    values = OBJECT.astype(np.uint8)
    values[0] = 255
    image = Image.fromarray(values, "P")
    image.putpalette([0, 0, 0, 128, 0, 0, *[0] * (3 * 253), 224, 224, 192])
    image.save(tmp_path / "voc.png")
    for above in (128, 37):
        with pytest.raises(InputError, match=r"VOC's border.*void: 255.*--void 255"):
            read_mask(tmp_path / "voc.png", above, str)
    assert read_mask(tmp_path / "voc.png", 37, str, void=255).foreground.tolist() == OBJECT.tolist()


def test_255_beside_numbers_is_asked_about(tmp_path: Path) -> None:
    """It may be the border around an object 1, as in VOC, or the object: only who made the mask knows."""
    around = np.zeros_like(OBJECT)
    around[2:10, 3:12] = True
    path = save(tmp_path / "a.png", np.where(around & ~OBJECT, np.uint8(255), OBJECT * np.uint8(1)))
    message = r"a\.png: values 0, 1, 255: if 255 is a border .*void: 255.* and declare mask: .*threshold: 1\}"
    for rule in (MaskRule(), MaskRule(rule="threshold")):
        with pytest.raises(InputError, match=message + ".* 255 is the object, .*threshold: 128"):
            LAYOUTS["pairs"].mask(path, rule)
    for declared, meant in (({"threshold": 1, "void": 255}, OBJECT), ({"threshold": 128}, around & ~OBJECT)):
        mask = LAYOUTS["pairs"].mask(path, MaskRule.model_validate({"rule": "threshold"} | declared))
        assert (mask > 0).tolist() == meant.tolist()
    with pytest.raises(MeasureError, match=r"--void 255 of evaluate. and --gt-threshold 0; .* --gt-threshold 127"):
        read_truth(path)
    assert read_truth(path, Protocol(gt_threshold=0, void=255)).mask.tolist() == OBJECT.tolist()
    assert read_truth(path, Protocol(gt_threshold=127)).mask.tolist() == (around & ~OBJECT).tolist()


def test_noise_of_a_mask_is_no_number_of_an_object(tmp_path: Path) -> None:
    y, x = np.mgrid[:96, :128]
    for radius in (5, 17, 40):
        disc = np.hypot(y - 47, x - 60) < radius
        for quality in (60, 85, 95, 99):
            noisy = save(tmp_path / "a.jpg", disc * np.uint8(255), quality=quality)
            again = save(tmp_path / "b.png", np.asarray(Image.open(noisy)))
            for path in (noisy, again):
                assert (foreground(path) == disc).mean() > 0.98
    values = disc * np.uint8(255)
    values[::9, ::7] = 3
    foreground(save(tmp_path / "c.png", values))


def test_scores_leave_void_out(tmp_path: Path) -> None:
    """What is predicted on void pixels, and how they stretch the map, changes no score."""
    rng = np.random.default_rng(1)
    truth = OBJECT * np.uint8(255)
    void = np.zeros_like(OBJECT)
    void[:2] = True
    levels = rng.integers(40, 200, OBJECT.shape).astype(np.uint8)
    save(tmp_path / "gt/a.png", np.where(void, np.uint8(77), truth))
    scores = []
    for name, there in (("low", 0), ("high", 255)):
        save(tmp_path / name / "a.png", np.where(void, np.uint8(there), levels))
        scores.append(score_folders(tmp_path / name, tmp_path / "gt", protocol=Protocol(void=77)).evaluator.compute())
    assert scores[0] == scores[1]
    save(tmp_path / "plain/a.png", truth)
    save(tmp_path / "least/a.png", np.where(void, levels[~void].min(), levels))
    assert score_folders(tmp_path / "least", tmp_path / "plain").evaluator.compute() == scores[0]


def test_a_set_that_is_empty_as_a_whole(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "gt" / f"{name}.png", OBJECT * np.uint8(0))
        save(tmp_path / "pred" / f"{name}.png", OBJECT * np.uint8(255))
    with pytest.raises(MeasureError, match="all 2 ground truths are empty"):
        score_folders(tmp_path / "pred", tmp_path / "gt")
    assert len(score_folders(tmp_path / "pred", tmp_path / "gt", may_be_empty=True).evaluator) == 2
    save(tmp_path / "gt/b.png", OBJECT * np.uint8(255))
    assert len(score_folders(tmp_path / "pred", tmp_path / "gt").evaluator) == 2
    (tmp_path / "pred/b.png").unlink()  # the one that is not empty counts, though its map is missing
    assert len(score_folders(tmp_path / "pred", tmp_path / "gt", missing="zero").evaluator) == 2
    save(tmp_path / "gt/b.png", OBJECT * np.uint8(0))
    with pytest.raises(MeasureError, match="all 2 ground truths are empty"):
        score_folders(tmp_path / "pred", tmp_path / "gt", missing="zero")


def test_faint_maps_of_sixteen_bits_are_not_guessed(tmp_path: Path) -> None:
    save(tmp_path / "gt/a.png", OBJECT * np.uint8(255))
    save(tmp_path / "pred/a.png", OBJECT * np.uint16(200))
    with pytest.raises(MeasureError, match="values up to 200 in 16 bits"):
        score_folders(tmp_path / "pred", tmp_path / "gt", protocol=Protocol(stretch=False))
    assert score_folders(tmp_path / "pred", tmp_path / "gt").evaluator.compute()["IoU"] == 1


def test_the_border_of_voc_is_no_instance_unless_it_says_so(tmp_path: Path) -> None:
    ids = OBJECT + 1 * (np.arange(16) > 6) * OBJECT
    ids[0] = 255
    path = indexed(tmp_path / "voc.png", ids, VOC)
    with pytest.raises(InputError, match=r"255 stands beside the instances 1, 2; .*--void 255"):
        read_ids(path)
    found = read_id_map(path, void=255)
    assert set(np.unique(found.ids)) == {0, 1, 2}
    assert found.void is not None
    assert found.void.sum() == 16
    colours = np.zeros((12, 16, 3), np.uint8)
    colours[OBJECT], colours[0] = (128, 0, 0), (224, 224, 192)
    path = save(tmp_path / "colours.png", colours)
    with pytest.raises(InputError, match="0xE0E0C0 stands beside"):
        read_ids(path)
    assert set(np.unique(read_ids(path, 0xE0E0C0))) == {0, 1}
    ids = np.where(OBJECT, 255, 0).astype(np.uint8)
    assert set(np.unique(read_ids(save(tmp_path / "one.png", ids)))) == {0, 255}, "alone it is an instance"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_ids_that_were_saved_with_losses(tmp_path: Path, suffix: str) -> None:
    ids = OBJECT * np.uint8(120)
    kind = {"jpg": "JPEG", "png": "JPEG", "webp": "WEBP"}[suffix]  # a JPEG by another name is one, too
    with pytest.raises(InputError, match="saved with losses"):
        read_ids(save(tmp_path / f"ids.{suffix}", ids, format=kind))
    exact = save(tmp_path / "exact.webp", np.dstack([ids] * 3), lossless=True)
    assert set(np.unique(read_ids(exact))) == {0, 1}


def bordered() -> np.ndarray:
    """Indices: 0, the object as 1, and 16 pixels of border as 255."""
    indices = OBJECT.astype(np.uint8)
    indices[0] = 255
    return indices


def test_void_is_a_colour_in_colours(tmp_path: Path) -> None:
    colours = np.array(BORDERED, np.uint8).reshape(256, 3)[bordered()]
    path = save(tmp_path / "colours.png", colours)
    mask = read_mask(path, 128, str, void=0xE0E0C0)
    assert mask.foreground.tolist() == OBJECT.tolist()
    assert mask.void is not None
    assert mask.void.sum() == 16
    with pytest.raises(InputError, match=r"VOC's border.*--void 0xE0E0C0"):
        foreground(path)
    grey = save(tmp_path / "grey.png", np.dstack([np.where(bordered() == 255, 100, OBJECT * 255).astype(np.uint8)] * 3))
    for void in (100, 0x646464):
        found = read_mask(grey, 128, str, void=void).void
        assert found is not None
        assert found.sum() == 16


@pytest.mark.parametrize("clear", [0, 255])
@pytest.mark.parametrize("parts", ["all", "object", "border"])
def test_a_transparent_colour_changes_no_index(tmp_path: Path, clear: int, parts: str) -> None:
    indices = bordered()
    if parts != "all":
        indices[indices == (255 if parts == "object" else 1)] = 0
    plain = indexed(tmp_path / "plain.png", indices, BORDERED)
    Image.open(plain).save(tmp_path / "clear.png", transparency=clear)
    if clear == 255 and parts != "object":
        return  # a border that cannot be seen contradicts the colours, which is refused
    for path in (plain, tmp_path / "clear.png"):
        mask = read_mask(path, 128, str, void=255)
        assert mask.void is not None
        assert mask.void.tolist() == (indices == 255).tolist()
        assert mask.foreground.tolist() == (indices == 1).tolist()
        if parts != "object":
            with pytest.raises(InputError, match="VOC's border"):
                foreground(path)


def png(path: Path, depth: int, kind: int, values: np.ndarray, clear: bytes = b"") -> Path:
    """A PNG of values of 16 bits as Pillow does not write it; `clear` is its transparent value."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, kind, 0, 0, 0))]
    chunks += [(b"tRNS", clear)] * bool(clear) + [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(b)) + t + b + struct.pack(">I", zlib.crc32(t + b)) for t, b in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path


def test_sixteen_bits_with_a_transparent_value(tmp_path: Path) -> None:
    values = np.where(OBJECT, 65535, 0).astype(np.uint16)
    values[0] = 300  # 1 of 255; cut off at 255 it would be white
    path = png(tmp_path / "clear.png", 16, 0, values, struct.pack(">H", 7))
    assert read_levels(path).values.tolist() == np.where(OBJECT, 255, (values == 300) * 1).tolist()
    ids = read_ids(png(tmp_path / "ids.png", 16, 0, values, struct.pack(">H", 300)))
    assert set(np.unique(ids)) == {0, 65535}
    assert read_id_map(path, void=300).void is not None


def test_sixteen_bits_a_colour_are_refused(tmp_path: Path) -> None:
    for value in (1, 255, 65535):
        path = png(tmp_path / "wide.png", 16, 2, np.dstack([OBJECT * np.uint16(value)] * 3))
        for read in (foreground, read_ids, read_levels):
            with pytest.raises(InputError, match="16 bits in each of several channels"):
                read(path)


def test_colours_on_both_sides_of_the_threshold(tmp_path: Path) -> None:
    colours = np.zeros((12, 16, 3), np.uint8)
    colours[2:6, 2:8], colours[6:10, 6:14] = (255, 0, 0), (255, 255, 0)
    for suffix in ("png", "bmp"):
        with pytest.raises(InputError, match=r"luma of its colours 0, 76, 226, some of its colours above 128.*from 76"):
            foreground(save(tmp_path / f"two.{suffix}", colours))
    solid = np.dstack([colours, np.full((12, 16), 255, np.uint8)])
    with pytest.raises(InputError, match="some of its colours above"):
        foreground(save(tmp_path / "solid.png", solid))
    hidden = np.dstack(
        [np.where(OBJECT[..., None], np.uint8([255, 255, 0]), np.uint8([255, 0, 0])), OBJECT * np.uint8(255)]
    )
    hidden[0, 0] = (200, 200, 200, 255)
    assert foreground(save(tmp_path / "hidden.png", hidden)).sum() == OBJECT.sum() + 1, "red that nobody sees"
    assert foreground(tmp_path / "two.png", 75).sum() == (colours.max(2) > 0).sum()


def test_soft_edges_and_noise_of_a_mask_in_colours_are_no_objects(tmp_path: Path) -> None:
    soft = Image.fromarray(OBJECT * np.uint8(255)).resize((80, 60), Image.Resampling.BICUBIC)
    levels = np.asarray(soft)
    assert (foreground(save(tmp_path / "grey.png", np.dstack([levels] * 3))) == (levels > 128)).all()
    yellow = np.dstack([levels, levels, levels * 0])
    assert (
        foreground(save(tmp_path / "yellow.png", yellow)) == (np.asarray(Image.fromarray(yellow).convert("L")) > 128)
    ).all()
    noisy = np.asarray(Image.open(save(tmp_path / "noisy.jpg", yellow, quality=60)).convert("RGB"))
    for name in ("noisy.jpg", "again.png"):
        path = tmp_path / name if name == "noisy.jpg" else save(tmp_path / name, noisy)
        assert foreground(path).sum() == pytest.approx((levels > 128).sum(), rel=0.1)
    faint = np.zeros((12, 16, 3), np.uint8)
    faint[0, :, 2] = 1
    assert not foreground(save(tmp_path / "faint.png", faint)).any(), "the noise of a black picture is black"


def test_a_photo_is_no_mask(tmp_path: Path) -> None:
    """What falls from left to right in one channel and from top to bottom in another; as grey it is a soft map."""
    down, across = np.mgrid[0:240:60j, 0:240:80j].astype(np.uint8)
    photo = np.dstack([across, down, down // 2])
    for suffix in ("jpg", "webp"):
        with pytest.raises(InputError, match=rf"photo\.{suffix} is a colour picture saved with losses .* is missing"):
            foreground(save(tmp_path / f"photo.{suffix}", photo))
    assert foreground(save(tmp_path / "soft.jpg", np.dstack([across] * 3))).any()
    assert foreground(save(tmp_path / "grey.jpg", across)).any()


def test_ids_are_not_cut_off(tmp_path: Path) -> None:
    ids = np.where(OBJECT, 300, 0)
    ids[0] = 400
    for colours in (None, True, False):
        with pytest.raises(InputError, match="float32"):
            read_ids(save(tmp_path / "float.tif", ids.astype(np.float32)), colours=colours)
    wide = save(tmp_path / "wide.png", ids.astype(np.uint16))
    assert set(np.unique(read_ids(wide))) == {0, 300, 400}
    assert set(np.unique(read_ids(wide, colours=True))) == {0, 1, 2}


def test_what_is_transparent_is_no_instance(tmp_path: Path) -> None:
    path = indexed(tmp_path / "ids.png", np.where(OBJECT, 1, 3), VOC)
    Image.open(path).save(tmp_path / "clear.png", transparency=3)
    assert set(np.unique(read_ids(path))) == {1, 3}
    for colours in (None, True):
        assert set(np.unique(read_ids(tmp_path / "clear.png", colours=colours))) == {0, 1}
    void = read_id_map(tmp_path / "clear.png", void=3).void
    assert void is not None
    assert void.tolist() == (~OBJECT).tolist()


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.png", "a.webp"])
def test_a_mask_of_several_frames_is_not_taken_for_its_first(tmp_path: Path, name: str) -> None:
    first, second = Image.fromarray(OBJECT * np.uint8(255)), Image.fromarray(~OBJECT * np.uint8(255))
    options: dict[str, object] = {"lossless": True} if name.endswith("webp") else {}
    first.save(tmp_path / name, save_all=True, append_images=[second], **options)
    for read in (read_levels, read_ids):
        with pytest.raises(InputError, match=rf"{name} has several frames or pages, expected one"):
            read(tmp_path / name)
    first.save(tmp_path / name, **options)
    assert np.array_equal(read_levels(tmp_path / name).values > 0, OBJECT)


def test_an_overview_beside_a_mask_is_no_other_mask(tmp_path: Path) -> None:
    mask = Image.fromarray(OBJECT * np.uint8(255))
    mask.save(tmp_path / "a.tif", save_all=True, append_images=[mask.resize((8, 6))])
    assert np.array_equal(read_levels(tmp_path / "a.tif").values > 0, OBJECT)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_mask_that_is_to_be_shown_turned_is_refused(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    for orientation in (1, 3):
        exif[0x0112] = orientation
        save(tmp_path / f"{orientation}.{suffix}", OBJECT * np.uint8(255), exif=exif)
    assert np.array_equal(read_levels(tmp_path / f"1.{suffix}").values > 0, OBJECT)
    for read in (read_levels, read_ids):
        with pytest.raises(InputError, match=rf"3\.{suffix} is a mask with an EXIF orientation of its own \(3\)"):
            read(tmp_path / f"3.{suffix}")
