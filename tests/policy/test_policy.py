"""The policy's invariants: one distribution for sampling and for log-probabilities, whatever the padding."""

import json
import re
import shutil

import pytest
import torch
from rendered import EMBEDDED

from saliency_r1 import tasks
from saliency_r1.data.samples import read_images
from saliency_r1.policy import Policy, Response
from saliency_r1.policy.model import Sampler
from saliency_r1.rollout import confidence
from saliency_r1.rollout.confidence import counted, mean_probability
from saliency_r1.rollout.passes import passes


@pytest.fixture(scope="module")
def prompts(policy, samples):
    folder, rows = samples
    return [policy.prompt(read_images(row, folder), tasks.get(row["task"]).instruction) for row in rows]


def generated_logprobs(policy, prompt, sample):
    """Token ids and their log-probabilities as the sampler saw them."""
    batch = policy.collate([prompt])
    output = policy.model.generate(
        **batch, max_new_tokens=24, do_sample=sample, temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0,
        suppress_tokens=policy.suppressed, eos_token_id=policy.end_id, pad_token_id=policy.pad_id,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    ids = output.sequences[0, batch["input_ids"].shape[1] :].tolist()
    scores = torch.stack([score[0] for score in output.scores]).log_softmax(-1)
    return ids, scores[range(len(ids)), ids]


@pytest.mark.parametrize("index", [0, 2, 5])
@pytest.mark.parametrize("sample", [False, True])
def test_forward_repeats_what_the_sampler_saw(policy, prompts, index, sample):
    torch.manual_seed(1)
    ids, expected = generated_logprobs(policy, prompts[index], sample)
    with torch.no_grad():
        logprobs, mask = policy.logprobs(policy.collate([prompts[index]], [ids]))
    assert torch.allclose(logprobs[mask], expected, atol=1e-5)


def test_forward_repeats_the_log_probabilities_that_were_drawn_from(policy, prompts):
    """Together, at the temperature and with the suppressed ids of the training."""
    responses = policy.generate(prompts, 24, range(len(prompts)), temperature=0.7)
    with torch.no_grad():
        logprobs, mask = policy.logprobs(policy.collate(prompts, [response.ids for response in responses]), 0.7)
    for response, own, kept in zip(responses, logprobs, mask):
        # Rounding of float32 grows with the value: on AVX-512 it is 1.05e-5 at -1.65.
        assert torch.allclose(own[kept], torch.tensor(response.logprobs), atol=1e-5)
    assert policy.generate(prompts[:1], 24)[0].logprobs == ()


def test_a_checkpoint_s_generation_config_does_not_leak_into_sampling(policy, prompts):
    """Published checkpoints carry temperature 1e-6 and a repetition penalty; neutral values must win."""
    own = Policy.load(EMBEDDED / "models/policy", min_pixels=1024, max_pixels=25600)
    own.model.generation_config.update(temperature=1e-6, repetition_penalty=1.05, top_k=1, do_sample=True)
    texts = []
    for one in (policy, own):
        responses = one.generate(prompts, 16, range(len(prompts)), temperature=1.5)
        texts.append([response.text for response in responses])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1


HABITS = {
    "no_repeat_ngram_size": 2,
    "exponential_decay_length_penalty": [2, 5.0],
    "begin_suppress_tokens": list(range(20, 400)),
}


def test_nothing_of_a_checkpoint_s_generation_config_is_taken_over(policy, prompts, tmp_path):
    """Neither what no call of `generate` here speaks of."""
    folder = shutil.copytree(EMBEDDED / "models/policy", tmp_path / "policy")
    (folder / "generation_config.json").write_text(json.dumps(HABITS))
    own = Policy.load(folder, min_pixels=1024, max_pixels=25600)
    assert own.generate(prompts, 16) == policy.generate(prompts, 16)
    seeds = range(len(prompts))
    assert own.generate(prompts, 16, seeds, temperature=1.5) == policy.generate(prompts, 16, seeds, temperature=1.5)


def test_padding_changes_nothing(policy, prompts):
    answers = [policy.response_ids(text) for text in ("a red circle", "the blue ring and the star at the left", "x")]
    chosen = [prompts[0], prompts[4], prompts[2]]
    with torch.no_grad():
        together, mask = policy.logprobs(policy.collate(chosen, answers))
        for row, (prompt, answer) in enumerate(zip(chosen, answers)):
            alone, own = policy.logprobs(policy.collate([prompt], [answer]))
            assert torch.allclose(together[row][mask[row]], alone[own], atol=1e-5)
    greedy = [policy.generate([prompt], 20)[0].ids for prompt in chosen]
    assert [response.ids for response in policy.generate(chosen, 20)] == greedy


def test_a_sampled_response_depends_on_its_prompt_and_seed_alone(policy, prompts):
    seeds = range(len(prompts))
    together = policy.generate(prompts, 20, seeds, temperature=1.5)
    for prompt, seed, response in reversed(list(zip(prompts, seeds, together))):
        assert policy.generate([prompt], 20, [seed], temperature=1.5)[0].ids == response.ids
    again = policy.generate(prompts[:1] * 3, 20, [7, 7, 8], temperature=1.5)
    assert again[0].ids == again[1].ids != again[2].ids


def test_the_sampler_draws_from_the_softmax_at_its_temperature():
    scores = torch.tensor([2.0, 1.0, float("-inf"), 0.0])
    sampler = Sampler([11], temperature=2.0, device=torch.device("cpu"))
    drawn = torch.cat([sampler(torch.zeros(0), scores[None]).argmax(-1) for _ in range(20_000)])
    shares = drawn.bincount(minlength=4) / len(drawn)
    assert shares[2] == 0
    assert torch.allclose(shares, (scores / 2).softmax(0), atol=0.01)  # three standard errors


def test_image_and_control_tokens_are_never_sampled(policy, prompts):
    responses = policy.generate(prompts, 40, range(len(prompts)), temperature=50.0)
    assert not {i for response in responses for i in response.ids} & set(policy.suppressed)
    with torch.no_grad():
        logits = policy.logits(policy.collate([prompts[0]], [policy.response_ids("a")]))
    assert torch.isinf(logits[..., policy.suppressed]).all()


def test_autocast_is_near_and_sampling_speaks_of_the_same_distribution(policy, prompts):
    cast = Policy.load(EMBEDDED / "models/policy", min_pixels=1024, max_pixels=25600, autocast=True)
    (response,) = cast.generate(prompts[:1], 20)
    batch = policy.collate(prompts[:1], [response.ids])
    with torch.no_grad():
        exact, mask = policy.logprobs(batch)
        rounded, _ = cast.logprobs(batch)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert torch.allclose(rounded[mask], exact[mask], atol=0.1)


def test_only_response_tokens_carry_loss(policy, prompts):
    answer = policy.response_ids("the red circle")
    batch = policy.collate([prompts[0]], [answer])
    assert batch["labels"][0][batch["labels"][0] != -100].tolist() == answer
    assert answer[-1] == policy.end_id


def test_the_output_layer_sees_the_responses_tokens_and_no_copy_of_its_matrix_is_made_for_them(policy, prompts):
    """A slice of the hidden states is not contiguous: in bfloat16 a CPU then copies the matrix once for each row."""
    seen = []
    handle = policy.model.get_output_embeddings().register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    answers = [policy.response_ids(text) for text in ("a red circle", "the blue ring and the star at the left")]
    try:
        logits = policy.logits(policy.collate([prompts[0], prompts[4]], answers))
    finally:
        handle.remove()
    assert len(logits) == sum(map(len, answers))
    assert seen[0].is_contiguous()
    assert seen[0].shape[:-1] == (len(logits),)


def test_entropy_and_confidence(policy, prompts):
    answer = policy.response_ids("the red circle")
    with torch.no_grad():
        logprobs, mask, entropy = policy.logprobs_and_entropy(policy.collate([prompts[0]], [answer]))
    assert 0 < mean_probability(logprobs, mask).item() <= 1
    assert mean_probability(logprobs, mask).item() == pytest.approx(logprobs[mask].exp().mean().item())
    assert (entropy[mask] >= 0).all()
    assert (entropy[~mask] == 0).all()


def test_parts_of_a_response(policy):
    text = "<think>a red circle</think><answer><rg>the red circle</rg></answer>"
    ids = tuple(policy.response_ids(text))
    parts = confidence.parts(policy, Response(text, ids, True))

    def said(part):
        return policy.tokenizer.decode([i for i, inside in zip(ids, parts[part]) if inside]).replace(" ", "")

    assert (parts["reasoning"] ^ parts["answer"]).all()
    # This vocabulary has tokens like `><` and `>the`; they belong where they end.
    assert said("reasoning") == "<think>aredcircle</think"
    assert said("tags") == "<think</think><answer><rg</rg></answer>"
    assert said("expressions") == ">theredcircle"
    assert not parts["expressions"][-1], "the end token is no expression"


TEXTS = [
    "<think>The café stands out</think><answer><rg>the café at the left</rg></answer>",
    "<think>左边的红色圆圈很显眼。</think><answer><ins>红色圆圈</ins><ins>左边的猫</ins></answer>",
    "<think>লাল বৃত্তটি স্পষ্ট</think><answer><rg>লাল বৃত্ত</rg><rg>👩‍🚀 নীল</rg></answer>",
    "<think>a � that was meant</think><answer><rg>é</rg></answer>",
    "中",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("ended", [True, False])
def test_a_token_s_place_is_exact_where_characters_have_several_tokens(policy, text, ended):
    """Against the bytes: a byte-level token is as many bytes as it has letters."""
    ids = tuple(policy.response_ids(text)) if ended else tuple(policy.response_ids(text)[:-1])
    places = confidence.last_characters(policy, Response(text, ids, ended))
    of_byte = [place for place, character in enumerate(text) for _ in character.encode()]
    sizes = [len(token) for token in policy.tokenizer.convert_ids_to_tokens(ids[:-1] if ended else ids)]
    assert sum(sizes) == len(of_byte)
    expected = [of_byte[end - 1] for end in torch.tensor(sizes).cumsum(0).tolist()]
    if "�" in text:  # what is said on purpose and what is unfinished look alike; a later token puts it right
        differing = [place for place, true in zip(places, expected) if place != true]
        assert all(text[place] == "�" or text[place - 1] == " " for place in differing)
        places, expected = places[-6:], (expected + [len(text)] * ended)[-6:]
    assert places[: len(expected)] == expected
    assert not ended or places[-1] == len(text)


@pytest.mark.parametrize("text", TEXTS[:3])
def test_parts_of_a_response_in_characters_of_several_tokens(policy, text):
    ids = tuple(policy.response_ids(text))
    parts = confidence.parts(policy, Response(text, ids, True))
    said = {name: policy.tokenizer.decode([i for i, inside in zip(ids, own) if inside]) for name, own in parts.items()}
    assert said["reasoning"] + said["answer"] == text + "<|im_end|>"
    # The tag before has merged with its `>`, and the `>` behind it with `<`.
    assert said["reasoning"] == text[: text.index("><answer>")]
    wanted = re.findall("<(?:rg|ins)>(.*?)</", text)
    assert said["expressions"].replace(">", "") == "".join(wanted)


def test_without_an_answer_all_is_reasoning_the_end_token_included(policy):
    ids = tuple(policy.response_ids("a red circle"))
    parts = confidence.parts(policy, Response("a red circle", ids, True))
    assert parts["reasoning"].all()
    assert counted(parts, "answer", True, True).all(), "nothing would count, so all does"


def test_the_c_of_training_and_the_token_probability_of_an_answer_differ_by_temperature(policy, prompts):
    responses = policy.generate(prompts, 24)
    cool = [
        mean_probability(one.logprobs, one.mask)[row].item()
        for one in passes(policy, prompts, responses, 1, temperature=0.7)
        for row in range(len(one.positions))
    ]
    warm = confidence.token_probabilities(policy, prompts, responses, 1)
    assert sum(cool) > sum(warm)


def test_which_tokens_count(policy):
    text = "<think>a red circle</think><answer><rg>the red circle</rg></answer>"
    ids = tuple(policy.response_ids(text))
    parts = confidence.parts(policy, Response(text, ids, True))
    assert counted(parts, "all", True, True).all()
    assert counted(parts, "all", False, True).tolist() == [True] * (len(ids) - 1) + [False]
    assert torch.equal(counted(parts, "answer", True, True), parts["answer"])
    assert counted(parts, "answer", False, True).sum() == parts["answer"].sum() - 1
    broken = confidence.parts(policy, Response("a red circle", ids[1:4], False))
    assert counted(broken, "answer", True, False).all(), "without an answer the whole response counts"


def test_pixel_bounds_are_honoured(samples):
    folder, rows = samples
    small = Policy.load(EMBEDDED / "models/policy", min_pixels=1024, max_pixels=48 * 48)
    prompt = small.prompt(read_images(rows[0], folder), "Describe the image.")
    assert (prompt.inputs["image_grid_thw"][0, 1:].prod() * 64).item() <= 48 * 48
