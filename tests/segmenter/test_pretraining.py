"""The words and the scenes on which the embedded segmenter is trained."""

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TINY

from pretrain.render import UNSEEN
from saliency_r1.segmenter.evf_sam import EvfSam
from saliency_r1.segmenter.tokenizer import Tokenizer


@pytest.fixture(scope="module", autouse=True)
def pretrain_on_path(request):
    """The scripts of pretrain/ import one another by name, as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(request.config.rootpath / "pretrain")
        yield


@pytest.fixture(scope="module")
def script():
    return importlib.import_module("segmenter")


@pytest.fixture(scope="module")
def referring():
    return importlib.import_module("referring")


def test_expressions_mean_what_they_say(referring):
    rng = np.random.default_rng(0)
    absent = several = 0
    for _ in range(200):
        scene = referring.random_scene(rng)
        looks = {item.id: item for item in scene.objects}
        for phrase, ids in referring.expressions(scene.objects, rng, 0.0):
            several += len(ids) > 1
            absent += not ids
            if not ids:
                assert not any(f"{item.colour} {item.shape}" in phrase for item in scene.objects)
                assert not any(f"{colour} {shape}" in phrase for colour, shape in UNSEEN)
            for number in ids:
                item = looks[number]
                assert item.colour in phrase or item.shape in phrase or item.place in phrase
    assert absent > 50
    assert several > 100


def test_targets(referring):
    scene = referring.random_scene(np.random.default_rng(4))
    one, *_ = scene.masks
    masks = referring.targets(scene, [("a", (one,)), ("all", tuple(scene.masks)), ("none", ())])
    assert np.array_equal(masks[0], scene.masks[one])
    assert np.array_equal(masks[1], np.any(list(scene.masks.values()), axis=0))
    assert not masks[2].any()


def test_vocabulary_knows_whole_words(script, referring, tmp_path):
    referring.train_vocabulary(tmp_path / "pieces.model")
    tokenizer = Tokenizer(tmp_path / "pieces.model", 96)
    assert len(tokenizer.encode("the large red circle at the top left")) == 2 + 8
    assert tokenizer.encode("The Red RING") == tokenizer.encode("the red ring")
    assert tokenizer.pieces.get_piece_size() < script.CONFIG.beit3.vocab_size


def test_enlarged_keeps_the_rest(script):
    vision = replace(TINY.sam_image_encoder, use_rel_pos=False, window_size=0)
    model = EvfSam(replace(TINY, sam_image_encoder=vision))
    larger = script.enlarged(model, replace(TINY, sam_image_encoder=replace(vision, img_size=96)))
    before, after = model.state_dict(), larger.state_dict()
    table = "visual_model.image_encoder.pos_embed"
    assert after.pop(table).shape == (1, 12, 12, 32)
    assert all(torch.equal(before[name], value) for name, value in after.items())
    with torch.no_grad():
        assert larger.embed_images(torch.zeros(1, 3, 96, 96)).shape == (1, 32, 12, 12)
