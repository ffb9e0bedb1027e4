"""The capacity planner, against numbers that are known: published sizes, real adapters, graphs that are kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from typer.testing import CliRunner

from saliency_r1.cli.app import app
from saliency_r1.data.catalogue import Catalogue
from saliency_r1.params import Asked, Params, load_params
from saliency_r1.plan import memory, work
from saliency_r1.plan.errors import PlanError
from saliency_r1.plan.prompts import image_tokens, longest_prompt, prompt_size
from saliency_r1.plan.shapes import policy_shape, read_config, segmenter_shape
from saliency_r1.policy import Policy, Prompt
from saliency_r1.policy.network import freeze_vision
from saliency_r1.training.optimiser import wrap

ROOT = Path(__file__).parents[2]
POLICY, SEGMENTER = ROOT / "embedded/models/policy", ROOT / "embedded/models/segmenter"
PAPER = {size: ROOT / f"profiles/paper-{size}.yaml" for size in ("3b", "7b")}
SEEN = (50176, 401408)  # the area of an image in the paper's profiles
# What the published checkpoints hold, and LoRA of rank 64 on them: billions, millions, places, GB in bfloat16.
KNOWN = {"3b": (3.755, 119.7, 252, 7.51), "7b": (8.292, 161.5, 196, 16.58)}


@pytest.mark.parametrize("size", PAPER)
def test_published_models_are_counted_to_the_last_digit_that_is_known(size: str) -> None:
    params = load_params(PAPER[size])
    shape = policy_shape(read_config(params.download.policy, []), params.sft.lora)
    billions, millions, modules, stored = KNOWN[size]
    assert round(shape.parameters / 1e9, 3) == billions
    assert round(shape.trained / 1e6, 1) == millions
    assert shape.modules == modules
    assert round(2 * shape.parameters / 1e9, 2) == stored


def test_the_official_segmenter_in_bfloat16_and_float32() -> None:
    config = read_config("YxZhang/evf-sam-multitask", [])
    half = segmenter_shape(config, torch.bfloat16)
    assert round(half.parameters / 1e9, 3) == 1.315
    # A process with it in bfloat16 was 3.4 GB large, of which python and its libraries are some tenths.
    assert 2 * half.parameters < half.resident < 3.4e9
    assert segmenter_shape(config, torch.float32).resident == pytest.approx(4 * half.parameters, rel=1e-3)


@pytest.mark.parametrize("lora", ["as shipped", "none"])
def test_the_embedded_policy_is_counted_as_it_is_built(lora: str) -> None:
    params = load_params(ROOT / "params.yaml")
    options = params.sft.lora if lora == "as shipped" else None
    real = wrap(Policy.load(POLICY), options, 1)
    shape = policy_shape(read_config("policy", [POLICY]), options)
    assert shape.trained == sum(one.numel() for one in real.model.parameters() if one.requires_grad)
    if options is None:
        assert shape.parameters == sum(one.numel() for one in real.model.parameters())


def test_prompts_are_as_long_as_those_that_were_seen() -> None:
    sod = prompt_size("sod", 1, image_tokens(640, 426, 28, *SEEN))
    assert sod.tokens == pytest.approx(392, abs=4)
    group = longest_prompt(load_params(PAPER["3b"]), 28)
    assert 2525 <= group.tokens <= 1.05 * 2525, "the longest that there may be, and not much more"


@pytest.mark.parametrize(("unit", "low", "high"), [(28, *SEEN), (16, 1024, 25600)])
def test_images_have_the_tokens_that_the_processor_gives_them(unit: int, low: int, high: int) -> None:
    for width in range(20, 1400, 61):
        for height in range(20, 1400, 67):
            if max(width, height) < 200 * min(width, height):
                tall, wide = smart_resize(height, width, unit, low, high)
                assert image_tokens(width, height, unit, low, high) == tall * wide // unit**2


def narrow(layers: int) -> dict[str, Any]:
    """The embedded policy's configuration with the paper's proportions in the language model."""
    config: dict[str, Any] = json.loads((POLICY / "config.json").read_text(encoding="utf-8"))
    config["text_config"] |= {
        "num_hidden_layers": layers, "layer_types": ["full_attention"] * layers, "hidden_size": 256,
        "intermediate_size": 1376, "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    config["text_config"]["rope_parameters"]["mrope_section"] = [12, 10, 10]
    config["vision_config"]["out_hidden_size"] = 256
    return config


def kept(layers: int, params: Params, dtype: torch.dtype) -> float:
    """Bytes a token that a forward pass keeps for the backward pass, beside weights."""
    torch.manual_seed(0)
    known = {key: value for key, value in narrow(layers).items() if key != "model_type"}
    network = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**known)).to(dtype)
    freeze_vision(network)
    policy = wrap(Policy(network, AutoProcessor.from_pretrained(POLICY)), params.sft.lora, 1)
    policy.model.train()
    weights = {one.untyped_storage().data_ptr() for one in policy.model.parameters()}
    found: dict[int, tuple[int, Any]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor, lest its address be used again
        return tensor

    prompt = Prompt(torch.arange(20, 120), {})
    batch = policy.collate([prompt], [range(100, 200)])
    batch.pop("labels")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        policy.model(**batch, use_cache=False, logits_to_keep=1)
    return sum(size for size, _ in found.values()) / 200


@pytest.mark.parametrize("dropout", [0.0, 0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_keeps_what_is_planned_for_it_or_somewhat_less(dtype: torch.dtype, dropout: float) -> None:
    params = load_params(PAPER["3b"])
    lora = params.sft.lora.model_copy(update={"dropout": dropout, "r": 4})
    params = params.model_copy(update={"sft": params.sft.model_copy(update={"lora": lora})})
    measured = (kept(5, params, dtype) - kept(2, params, dtype)) / 3
    shape = policy_shape(narrow(2), lora)
    planned = memory.layer_per_token(params, shape, dtype.itemsize)
    assert measured <= planned <= 1.25 * measured


def test_the_cache_of_sampling_is_as_large_as_that_of_the_embedded_policy() -> None:
    policy = Policy.load(POLICY)
    shape = policy_shape(read_config("policy", [POLICY]), None)
    batch = policy.collate([Prompt(torch.arange(20, 70), {})])
    cache = policy.model(**batch, use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == 50 * memory.cache_per_token(shape, 4)


def planned(size: str, gpus: int = 1, split: bool = False, **changes: Any) -> memory.Memory:
    params = load_params(PAPER[size])
    params = params.model_copy(update={"cgpo": params.cgpo.model_copy(update=changes)})
    shape = policy_shape(read_config(params.download.policy, []), params.sft.lora)
    frozen = segmenter_shape(read_config(params.download.segmenter, []), torch.bfloat16)
    return memory.memory(params, shape, frozen, gpus, split)


def test_what_makes_memory_smaller_does_so() -> None:
    whole = planned("7b")
    parts = {part.name: part.size for part in whole.stays}
    assert parts["trained, weights"] == 4 * 161_480_704
    isr = load_params(PAPER["7b"]).cgpo.isr
    for moments, copies in (("shared", 2), ("own", 4)):
        of_form = planned("7b", isr=isr.model_copy(update={"moments": moments})).stays
        assert {part.name: part.size for part in of_form}["trained, moments"] == copies * parts["trained, weights"]
    spared = parts["trained, copy to look back at"] + parts["trained, gradient kept for ISR"]
    assert spared == 2 * parts["trained, weights"]
    assert planned("7b", drift_every=0).peak == whole.peak - spared, "without the copy no gradient is kept either"
    assert planned("7b", drift_every=0, kl=0.1).peak == whole.peak
    split = {part.name: part.size for part in planned("7b", 8, True).stays}
    assert split["policy, weights"] == parts["policy, weights"] / 8
    assert split["segmenter, weights"] == parts["segmenter, weights"], "each process has one of its own"
    steps = [planned("7b", micro_batch=rows).passes[2].size for rows in (2, 8)]
    assert steps[1] > 2 * steps[0]


def test_a_step_under_fsdp_holds_what_is_in_no_layer_and_two_layers_whole() -> None:
    """Counted by hand from the configuration of the 7B: a hidden size of 3,584, 1,280 of the vision tower."""
    embeddings = 2 * 152_064 * 3584 + 3584  # in and out, and the last norm
    merger = 1280 + (5120 * 5120 + 5120) + (5120 * 3584 + 3584)
    patches = 1280 * 3 * 2 * 14 * 14
    attention = 3584 * 3584 + 3584 + 2 * (512 * 3584 + 512) + 3584 * 3584
    layer = attention + 3 * 3584 * 18_944 + 2 * 3584
    apart, split = planned("7b", 8).passes[2].size, planned("7b", 8, True).passes[2].size
    assert split - apart == pytest.approx(2 * (embeddings + merger + patches + 2 * layer), abs=1)


@pytest.mark.parametrize("split", [False, True])
def test_autocast_copies_trained_float32_weights(split: bool) -> None:
    params = load_params(PAPER["3b"])
    shape = policy_shape(read_config(params.download.policy, []), None)
    frozen = segmenter_shape(read_config(params.download.segmenter, []), torch.bfloat16)
    wide = params.model_copy(update={"runtime": params.runtime.model_copy(update={"dtype": "float32"})})
    cast = wide.model_copy(update={"policy": wide.policy.model_copy(update={"autocast": True})})
    without = memory.memory(wide, shape, frozen, 8, split).passes
    sampling, segmenting, step = memory.memory(cast, shape, frozen, 8, split).passes
    assert sampling.size - without[0].size == 2 * shape.trained
    assert segmenting == without[1]
    logits = memory.LOGIT_COPIES["float32"] - memory.LOGIT_COPIES["bfloat16"]
    fewer = logits * 4 * cast.cgpo.micro_batch * cast.policy.max_new_tokens * shape.vocabulary
    assert step.size - without[2].size == pytest.approx(2 * shape.trained - fewer)


CATALOGUE = """
datasets:
  photos: {task: sod, splits: {train: {folder: a, count: 1000}, test: {folder: b, count: 200}}}
  groups: {task: cosod, splits: {test: {folder: c, count: 103}}}
  new: {task: sod, splits: {test: {folder: d}}}
