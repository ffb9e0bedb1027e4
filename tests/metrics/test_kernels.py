"""The compiled loops beside plain ones and scipy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from saliency_r1.metrics import kernels


def nearest(rows, squares, y, x):
    """The place that `kernels.missed_inside` borrows from: leftmost, then topmost."""
    column = next(c for c in range(rows.shape[1]) if int(rows[y, c]) ** 2 + (x - c) ** 2 == squares[y, x])
    return y + rows[y, column], column


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_distances_and_nearest_places_are_those_of_scipy(height, width, density, seed):
    rng = np.random.default_rng(seed)
    inside = rng.random((height, width)) < density
    inside[rng.integers(height), rng.integers(width)] = True
    rows, squares = kernels.distances(inside.view(np.uint8))
    expected, places = distance_transform_edt(~inside, return_indices=True)
    np.testing.assert_array_equal(squares, np.rint(expected**2))
    for y, x in np.argwhere(~inside):
        assert nearest(rows, squares, y, x) == tuple(places[:, y, x])


@pytest.mark.parametrize(("height", "width", "y", "x"), [(600, 3, 0, 1), (3, 600, 2, 599), (400, 400, 0, 0)])
def test_far_away_distances_end_at_the_farthest(height, width, y, x):
    inside = np.zeros((height, width), np.uint8)
    inside[y, x] = 1
    exact = (np.arange(height)[:, None] - y) ** 2 + (np.arange(width) - x) ** 2
    np.testing.assert_array_equal(kernels.distances(inside)[1], np.minimum(exact, kernels.FARTHEST))


def test_a_weight_at_the_farthest_distance_is_two():
    assert kernels.WEIGHTS[-1] == pytest.approx(2, abs=1e-15)
    assert kernels.WEIGHTS[0] == 0
    assert kernels.WEIGHTS[25] == pytest.approx(1.5, abs=1e-15)  # five pixels away


def test_histograms_count_every_pixel_of_either_class():
    rng = np.random.default_rng(0)
    levels, inside = rng.integers(0, 256, (37, 51), dtype=np.uint8), rng.integers(0, 2, (37, 51), dtype=np.uint8)
    counts = kernels.histograms(levels, inside)
    for k in (0, 1):
        np.testing.assert_array_equal(counts[k], np.bincount(levels[inside == k], minlength=256))


def test_without_a_folder_to_write_it_is_compiled_for_this_process_alone(monkeypatch):
    def njit(*function, cache=False):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return function[0]

    monkeypatch.setattr(kernels, "njit", njit)
    assert kernels._compiled(len) is len
