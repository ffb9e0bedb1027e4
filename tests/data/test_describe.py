"""Drift: the same pictures have not moved, larger objects have, a handful is no evidence, a new split is named."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from saliency_r1.data.describe import SCHEMA, describe, drift


def world(count: int, share: float, seed: int = 0, split: str = "train") -> pl.DataFrame:
    """Images of one size whose mask shares lie around a value."""
    shares = np.random.default_rng(seed).normal(share, 0.05, count)
    return pl.DataFrame([("d", split, 100.0, 1.0, float(one), 1.0) for one in shares], SCHEMA, orient="row")


def moved(before: pl.DataFrame, after: pl.DataFrame) -> list[str]:
    return [f"{row['data set']} {row['measure']}" for row in drift(before, after, 0.001, 0.15) if row["moved"]]


def test_only_what_moved_is_named() -> None:
    assert moved(world(300, 0.3), world(300, 0.3, 1)) == []
    assert moved(world(300, 0.3), world(300, 0.35, 1)) == ["d/train mask_share"]
    assert moved(world(4, 0.3), world(4, 0.35, 1)) == []


def test_a_difference_too_small_to_matter_does_not_move_thousands() -> None:
    before, after = world(20000, 0.3), world(20000, 0.305, 1)
    (row,) = [row for row in drift(before, after, 0.001, 0.15) if row["measure"] == "mask_share"]
    assert row["p"] < 0.001 / 4
    assert not row["moved"]


def test_each_of_several_tests_has_its_share_of_the_level() -> None:
    """Four measures of one split: what is rarer than a fourth of the level has moved."""
    before, after = world(100, 0.3), world(100, 0.32, 1)

    def share(level: float) -> dict:
        return next(row for row in drift(before, after, level, 0.01) if row["measure"] == "mask_share")

    p = share(1.0)["p"]
    assert 0 < p < 0.1
    assert [share(level)["moved"] for level in (3 * p, 5 * p)] == [False, True]


def test_splits_that_come_and_go_are_named() -> None:
    assert moved(world(9, 0.3), world(9, 0.3, split="val")) == ["d/train is gone", "d/val is new"]


def test_what_is_measured_of_masks(tmp_path) -> None:
    mask = np.zeros((10, 20), np.uint8)
    mask[0:2, 0:5] = 255
    mask[5:7, 0:5] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    ids = np.zeros((10, 20), np.uint16)
    ids[0:2, 0:10] = 1
    ids[2:3, 0:10] = 2
    ids[3:4, 0:10] = 7
    Image.fromarray(ids).save(tmp_path / "i.png")
    rows = [
        {"sample_id": name, "task": task, "dataset": "d", "split": "test", "masks": [f"{name}.png"], "names": [name]}
        for name, task in (("m", "sod"), ("i", "sis"))
    ]
    found = describe(pl.DataFrame(rows), tmp_path)
    assert found.select("pixels", "aspect", "objects").rows() == [(200.0, 2.0, 2.0), (200.0, 2.0, 3.0)]
    assert found["mask_share"].to_list() == pytest.approx([0.1, 0.2])
