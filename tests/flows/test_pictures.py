"""Pictures for the Prefect UI: what is drawn is what the numbers say, and it arrives as an artifact."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client

from flows import pictures

DECISION = {
    "verdict": "promote",
    "overall": {"difference": 0.03, "low": 0.01, "high": 0.05},
    "datasets": {"a": {"difference": -0.1, "low": -0.2, "high": -0.05}},
    "rules": {"margin": 0.02},
}
KEYS = ("decision", "drift-picture", "overview")
DRIFT = [
    {"data set": "a/test", "measure": "width", "distance": 0.1, "moved": False},
    {"data set": "a/test", "measure": "share", "distance": 0.8, "moved": True},
    {"data set": "b/test", "measure": "is new", "moved": True},
]


def pixels(uri: str) -> np.ndarray:
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), int)


def of_colour(image: np.ndarray, colour: str) -> np.ndarray:
    """Rows and columns of the pixels of a colour."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return np.argwhere(np.abs(image - wanted).max(-1) < 8)


def test_a_gain_is_green_and_on_top_and_a_loss_is_not() -> None:
    image = pixels(pictures.differences(DECISION))
    better, worse = of_colour(image, pictures.GOOD), of_colour(image, pictures.BAD)
    assert better[:, 0].mean() < worse[:, 0].mean(), "overall comes first"
    assert better[:, 1].mean() > worse[:, 1].mean(), "more is to the right"


def test_a_difference_without_an_interval_is_a_point_of_no_colour() -> None:
    image = pixels(
        pictures.differences(DECISION | {"datasets": {"a": {"difference": -0.1}}, "overall": {"difference": 0.1}})
    )
    assert not len(of_colour(image, pictures.GOOD))
    assert len(of_colour(image, pictures.LINE))


def test_bars_are_as_long_as_the_distance_and_coloured_where_it_counts() -> None:
    image = pixels(pictures.distances(DRIFT))
    moved, still = of_colour(image, pictures.BAD), of_colour(image, pictures.LINE)
    assert moved[:, 0].mean() < still[:, 0].mean(), "the farthest comes first"
    assert np.ptp(moved[:, 1]) == pytest.approx(8 * np.ptp(still[:, 1]), rel=0.05)


@pytest.mark.slow
def test_they_arrive(prefect_server: None, tmp_path: Path) -> None:
    (tmp_path / "artifacts/report").mkdir(parents=True)
    Image.new("RGB", (3000, 200), "red").save(tmp_path / "artifacts/report/overview.png")

    @flow
    def shows() -> None:
        pictures.show_overview(tmp_path)
        pictures.show_decision("**better**\n", DECISION, "v0.0.1")
        pictures.show_decision("**first**\n", DECISION | {"overall": None}, "no champion")
        pictures.show_drift(DRIFT)
        pictures.show_drift(DRIFT[2:])

    shows()
    with get_client(sync_client=True) as client:
        found = sorted((one.key, one.description, str(one.data)) for one in client.read_artifacts() if one.key in KEYS)
    assert [key for key, *_ in found] == ["decision", "decision", "drift-picture", "overview"]
    assert found[0][1:] == ("Against no champion", "**first**\n")
    assert found[1][2].startswith("**better**\n\n![differences with their intervals](data:image/png;base64,")
    assert all("](data:image/" in text for *_, text in found[1:])
