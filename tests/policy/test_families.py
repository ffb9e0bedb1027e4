"""What every family has to keep, on tiny models with random weights: that, and no more, is "conformance-tested"."""

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import LAYERS, TILE, write
from training.handful import CGPO, SFT, WEIGHTS, isr, moved

from saliency_r1 import cot
from saliency_r1.params import Lora
from saliency_r1.policy import Policy, PolicyError, Prompt
from saliency_r1.policy.families import FAMILIES
from saliency_r1.policy.network import shares_embedding
from saliency_r1.rollout.environment import Environment
from saliency_r1.training import cgpo, sft
from saliency_r1.training.optimiser import save_adapter, wrap

SIZES = {"min_pixels": TILE**2, "max_pixels": (2 * TILE) ** 2}
LORA = Lora(r=4, alpha=8, dropout=0.0, targets=r".*\.(q|k|v|o|gate|up|down)_proj", modules_to_save=())
ANSWERS = ("<think>a</think><answer><rg>the cat</rg></answer>", "x", "the left one, é")


@dataclass
class Member:
    """A family's tiny model: of one image, of two of other sizes, and of none are the prompts."""

    kind: str
    folder: Path
    policy: Policy
    prompts: list[Prompt]

    @property
    def answers(self) -> list[list[int]]:
        return [self.policy.response_ids(text) for text in ANSWERS]

    def fresh(self, **options) -> Policy:
        return Policy.load(self.folder, **SIZES, **options)


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


SHOWN = (
    ("What stands out?", [picture(64, 40)]),
    ("What do both of them show?", [picture(64, 64, 1), picture(30, 90, 2)]),
    ("Say something.", []),
)


@pytest.fixture(scope="module", params=FAMILIES)
def member(request, tmp_path_factory):
    if request.param == "smolvlm":
        pytest.importorskip("num2words", reason="the processor of SmolVLM2 wants it")
    folder = write(request.param, tmp_path_factory.mktemp("families") / request.param)
    policy = Policy.load(folder, **SIZES)
    return Member(request.param, folder, policy, [policy.prompt(images, text) for text, images in SHOWN])


def scores(policy: Policy, prompts, answers) -> list[torch.Tensor]:
    """The log-probabilities of each answer's tokens."""
    with torch.no_grad():
        logprobs, mask = policy.logprobs(policy.collate(prompts, answers))
    return [own[kept] for own, kept in zip(logprobs, mask)]


def near(one, other, atol=2e-5):
    return all(torch.allclose(a, b, atol=atol) for a, b in zip(one, other, strict=True))


def test_the_images_reach_the_answer(member):
    """Else what follows would hold of a policy that sees nothing."""
    other = member.policy.prompt([picture(64, 40, 3)], "What stands out?")
    assert torch.equal(other.input_ids, member.prompts[0].input_ids)
    (shown,), (changed,) = (scores(member.policy, [one], member.answers[:1]) for one in (member.prompts[0], other))
    assert (shown - changed).abs().max() > 0.01


def test_a_batch_is_what_the_family_s_own_processor_makes_of_it(member):
    turns = [
        [{"role": "user", "content": [*({"type": "image"} for _ in images), {"type": "text", "text": text}]}]
        for text, images in SHOWN[:2]
    ]
    texts = [member.policy.processor.apply_chat_template(turn, add_generation_prompt=True) for turn in turns]
    expected = member.policy.processor(
        text=[text.removesuffix("<think>\n") for text in texts], images=[images for _, images in SHOWN[:2]],
        padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt",
    )  # fmt: skip
    batch = member.policy.collate(member.prompts[:2])
    assert set(batch) == set(expected)
    assert all(torch.equal(batch[name], expected[name]) for name in batch)


def test_padding_on_the_left_and_on_the_right_agree(member):
    whole = [
        Prompt(torch.cat([prompt.input_ids, torch.tensor(answer)]), prompt.inputs)
        for prompt, answer in zip(member.prompts, member.answers)
    ]
    batch = member.policy.collate(whole)
    assert (batch["attention_mask"][:, 0] == 0).any()
    with torch.no_grad():
        logits = member.policy.model(**batch, use_cache=False).logits
    logits[..., member.policy.suppressed] = float("-inf")
    left = [
        own[-len(answer) - 1 : -1].log_softmax(-1)[range(len(answer)), answer]
        for own, answer in zip(logits, member.answers)
    ]
    assert near(left, scores(member.policy, member.prompts, member.answers))


def test_a_batch_equals_its_prompts_one_by_one(member):
    for order in ((0, 1, 2), (2, 0, 1)):
        prompts, answers = ([own[index] for index in order] for own in (member.prompts, member.answers))
        together = scores(member.policy, prompts, answers)
        alone = [scores(member.policy, [prompt], [answer])[0] for prompt, answer in zip(prompts, answers)]
        assert near(together, alone)
    greedy = [member.policy.generate([prompt], 8)[0].ids for prompt in member.prompts]
    assert [response.ids for response in member.policy.generate(member.prompts, 8)] == greedy


