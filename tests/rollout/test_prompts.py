"""Encoded prompts that are kept: the last ones used, in so many bytes."""

from dataclasses import dataclass

import pytest
import torch

from saliency_r1.policy import Prompt
from saliency_r1.rollout import environment
from saliency_r1.rollout.environment import Environment


@dataclass
class Encoder:
    """Stands in for a policy: a prompt of `size` bytes, and which ones were asked for."""

    size: int
    asked: int = 0

    def prompt(self, images: object, instruction: str) -> Prompt:
        self.asked += 1
        ids = torch.full((2,), self.asked)
        return Prompt(ids, {"pixel_values": torch.zeros(self.size - ids.nbytes, dtype=torch.uint8)})


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Ask an environment with room for 400 bytes for the prompts of samples by their names."""
    monkeypatch.setattr(environment, "read_images", lambda row, folder: [])
    kept = Environment(None, tmp_path, {}, max_new_tokens=1, batch_size=1, _room=400)
    return lambda encoder, names: kept.prompts(encoder, [{"sample_id": name, "task": "sod"} for name in names])


def test_a_small_data_set_is_encoded_once(ask):
    encoder = Encoder(100)
    first = ask(encoder, "abcd")
    assert all(one is two for one, two in zip(ask(encoder, "dcba"), first[::-1], strict=True))
    assert encoder.asked == 4


def test_of_a_large_one_each_group_asks_once(ask):
    encoder = Encoder(100)
    for update in range(50):
        names = [f"{update}-{prompt}" for prompt in range(3) for _ in range(8)]
        prompts = ask(encoder, names)
        assert [prompt is prompts[8 * (place // 8)] for place, prompt in enumerate(prompts)] == [True] * 24
    assert encoder.asked == 150


def test_what_was_used_longest_ago_makes_room(ask):
    encoder = Encoder(100)
    ask(encoder, "abcd")
    ask(encoder, "a")
    ask(encoder, "e")  # in the place of b
    assert encoder.asked == 5
    ask(encoder, "acde")
    assert encoder.asked == 5
    ask(encoder, "b")
    assert encoder.asked == 6


def test_a_prompt_larger_than_all_the_room_is_not_kept(ask):
    huge, small = Encoder(500), Encoder(400)
    ask(huge, "aa")
    assert huge.asked == 2
    ask(small, "bb")
    assert small.asked == 1, "the room is there again"
