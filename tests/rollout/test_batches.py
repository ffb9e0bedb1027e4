"""Which samples a step sees."""

import pytest

from saliency_r1.rollout.batches import buckets, epoch_batch


def test_every_sample_comes_once_an_epoch():
    seen = [index for step in range(5) for index in epoch_batch(10, 4, step, seed=3)]
    assert sorted(seen[:10]) == list(range(10))
    assert sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_a_step_does_not_depend_on_the_ones_before():
    assert epoch_batch(10, 4, 7, 3) == epoch_batch(10, 4, 7, 3)
    assert epoch_batch(10, 4, 7, 3) != epoch_batch(10, 4, 7, 4)


def test_a_batch_larger_than_the_data_is_an_error():
    with pytest.raises(ValueError, match="a batch of 11 cannot be drawn from 10"):
        epoch_batch(10, 11, 0, 0)


def test_buckets_hold_neighbours_in_length_and_every_position_once():
    lengths = [5, 50, 6, 49, 7]
    assert buckets(lengths, 2) == [[0, 2], [4, 3], [1]]