def test_what_was_sampled_is_what_the_forward_pass_says(member):
    seeds = [3, 4, 5]
    responses = member.policy.generate(member.prompts, 12, seeds, temperature=0.7)
    batch = member.policy.collate(member.prompts, [response.ids for response in responses])
    with torch.no_grad():
        logprobs, mask = member.policy.logprobs(batch, 0.7)
    for own, kept, response in zip(logprobs, mask, responses):
        assert own[kept].tolist() == pytest.approx(response.logprobs, abs=5e-5)
    for prompt, seed, response in zip(member.prompts, seeds, responses):
        assert member.policy.generate([prompt], 12, [seed], temperature=0.7)[0].ids == response.ids


def test_what_would_break_the_next_pass_is_never_said(member):
    policy, vocabulary = member.policy, member.policy.tokenizer.get_vocab()
    assert policy.image_id in policy.suppressed
    assert {vocabulary[token] for token in policy.family.never if token in vocabulary} == set(policy.suppressed)
    assert not {policy.end_id, *policy.response_ids("<think></think><answer>")} & set(policy.suppressed)
    responses = policy.generate(member.prompts * 4, 40, range(12), temperature=100.0)
    said = list(itertools.chain.from_iterable(response.ids for response in responses))
    assert not set(said) & set(policy.suppressed)
    assert len(set(said)) > 100, "nearly uniform, so that a suppressed token would have been drawn"


def test_an_answer_ends_and_its_text_keeps_its_tags(member):
    """In some vocabularies a tag is one token, in others it is not; in all of them it is part of the text."""
    policy = member.policy
    for tag in policy.family.reasoning:
        text = f"<{tag}>a cat, é</{tag}><answer><rg>the cat</rg></answer>"
        response = policy._response([*policy.response_ids(text), policy.pad_id, policy.pad_id], [])
        assert response.text == text
        assert response.ended
        assert response.ids == tuple(policy.response_ids(text))
        assert cot.parse(response.text, "sod").expressions == (cot.Expression("rg", 0, "the cat"),)


def test_a_prompt_waits_for_all_of_the_answer_and_begins_once(member):
    text = member.policy.tokenizer.decode(member.prompts[0].input_ids)
    assert not text.rstrip().endswith("<think>")
    assert text.count("<bos>") == (member.kind == "gemma3")


def test_vision_stays_as_it_is(member):
    """Also what leads from the tower to the language model; adapted is every layer of that, and nothing else."""
    base = member.fresh()
    decoder = {id(weight) for weight in base.model.get_decoder().parameters()}
    tower = {id(weight) for weight in base.model.get_encoder("image").parameters()}
    assert tower
    assert not tower & decoder
    head = base.model.get_output_embeddings().weight
    trained = {id(weight) for weight in base.model.parameters() if weight.requires_grad}
    assert trained == decoder | {id(head)}
    policy = wrap(base, LORA, seed=1)
    logprobs, _ = policy.logprobs(policy.collate(member.prompts, member.answers))
    logprobs.sum().backward()
    graded = {name: weight.grad for name, weight in policy.model.named_parameters() if weight.grad is not None}
    assert len(graded) == 2 * 7 * LAYERS
    assert all("lora_" in name for name in graded)
    assert all(grad.abs().max() > 0 for name, grad in graded.items() if "lora_B" in name)


def test_an_adapter_comes_back_as_it_was(member, tmp_path):
    policy = wrap(member.fresh(), LORA, seed=1)
    with torch.no_grad():
        for weight in policy.model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)) * 0.2)
    save_adapter(policy, tmp_path / "adapter")
    policy.model.eval()
    again = member.fresh(adapter=tmp_path / "adapter")
    trained, loaded, base = (
        scores(one, member.prompts, member.answers) for one in (policy, again, member.policy)
    )  # fmt: skip
    assert all(map(torch.equal, trained, loaded))
    assert not near(trained, base, atol=0.1)


@pytest.mark.parametrize("saved", ["embed_tokens", "lm_head"])
def test_an_output_layer_that_shares_the_embedding_s_weights_goes_on_sharing_them(member, saved, tmp_path):
    """Published folders say so in the config, in that of the text, in both or in one of them wrongly."""
    policy = wrap(member.fresh(), LORA.model_copy(update={"modules_to_save": (saved,)}), seed=1)
    own = [weight for name, weight in policy.model.named_parameters() if weight.requires_grad and "lora_" not in name]
    assert len(own) == 1
    base = policy.model.get_base_model()
    shared = base.get_input_embeddings().weight is base.get_output_embeddings().weight
    assert shared is shares_embedding(member.policy.model) is (member.kind != "smolvlm")
    with torch.no_grad():
        own[0].add_(torch.randn(own[0].shape, generator=torch.Generator().manual_seed(3)) * 0.1)
    policy.model.eval()
    trained = scores(policy, member.prompts, member.answers)
    save_adapter(policy, tmp_path / "adapter")
    assert all(map(torch.equal, trained, scores(member.fresh(adapter=tmp_path / "adapter"), member.prompts,
                                                member.answers)))  # fmt: skip
    policy.model.merge_and_unload().save_pretrained(tmp_path / "merged")
    policy.processor.save_pretrained(tmp_path / "merged")
    assert near(trained, scores(Policy.load(tmp_path / "merged", **SIZES), member.prompts, member.answers))


