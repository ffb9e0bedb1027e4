"""Folders of models as they come out of broken downloads, other versions and other hands: refused, never made up."""

import json
import shutil

import pytest
import torch
from rendered import EMBEDDED
from safetensors.torch import load_file, save_file

from saliency_r1.params import Lora
from saliency_r1.policy import Policy, PolicyError
from saliency_r1.segmenter.loading import PICKLE, SAFETENSORS, WeightsError, read_weights
from saliency_r1.training.optimiser import save_adapter, wrap

BASE = EMBEDDED / "models/policy"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 123\n"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(BASE, tmp_path / "model")


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})


def without_a_layer(weights):
    return {name: tensor for name, tensor in weights.items() if ".layers.0." not in name}


def called_otherwise(weights):
    return {f"wrapped.{name}": tensor for name, tensor in weights.items()}


@pytest.mark.parametrize("change", [without_a_layer, called_otherwise])
def test_weights_that_are_not_there_are_not_drawn_at_random(folder, change):
    rewrite(folder, change)
    with pytest.raises(
        PolicyError, match=r"model: \d+ of the weights that config\.json asks for are in none of its files"
    ):
        Policy.load(folder)


def test_weights_that_nobody_asks_for_are_left_out(folder):
    rewrite(folder, lambda weights: weights | {"mtp.weight": torch.zeros(2)})
    assert Policy.load(folder)


@pytest.mark.parametrize("content", [POINTER.encode(), (BASE / "model.safetensors").read_bytes()[:100_000]])
def test_weights_that_cannot_be_read_are_named(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(PolicyError, match=r"model: config\.json and weights make no model .*Git LFS"):
        Policy.load(folder)


def test_a_vocabulary_of_another_size_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config.get("text_config", {})):
        if "vocab_size" in part:
            part["vocab_size"] += 16
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(PolicyError, match=r"config\.json and weights make no model"):
        Policy.load(folder)


@pytest.mark.parametrize(
    ("file", "why"), [("chat_template.jinja", "has no chat template"), ("tokenizer.json", "cannot write <rg>")]
)
def test_a_model_that_cannot_be_asked_is_refused_with_what_it_lacks(folder, file, why):
    (folder / file).unlink()
    with pytest.raises(PolicyError, match=f"model.* {why}"):
        Policy.load(folder)


def test_an_adapter_that_cannot_be_read_is_named(tmp_path):
    lora = Lora(r=2, alpha=4, dropout=0.0, targets=r".*\.q_proj", modules_to_save=())
    save_adapter(wrap(Policy.load(BASE), lora, seed=1), tmp_path / "adapter")
    weights, config = (tmp_path / "adapter" / name for name in ("adapter_model.safetensors", "adapter_config.json"))
    about = config.read_text()
    config.write_text(json.dumps(json.loads(about) | {"peft_type": "NEW"}))
    with pytest.raises(PolicyError, match="adapter is not an adapter of"):
        Policy.load(BASE, tmp_path / "adapter")
    config.write_text(about)
    weights.write_text(POINTER)
    with pytest.raises(PolicyError, match=r"adapter_model\.safetensors cannot be read: .*Git LFS"):
        Policy.load(BASE, tmp_path / "adapter")
    weights.unlink()
    with pytest.raises(PolicyError, match=r"read from adapter_model\.safetensors, which is not there"):
        Policy.load(BASE, tmp_path / "adapter")


@pytest.mark.parametrize("name", [SAFETENSORS, PICKLE])
def test_weights_of_a_segmenter_that_cannot_be_read_are_named(tmp_path, name):
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(WeightsError, match=r"its weights cannot be read .*Git LFS"):
        read_weights(tmp_path)
