"""The recipe: losses as in the official model file, the same run with and without an interruption."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, picture

from saliency_r1.segmenter import load, training
from saliency_r1.segmenter.evf_sam import EvfSam
from saliency_r1.segmenter.loading import load_model, save_folder
from saliency_r1.segmenter.tokenizer import Tokenizer
from saliency_r1.segmenter.training import Batch, PhraseFolder, Recipe, example, forward, freeze, mask_losses, train

RECIPE = Recipe(steps=6, learning_rate=1e-3, iou_weight=1.0, log_every=2, checkpoint_every=3, train_image_encoder=True)


@pytest.fixture
def tokenizer(pieces):
    return Tokenizer(pieces, 38)


def batches(tokenizer):
    def batch(step: int) -> Batch:
        rng = np.random.default_rng(step)
        examples = []
        for seed, (height, width) in enumerate([(20, 30), (40, 24)]):
            masks = rng.random((2, height, width)) > 0.5
            masks[1] = seed == 1
            examples.append(example(TINY, tokenizer, picture(width, height, seed), ["the ring", "a star"], masks))
        return Batch.collate(examples)

    return batch


def test_losses_by_hand():
    logits = torch.tensor([[[2.0, -1.0], [0.5, -3.0]]])
    target = torch.tensor([[[True, False], [False, False]]])
    out = mask_losses(logits, target)
    p, t = logits.sigmoid()[0], target[0].float()
    bce = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    dice = 1 - (2 * (p * t).sum() / 1000 + 1e-6) / (p.sum() / 1000 + t.sum() / 1000 + 1e-6)
    assert out["bce"].item() == pytest.approx(bce.item(), abs=1e-6)
    assert out["dice"].item() == pytest.approx(dice.item(), abs=1e-6)
    assert out["iou"].item() == 0.5


def test_absent_counts_as_iou_zero():
    out = mask_losses(torch.full((2, 3, 3), -1.0), torch.zeros(2, 3, 3, dtype=torch.bool))
    assert out["iou"].tolist() == [0, 0]


def test_frozen_as_in_the_official_model():
    model = EvfSam(TINY)
    freeze(model, Recipe())
    free = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(not name.startswith("visual_model.image_encoder") for name in free)
    assert {n for n in free if "prompt_encoder" in n} == {"visual_model.prompt_encoder.no_mask_embed.weight"}
    assert any(n.startswith("visual_model.mask_decoder") for n in free)
    freeze(model, Recipe(train_mask_decoder=False, train_no_mask_embed=False))
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {
        "mm_extractor",
        "text_hidden_fcs",
    }


def test_features_stand_for_the_view(network, tokenizer):
    batch = batches(tokenizer)(0)
    with torch.no_grad():
        features = network.embed_images(batch.sam)
        direct = forward(network, batch)
        cached = forward(network, Batch(**{**vars(batch), "sam": torch.empty(2), "features": features}))
    assert all(torch.allclose(direct[name], cached[name], atol=1e-6) for name in direct)


def test_resumed_equals_uninterrupted(tokenizer, tmp_path):
    torch.manual_seed(0)
    start = EvfSam(TINY).state_dict()

    def run(folder, stop=None):
        model = EvfSam(TINY)
        model.load_state_dict(start)

        def after(step, _):
            if step == stop:
                raise KeyboardInterrupt

        lines = []
        train(model, batches(tokenizer), RECIPE, folder, after, lines.append)
        return model.state_dict(), lines

    whole, lines = run(tmp_path / "whole")
    assert [line.split()[1] for line in lines] == ["2", "4", "6"]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop=5)
    resumed, lines = run(tmp_path / "parts")
    assert lines[0].startswith("step 4")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(not torch.equal(whole[name], start[name]) for name in whole)


def test_learning_rate():
    recipe = Recipe(steps=100, warmup=0.1)
    factors = [training.learning_rate_factor(step, recipe) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[10] == 1
    assert factors[100] == 0


def test_own_pictures_from_released_weights(folder, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rows = []
    for number in range(3):
        picture(30, 20, number).save(data / f"{number}.png")
        mask = np.zeros((20, 30), dtype=np.uint8)
        mask[5:10, 5:20] = 255
        Image.fromarray(mask).save(data / f"{number}_mask.png")
        for phrase in ("the ring", "the star", "a circle", "the square"):
            rows.append({"image": f"{number}.png", "mask": f"{number}_mask.png", "phrase": phrase})
        rows.append({"image": f"{number}.png", "mask": None, "phrase": "the moon"})
    (data / "phrases.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = load_model(folder)
    tokenizer = load(folder).tokenizer
    own = PhraseFolder(data, model.config, tokenizer, images=2)
    batch = own.batch(0)
    assert len(batch.ids) == 6  # at most three expressions a picture
    assert len(own) == 3
    seen = {tuple(own.batch(step).sam.sum(dim=(1, 2, 3)).tolist()) for step in range(6)}
    assert len(seen) > 1
    train(model, own.batch, Recipe(steps=2, log_every=1, checkpoint_every=2), tmp_path / "run", log=lambda line: None)
    save_folder(model, folder / "sentencepiece.bpe.model", tmp_path / "tuned")
    assert load(tmp_path / "tuned").segment(load(folder).encode([picture(9, 9)]), [["the ring"]])


def test_wrong_masks_are_refused(tokenizer):
    with pytest.raises(ValueError, match="1 phrases"):
        example(TINY, tokenizer, picture(4, 3), ["a"], np.zeros((1, 4, 3), dtype=bool))