@pytest.fixture(scope="module")
def material(samples, segmenter):
    folder, rows = samples
    responses = ["<think>a</think><answer></answer>" for _ in rows]
    return Environment(segmenter, folder, WEIGHTS, max_new_tokens=8, batch_size=8), sft.Examples(rows, responses)


def trained_by(member, steps):
    """How far a training's first step moves the adapter; the rest of the model has to stay."""
    policy = wrap(member.fresh(), LORA, seed=1)
    before = wrap(member.fresh(), LORA, seed=1)
    (row, *_) = itertools.islice(steps(policy), 1)
    frozen = [w for w in policy.model.parameters() if not w.requires_grad]
    assert all(map(torch.equal, frozen, [w for w in before.model.parameters() if not w.requires_grad]))
    assert moved(policy, before) > 1e-6
    return row


def test_one_step_of_sft(member, material, tmp_path):
    environment, examples = material
    options = SFT.model_copy(update={"batch_size": 3, "micro_batch": 3, "evaluate_samples": 1, "warmup": 0})
    row = trained_by(member, lambda policy: sft.train(policy, fresh(environment), examples, options, 0, tmp_path))
    assert np.isfinite(row["loss"])


def test_one_update_of_cgpo(member, material, tmp_path):
    """Rewards are all 0 here, so confidence alone moves it; what was sampled agrees with the forward pass."""
    environment, examples = material
    options = CGPO.model_copy(update={"isr": isr(1), "warmup": 0})
    update = trained_by(
        member, lambda policy: cgpo.train(policy, fresh(environment), examples.rows, examples, options, 0, tmp_path)
    )
    assert len(update.rollouts) == options.batch_size
    assert update.curve["sampling_gap"] < 1e-4


def fresh(environment: Environment) -> Environment:
    """Without the prompts that another family's processor has encoded."""
    return Environment(
        environment.segmenter,
        environment.folder,
        environment.weights,
        environment.max_new_tokens,
        environment.batch_size,
    )


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_gradient(member):
    found = []
    for checkpointing in (False, True):
        policy = wrap(member.fresh(gradient_checkpointing=checkpointing), LORA, seed=1)
        policy.model.train()
        policy.logprobs(policy.collate(member.prompts, member.answers))[0].sum().backward()
        found.append([weight.grad for weight in policy.model.parameters() if weight.grad is not None])
    assert len(found[0]) == len(found[1]) == 2 * 7 * LAYERS
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found))


def image_tokens(policy: Policy, height: int, width: int) -> int:
    return int((policy.prompt([picture(height, width)], "x").input_ids == policy.image_id).sum())


def test_the_pixels_of_an_image_are_bounded_where_the_family_lets_them_be(member):
    """16 x 16 pixels a token in Qwen's tiny models; elsewhere 4 tokens a tile, and 4 for the whole where it was cut."""
    small, large = (
        Policy.load(member.folder, min_pixels=TILE**2, max_pixels=(sides * TILE) ** 2) for sides in (1, 3)
    )  # fmt: skip
    tokens = {policy: image_tokens(policy, 160, 160) for policy in (small, large)}
    expected = {
        "qwen2_5_vl": (4, 36),
        "qwen3_vl": (4, 36),
        "internvl": (4, 4 * 10),
        "smolvlm": (4, 4 * 10),
        "gemma3": (4, 4),
    }
    assert (tokens[small], tokens[large]) == expected[member.kind]


def test_an_unknown_family_is_refused_with_those_that_are_known(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(PolicyError, match=r"model_type 'llava'; known are qwen2_5_vl \(Qwen2\.5-VL\), .*gemma3"):
        Policy.load(tmp_path)


def test_a_tokenizer_without_a_token_of_the_family_is_refused(tmp_path):
    folder = write("qwen3_vl", tmp_path / "whole")
    other = shutil.copytree(folder, tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        text = (other / name).read_text().replace("<|im_end|>", "<|over|>")
        (other / name).write_text(text)
    with pytest.raises(PolicyError, match=r"other: the tokenizer has no <\|im_end\|>, which Qwen3-VL has"):
        Policy.load(other)


def test_a_processor_that_wants_another_package_is_named(member, monkeypatch):
    if member.kind != "smolvlm":
        pytest.skip("of SmolVLM2 alone")
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
    with pytest.raises(PolicyError, match=r"smolvlm: the processor of SmolVLM2 needs more packages: .*num2words"):
        member.fresh()
