"""The words and the scenes on which the embedded segmenter is trained."""

import importlib
import re

import numpy as np
import pytest
from drawn import drawn_world

from saliency_r1.segmenter.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def script(pretrain_on_path):
    return importlib.import_module("segmenter")


@pytest.fixture(scope="module")
def referring(pretrain_on_path):
    return importlib.import_module("referring")


@pytest.fixture(scope="module")
def world(pretrain_on_path):
    return drawn_world()


def true_of(phrase, item):
    """Whether every word of a plain expression is true of a thing, read independently of how it was composed."""
    looks, _, place = phrase.removeprefix("the ").partition(" at the ")
    *adjectives, noun = looks.split()
    known = {item.colour, item.size, *(("faint",) if item.tone == "faint" else ())}
    return set(adjectives) <= known and noun in (item.name, item.family, "object") and place in ("", item.place)


def test_expressions_mean_every_thing_of_which_they_are_true(referring, world):
    rng = np.random.default_rng(0)
    kinds = referring.all_kinds(world)
    absent = several = vague = 0
    for _ in range(150):
        scene = referring.random_scene(world, rng)
        for phrase, ids in referring.expressions(scene.objects, kinds, rng, 0.0):
            parts = re.split(", | and ", phrase)
            meant = {item.id for item in scene.objects for part in parts if true_of(part, item)}
            assert meant == set(ids), (phrase, scene.objects)
            absent += not ids
            several += len(parts) > 1
            vague += len(parts) == 1 and len(ids) > 1
    assert absent > 40
    assert several > 60
    assert vague > 5, "a vague expression may mean more than one thing"


def test_targets(referring, world):
    scene = referring.random_scene(world, np.random.default_rng(4))
    one, *_ = scene.masks
    masks = referring.targets(scene, [("a", (one,)), ("all", tuple(scene.masks)), ("none", ())])
    assert np.array_equal(masks[0], scene.masks[one])
    assert np.array_equal(masks[1], np.any(list(scene.masks.values()), axis=0))
    assert not masks[2].any()


def test_vocabulary_knows_whole_words(script, referring, world, tmp_path):
    referring.train_vocabulary(world, tmp_path / "pieces.model", 260)
    tokenizer = Tokenizer(tmp_path / "pieces.model", 96)
    assert len(tokenizer.encode("the large red disc at the top left")) == 2 + 8
    assert tokenizer.encode("The Red DISC") == tokenizer.encode("the red disc")
    assert script.CONFIG.beit3.vocab_size > referring.PIECES
