"""Calibration and response types, counted by hand."""

import polars as pl
import pytest

from saliency_r1.report.calibration import expected_calibration_error, last_rollouts, reliability, response_types


def rollouts(confidence: list[float], reward: list[float]) -> pl.DataFrame:
    count = range(len(reward))
    advantage = [r - c for r, c in zip(reward, confidence)]
    return pl.DataFrame(
        {"rollout_id": count, "update": [1 + number // 5 for number in count], "reward": reward,
         "confidence": confidence, "advantage": advantage}
    )  # fmt: skip


def test_bins_have_equal_mass_and_the_error_is_their_weighted_distance() -> None:
    table = rollouts([number / 20 for number in range(20)], [0.5] * 20)
    bins = reliability(table.sample(fraction=1, shuffle=True, seed=3))
    assert bins["responses"].to_list() == [2] * 10
    assert bins["confidence"].to_list() == pytest.approx([0.025 + number / 10 for number in range(10)])
    # |.5 - .025|, |.5 - .125|, ... = .475 .375 .275 .175 .075, then .025 .125 .225 .325 .425
    assert expected_calibration_error(bins) == pytest.approx(0.25)


def test_a_table_shorter_than_the_bins() -> None:
    bins = reliability(rollouts([0.2, 0.8], [0.2, 0.6]))
    assert bins["responses"].sum() == 2
    assert expected_calibration_error(bins) == pytest.approx(0.1)


def test_the_corners() -> None:
    # Ten responses: one in each corner, six in the middle of both.
    table = rollouts(
        [0.1, 0.1, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    )
    unsure, sure, missed, overconfident = response_types(table)
    assert [row["responses"] for row in (unsure, sure, missed, overconfident)] == [1, 1, 1, 1]
    assert unsure["advantage"] == pytest.approx(0.9)
    assert overconfident["advantage"] == pytest.approx(-0.9)
    assert sure["example"]["rollout_id"] == 2
    assert missed["example"]["rollout_id"] == 1


def test_an_empty_corner_has_no_example() -> None:
    values = [number / 10 for number in range(10)]
    unsure, *_ = response_types(rollouts(values, values))
    assert (unsure["responses"], unsure["reward"], unsure["example"]) == (0, None, None)


def test_only_the_last_half_counts() -> None:
    assert last_rollouts(rollouts([0.5] * 20, [0.5] * 20))["update"].unique().to_list() == [3, 4]