"""


def test_work_follows_the_catalogue_and_the_parameters(tmp_path: Path) -> None:
    (tmp_path / "catalogue.yaml").write_text(CATALOGUE)
    params = load_params(PAPER["3b"])
    download = params.download.model_copy(update={"datasets": ("photos", "groups", "new")})
    params = params.model_copy(update={"download": download})
    samples = work.count_samples(params, Catalogue.load(tmp_path / "catalogue.yaml"))
    assert samples.unknown == ("new/test",)
    assert samples.of("test") == 200 + 21, "103 images of groups are 21 prompts of up to five"
    assert work.mean_prompt(samples, params, 345) == prompt_size("sod", 1, 345).tokens
    asked = {stage.name: stage for stage in work.stages(params, samples, 400, 100, 1)}
    assert asked["annotate"].prompts == 1000
    assert asked["masks"].prompts == 3 * 221
    assert asked["sft"].trained == 2000 * 32 * 500
    assert asked["cgpo"].generated == 2000 * 64 * 100
    assert asked["cgpo"].trained == (2000 * 64 + 250 * 16) * 500
    assert asked["cgpo"].read == (2000 * 64 + 200 * 64) * 500, "64 responses pass micro-batches of 4 twice"
    remax = params.model_copy(update={"cgpo": params.cgpo.model_copy(update={"algorithm": "remax"})})
    assert work.stages(remax, samples, 400, 100, 1)[2].generated == 2 * 2000 * 64 * 100, "a greedy answer beside each"
    served = Asked(name="big", model="big", shots=0, endpoint=params.annotate.endpoint)
    masks = params.masks.model_copy(update={"models": ("cgpo", served)})
    predicted = work.stages(params.model_copy(update={"masks": masks}), samples, 400, 100, 1)[3]
    assert (predicted.prompts, predicted.generated) == (2 * 221, 221 * 100), "a server's answers are not made here"
    annotate = params.annotate.model_copy(update={"splits": ("train", "test"), "limit": 60})
    limited = params.model_copy(update={"annotate": annotate})
    samples = work.count_samples(limited, Catalogue.load(tmp_path / "catalogue.yaml"))
    assert work.stages(limited, samples, 400, 100, 1)[0].prompts == 60 + 60 + 21, "of each data set and split"
    assert work.hours(asked["masks"], work.Speed(100, 1000), 2) == 3 * 221 * 100 / 100 / 3600 / 2
    assert work.hours(asked["cgpo"], work.Speed(100), 2) is None


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def test_the_command_says_what_fits_and_refuses_what_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    told = run("--params", PAPER["7b"], "--generate-speed", 1000, "--train-speed", 4000, "--price", 2)
    assert told.exit_code == 0, told.output
    for words in (
        "8,292,166,656 parameters",
        "policy, weights",
        "16.58",
        "peak",
        "of 80",
        "an hour and device",
        "disk",
    ):
        assert words in told.output
    refused = run("--params", PAPER["7b"], "--memory", 24)
    assert refused.exit_code == 1
    assert "does not fit" in refused.output
    assert "policy, weights, 16.6 GB: FSDP on more devices" in refused.output
    embedded = run("--params", ROOT / "params.yaml", "--policy", POLICY, "--segmenter", SEGMENTER, "--memory", 8)
    assert embedded.exit_code == 0, embedded.output


def test_a_model_nobody_knows_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"sizes of me/mine are not known.*--policy.*Qwen/Qwen2\.5-VL-7B-Instruct"):
        read_config("me/mine@abc", [tmp_path])
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(PlanError, match="a policy of type 'llama', expected 'qwen2_5_vl'"):
        policy_shape(read_config("x", [tmp_path]), None)


@pytest.mark.parametrize("targets", ["(", "[", "(?i)q_proj"])
def test_targets_that_are_no_regular_expression_are_named(targets: str) -> None:
    lora = load_params(ROOT / "params.yaml").sft.lora.model_copy(update={"targets": targets})
    with pytest.raises(PlanError, match=r"sft\.lora\.targets = .*: expected a regular expression") as refused:
        policy_shape(read_config("policy", [POLICY]), lora)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("text_config", "hidden_size", "x"), ("text_config", "hidden_size", None), ("vision_config", "patch_size", "x")],
)
def test_sizes_of_a_policy_that_are_none_are_named(section: str, key: str, value: Any) -> None:
    config = read_config("policy", [POLICY])
    with pytest.raises(PlanError, match=rf"the policy's config\.json: .*'{key}'") as refused:
        policy_shape(config | {section: config[section] | {key: value}}, None)
    assert "\n" not in str(refused.value)
    with pytest.raises(PlanError, match=r"the policy's config\.json: .*'text_config'"):
        policy_shape(config | {"text_config": [1]}, None)
    with pytest.raises(PlanError, match=r"the policy's config\.json: expected sizes that make a network \(Runtime"):
        policy_shape(narrow(1) | {"text_config": narrow(1)["text_config"] | {"hidden_size": -1}}, None)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("beit3", 5, "beit3 = 5, expected an object with sizes"),
        ("projector", [1], r"projector = \[1\], expected an object with sizes"),
        ("beit3", {"embed_dim": "x"}, "beit3.embed_dim = 'x', expected a whole number"),
        ("sam_image_encoder", {"global_attn_indexes": 3}, "global_attn_indexes = 3, expected a list of numbers"),
        ("beit3", {"embed_dim": -8}, r"expected sizes that make a network \(RuntimeError"),
    ],
)
def test_sizes_of_a_segmenter_that_are_none_are_named(section: str, change: Any, message: str) -> None:
    config = read_config("segmenter", [SEGMENTER])
    wrong = config[section] | change if isinstance(change, dict) else change
    with pytest.raises(PlanError, match=rf"the segmenter's config\.json: .*{message}"):
        segmenter_shape(config | {section: wrong}, torch.float32)
