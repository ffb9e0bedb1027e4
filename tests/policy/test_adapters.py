"""One base in memory: what is put on it is taken off again, all of it."""

import shutil

import pytest
import torch
from rendered import EMBEDDED
from safetensors.torch import load_file, save_file

from saliency_r1.params import Lora
from saliency_r1.policy import Policy, PolicyError
from saliency_r1.policy.adapters import Policies
from saliency_r1.training.optimiser import save_adapter, wrap

SIZES = {"min_pixels": 1024, "max_pixels": 25600}
BASE = EMBEDDED / "models/policy"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Two adapters that change what is said, one with embeddings of its own."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, whole in (("one", ()), ("two", ("embed_tokens",))):
        lora = Lora(r=4, alpha=8, dropout=0.0, targets=r".*language_model.*\.(q_proj|v_proj)$", modules_to_save=whole)
        policy = wrap(Policy.load(BASE, **SIZES), lora, seed=1)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.2)
        save_adapter(policy, folder / name)
    return folder


def said(policy, samples):
    prompts = [policy.prompt([], "Describe the image."), policy.prompt([], "Copy this: a b c")]
    return [response.text for response in policy.generate(prompts, 24)]


def test_every_policy_is_what_it_is_by_itself(adapters, samples):
    policies = Policies(BASE, **SIZES)
    alone = {name: said(Policy.load(BASE, name and adapters / name, **SIZES), samples) for name in (None, "one", "two")}
    assert alone["one"] != alone[None]
    assert alone["two"] != alone["one"]
    for name in ("one", None, "two", "one", None):
        with policies.using(name and adapters / name) as policy:
            assert said(policy, samples) == alone[name]


def test_the_base_is_there_once(adapters):
    policies = Policies(BASE, **SIZES)
    with policies.using(None) as base:
        weights = {name: parameter.data_ptr() for name, parameter in base.model.named_parameters()}
    with policies.using(adapters / "one") as policy:
        own = {parameter.data_ptr() for parameter in policy.model.parameters()}
        assert set(weights.values()) <= own
    with policies.using(None) as base:
        assert {name: parameter.data_ptr() for name, parameter in base.model.named_parameters()} == weights


def test_nothing_of_a_refused_adapter_stays_on_the_base(adapters, samples, tmp_path):
    stray = shutil.copytree(adapters / "one", tmp_path / "stray")
    weights = load_file(stray / "adapter_model.safetensors")
    save_file(
        weights | {"base_model.model.nowhere.lora_A.weight": torch.zeros(4, 4)}, stray / "adapter_model.safetensors"
    )
    policies = Policies(BASE, **SIZES)
    with policies.using(None) as base:
        before = said(base, samples)
    with pytest.raises(PolicyError, match="nowhere"), policies.using(stray):
        pass
    with policies.using(None) as base:
        assert said(base, samples) == before
        assert not [name for name, _ in base.model.named_parameters() if "lora" in name]
    with policies.using(adapters / "one") as policy:
        assert said(policy, samples) != before
