"""What is foreground, and what is an instance: one rule for every file that people keep masks in."""

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
    with pytest.raises(MeasureError, match="all 2 ground truths that have a map are empty"):
        score_folders(tmp_path / "pred", tmp_path / "gt")
    assert len(score_folders(tmp_path / "pred", tmp_path / "gt", may_be_empty=True).evaluator) == 2
    save(tmp_path / "gt/b.png", OBJECT * np.uint8(255))
    assert len(score_folders(tmp_path / "pred", tmp_path / "gt").evaluator) == 2


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
