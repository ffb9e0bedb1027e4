"""The batches of pretraining say the same as the library does picture by picture."""

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import drawn_world
from rendered import EMBEDDED

from saliency_r1.annotation.attributes import PLACES
from saliency_r1.policy import Policy
from saliency_r1.segmenter.loading import load_model

SHARES = {"one": 0.3, "many": 0.3, "compare": 0.2, "repeat": 0.2}
OPTIONS = {"seed": 1, "look_batch": 5, "batch_size": 6, "shares": SHARES}


@pytest.fixture(scope="module")
def world(pretrain_on_path):
    return drawn_world()


@pytest.fixture(scope="module")
def pool(world, tmp_path_factory):
    module = importlib.import_module("world.pool")
    folder = tmp_path_factory.mktemp("pool") / "pool"
    module.make(world, 3, 60, folder)
    return module.Pool(folder)


@pytest.fixture(scope="module")
def policy(world, tmp_path_factory):
    return importlib.import_module("policy").build(world, 1, 500, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def material(policy, world, pool):
    return importlib.import_module("material").Material(policy, world, pool, OPTIONS)


def test_a_pool_holds_what_was_rendered(world, pool):
    module = importlib.import_module("world.pool")
    for index, scene in zip(range(60), module.scenes(world, 3, 0, 60), strict=True):
        kept = pool.scene(index)
        assert kept.objects == scene.objects
        assert kept.image.tobytes() == scene.image.tobytes()
        assert all(np.array_equal(kept.masks[number], mask) for number, mask in scene.masks.items())


def test_a_pool_holds_every_scene_mirrored_too(world, pool):
    place = importlib.import_module("world.scenes")._place
    assert len(pool) == 120
    for index in range(60):
        plain, turned = pool.scene(index), pool.scene(60 + index)
        assert np.array_equal(np.asarray(turned.image), np.asarray(plain.image)[:, ::-1])
        assert {item.id: item.name for item in turned.objects} == {item.id: item.name for item in plain.objects}
        assert [item.place for item in turned.objects] == [place(turned.masks[item.id]) for item in turned.objects]
        order = [PLACES.index(item.place) for item in turned.objects]
        assert order == sorted(order)
        assert all(np.array_equal(turned.masks[number], mask[:, ::-1]) for number, mask in plain.masks.items())


def test_patches_features_and_places_are_those_of_the_library(policy, material, pretrain_on_path):
    tower = importlib.import_module("tower")
    batch = next(batch for batch in map(material.batch, range(30)) if "images" in batch and len(batch["labels"]) < 6)
    processor, model = policy.processor.image_processor, policy.model
    mean, std = (torch.tensor(values) * 255 for values in (processor.image_mean, processor.image_std))
    found = processor(images=list(batch["images"].numpy()), return_tensors="pt")
    made = tower.patches(batch["images"], mean, std)
    torch.testing.assert_close(made, found["pixel_values"], atol=2e-3, rtol=0)  # its scaling is in other steps
    sizes = tower.layout(model.model.visual, *batch["images"].shape[:3], torch.device("cpu"))
    assert torch.equal(sizes["grid_thw"], found["image_grid_thw"])
    with torch.no_grad():
        with tower.EqualPictures(model.model.visual).installed():
            features = model.model.visual(made, **sizes).pooler_output
        torch.testing.assert_close(features, model.model.visual(made, grid_thw=sizes["grid_thw"]).pooler_output)
        words = importlib.import_module("policy").language_loss(policy, batch, features)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids", "labels")}
        whole = model(**inputs, pixel_values=made, image_grid_thw=sizes["grid_thw"]).loss
    torch.testing.assert_close(words, whole)


def test_tokens_are_labelled_with_what_covers_them_most(pretrain_on_path):
    tower = importlib.import_module("tower")
    ids = torch.zeros(1, 32, 48, dtype=torch.uint8)
    ids[0, :, :8] = 1  # half of two tokens
    ids[0, 16:, 20:32] = 2  # three quarters of one
    ids[0, 16:, 16:18] = 1
    ids[0, :2, 32:] = 2  # an eighth of one
    ids[0, 16, 32] = 2  # too little
    values = torch.tensor([[[0, -100], [5, 6], [7, 8]]])
    labels = tower.token_labels(ids, values)
    assert labels.tolist() == [[5, 6], [0, -100], [7, 8], [5, 6], [7, 8], [0, -100]]


def test_batches_are_functions_of_their_step_whoever_makes_them(material, monkeypatch, pretrain_on_path):
    ahead = importlib.import_module("ahead")
    monkeypatch.setattr(ahead, "WORKERS", 2)
    batches = ahead.Ahead(material.batch, 7)
    for step in range(3, 7):
        made, again = batches(step), material.batch(step)
        assert made.keys() == again.keys()
        assert all(torch.equal(made[name], again[name]) for name in made)


def test_prompts_are_those_that_the_policy_makes(policy, material, pool, pretrain_on_path):
    language = importlib.import_module("language")
    prompt, _ = material._example(np.random.default_rng(0), np.array([3]))
    question = next(words for words in language.DESCRIBE_ONE if words in policy.tokenizer.decode(prompt.input_ids))
    assert torch.equal(prompt.input_ids, policy.prompt([pool.scene(3).image], question).input_ids)


def test_compared_pictures_share_one_thing_and_the_answer_says_which(material, policy, pool, pretrain_on_path):
    rng = np.random.default_rng(2)
    groups, shared = material._alike(rng, 40, 2)
    given = 0
    for group, name in zip(groups, shared, strict=True):
        assert len(set(group)) == 2
        assert len({tuple(pool.sizes[index]) for index in group}) == 1
        first, second = ({item.name for item in pool.objects[index]} & set(material.names) for index in group)
        assert first & second == {name}
        prompt, response = material._compared(rng, group, name)
        said, learnt = policy.tokenizer.decode(prompt.input_ids), policy.tokenizer.decode(response)
        words = {name, *(word for item in pool.objects[group[0]] if item.name == name for word in item.also)}
        assert any(f" the {word}." in learnt for word in words)
        beginning = said.rpartition("assistant\n")[2]
        assert bool(beginning) is not learnt.startswith("Image 1 shows ")
        given += beginning.startswith("Image 1 shows ") and "Image" not in learnt
    assert 10 < given < 30  # begun with mistakes, which are not learnt


def test_a_pool_that_shows_nothing_twice_is_told(material, pretrain_on_path):
    with pytest.raises(ValueError, match="no 1000 pictures of one size that show the same; render more"):
        material._alike(np.random.default_rng(0), 1, 1000)


def test_a_pool_of_another_recipe_is_refused(pool, world, tmp_path):
    module = importlib.import_module("world.pool")
    module.make(world, 3, 12, tmp_path / "pool")
    assert len(module.Pool(tmp_path / "pool", module.recipe_of(3, 12))) == 2 * 12
    with pytest.raises(ValueError, match="not the pool of scenes"):
        module.Pool(tmp_path / "pool", module.recipe_of(4, 12))
    with pytest.raises(ValueError, match="no pool"):
        module.Pool(tmp_path / "elsewhere")


def test_steps_are_not_skipped(material, monkeypatch, pretrain_on_path):
    ahead = importlib.import_module("ahead")
    monkeypatch.setattr(ahead, "WORKERS", 1)
    batches = ahead.Ahead(material.views, 7)
    batches(3)
    with pytest.raises(ValueError, match="step 5 was asked for, and step 4 is the next one"):
        batches(5)


def test_descriptions_are_scored_in_their_order(world, pretrain_on_path):
    score = importlib.import_module("policy").score_descriptions
    thing = importlib.import_module("world.scenes").SceneObject
    first = thing(1, "red", "car", ("auto", "motor"), "vehicle", "large", "vivid", "left", False)
    second = thing(2, "", "dog", (), "animal", "small", "faint", "centre", False)
    said = "There is a large crimson auto at the left and a faint large cat at the middle."
    assert score([said], [(first, second)]) == {
        "count": 1.0, "name": 0.5, "colour": 1.0, "size": 0.5, "tone": 1.0, "place": 1.0,
    }  # fmt: skip
    assert set(score(["There is a car at the left."], [(first, second)]).values()) == {0.0}


def test_the_shipped_models_are_those_that_are_built(policy, pretrain_on_path):
    """Sizes in pretrain/ are those of embedded/."""
    shipped, built = Policy.load(EMBEDDED / "models/policy").model, policy.model
    shapes = [[value.shape for value in model.model.visual.state_dict().values()] for model in (shipped, built)]
    assert shapes[0] == shapes[1]
    own = {"vocab_size", "eos_token_id", "pad_token_id", "dtype"}  # of a tokenizer, and of half precision
    texts = [
        {k: v for k, v in model.config.text_config.to_dict().items() if k not in own} for model in (shipped, built)
    ]
    assert texts[0] == texts[1]
    config = load_model(EMBEDDED / "models/segmenter").config
    asked = importlib.import_module("segmenter").CONFIG
    assert replace(config, presence_threshold=asked.presence_threshold) == asked
