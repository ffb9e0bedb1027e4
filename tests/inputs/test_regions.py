"""Segmentations: the right pixels or a reason, never a crash of the library below."""

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.regions import area, decode, encode

HEIGHT, WIDTH = 24, 30
SQUARE = [2, 2, 12, 2, 12, 12, 2, 12]


def runs(mask: np.ndarray) -> list[int]:
    """The runs of a mask column by column, background first, counted by hand."""
    found, value = [0], False
    for pixel in mask.ravel(order="F"):
        if pixel != value:
            found.append(0)
            value = not value
        found[-1] += 1
    return found


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_of_both_forms_give_the_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((HEIGHT, WIDTH)) < rng.choice([0.02, 0.5, 0.98])
    plain = {"size": [HEIGHT, WIDTH], "counts": runs(mask)}
    compressed = coco.encode(np.asfortranarray(mask, np.uint8))
    text = compressed | {"counts": compressed["counts"].decode()}
    for form in (plain, text, compressed):
        code = encode(form, HEIGHT, WIDTH)
        assert (decode(code) == mask).all()
        assert code == compressed
        assert area(code) == mask.sum()


def test_long_runs_survive_compression() -> None:
    plain = {"size": [20_000, 30_000], "counts": [299_999_999, 123_456_789, 176_543_212]}
    code = encode(plain, 20_000, 30_000)
    assert encode(code | {"counts": code["counts"].decode()}, 20_000, 30_000) == code
    assert area(code) == 123_456_789


def test_runs_of_nothing_between_others_are_joined() -> None:
    """pycocotools stops at two empty runs that meet, and takes a region for different from itself."""
    split = encode({"size": [4, 4], "counts": [2, 3, 0, 2, 0, 0, 9]}, 4, 4)
    assert split == encode({"size": [4, 4], "counts": [2, 5, 9]}, 4, 4)
    assert (
        encode({"size": [2, 2], "counts": [0, 0, 0, 4]}, 2, 2)["counts"]
        == encode({"size": [2, 2], "counts": [0, 4]}, 2, 2)["counts"]
    )


def test_polygons_are_those_of_pycocotools() -> None:
    other = [20.5, 3.25, 28, 9, 15, 22]
    expected = coco.merge(coco.frPyObjects([SQUARE, other], HEIGHT, WIDTH))
    assert encode([SQUARE, other], HEIGHT, WIDTH) == expected
    outside = [-20, -10, 30, -10, 30, 20, -20, 20]
    assert encode([outside], HEIGHT, WIDTH) == coco.frPyObjects([outside], HEIGHT, WIDTH)[0]


@pytest.mark.parametrize("nothing", [[], [3, 4], [4, 4, 30, 20]])
@pytest.mark.parametrize("first", [True, False])
def test_parts_that_enclose_nothing_add_nothing(nothing: list[float], first: bool) -> None:
    """Of four numbers in front pycocotools makes a box."""
    parts = [nothing, SQUARE] if first else [SQUARE, nothing]
    assert encode(parts, HEIGHT, WIDTH) == encode([SQUARE], HEIGHT, WIDTH)


BAD: list[tuple[Any, str]] = [
    (None, "no segmentation; a box does not say"),
    ([], "an empty segmentation"),
    ([[]], "fewer than three points"),
    ([[4, 4, 30, 20]], "fewer than three points"),
    (SQUARE, "a flat list of numbers"),
    ([[[2, 2], [12, 2], [12, 12]]], "expected a list of numbers"),
    ([["2", "2", "12", "2", "12", "12"]], "expected a list of numbers"),
    ([[2, 2], [12, 2], [12, 12]], "a list of points for a segmentation"),
    ([[2, 2, 12, 2, 12, 12, 2]], "7 numbers, expected pairs"),
    ([[2, 2, float("nan"), 2, 12, 12]], "NaN or infinity"),
    ([[2, 2, float("inf"), 2, 12, 12]], "NaN or infinity"),
    ([[2, 2, 10**400, 2, 12, 12]], "too large"),
    ([[2, 2, 1e8, 2, 12, 12]], r"\(1e\+08, 2\), far outside of the picture of 30 x 24"),
    ([[2, -31, 12, 2, 12, 12]], "far outside"),
    ([[0, 0, 30, 24] * 100_000], "outline is .* pixels long"),
    ("abc", "expected polygons or a run-length code"),
    (7, "expected polygons or a run-length code"),
    ({}, "without size and counts"),
    ({"size": [WIDTH, HEIGHT], "counts": [720]}, r"size \[30, 24\], expected its image's: \[24, 30\]"),
    ({"size": None, "counts": [720]}, "size None"),
    ({"size": [HEIGHT, WIDTH], "counts": [700]}, "700 pixels, expected 24 x 30 = 720"),
    ({"size": [HEIGHT, WIDTH], "counts": [700, 30]}, "730 pixels"),
    ({"size": [HEIGHT, WIDTH], "counts": []}, "0 pixels"),
    ({"size": [HEIGHT, WIDTH], "counts": ""}, "0 pixels"),
    ({"size": [HEIGHT, WIDTH], "counts": [730, -10]}, "not whole numbers"),
    ({"size": [HEIGHT, WIDTH], "counts": [2**32 + 720]}, "not whole numbers"),
    ({"size": [HEIGHT, WIDTH], "counts": [719.5, 0.5]}, "not whole numbers"),
    ({"size": [HEIGHT, WIDTH], "counts": 720}, "expected a list or a text"),
    ({"size": [HEIGHT, WIDTH], "counts": "Zoé"}, "beyond ASCII"),
    ({"size": [HEIGHT, WIDTH], "counts": "PPPP"}, "cut off"),
    ({"size": [HEIGHT, WIDTH], "counts": "b'PPPP'"}, r"write counts\.decode\(\)"),
    ({"size": [HEIGHT, WIDTH], "counts": " \x01"}, "cut off or damaged"),
    ({"size": [HEIGHT, WIDTH], "counts": "oooooooooo0"}, "beyond 32 bits"),
    ({"size": [HEIGHT, WIDTH], "counts": "O"}, "negative"),
]


@pytest.mark.parametrize(("segmentation", "reason"), BAD)
def test_what_is_no_region_is_said(segmentation: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        encode(segmentation, HEIGHT, WIDTH)


def test_a_huge_picture_takes_no_memory() -> None:
    """2e9 pixels would be 2 GB; an outline is a few bytes."""
    code = encode([[0, 0, 50_000, 0, 50_000, 40_000, 0, 40_000]], 40_000, 50_000)
    assert area(code) == 2_000_000_000
    assert len(code["counts"]) < 100


def test_damaged_codes_are_refused_or_read_but_never_end_the_process() -> None:
    rng = np.random.default_rng(0)
    whole = coco.encode(np.asfortranarray(rng.random((HEIGHT, WIDTH)) < 0.3, np.uint8))["counts"]
    read = 0
    for _ in range(3000):
        counts = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(counts), rng.integers(0, 3)):
            counts[place] = rng.integers(0, 256)
        try:
            code = encode({"size": [HEIGHT, WIDTH], "counts": counts.decode("latin-1")}, HEIGHT, WIDTH)
        except InputError:
            continue
        read += 1
        assert decode(code).shape == (HEIGHT, WIDTH)
    assert 0 < read < 3000
