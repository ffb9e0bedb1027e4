"""The parts of the rehearsal: a tokenizer from ranks, archives in the public layouts, settings, complaints."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from transformers import Qwen2Tokenizer

from benchmarks.rehearsal import models, photographs, run, tokenizer
from saliency_r1 import cot
from saliency_r1.params import parse_params
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[2]
# As in a real file: 256 bytes, then what is put together from them.
RANKS = {bytes([value]): value for value in range(256)} | {b"th": 256, b"in": 257, b"the": 258, b"><": 259}


def test_a_token_is_made_of_the_two_that_are_left_before_the_last_merge() -> None:
    ranks = RANKS | {b"inth": 261}
    assert tokenizer.merges(ranks)[:3] == [(b"t", b"h"), (b"i", b"n"), (b"th", b"e")]
    assert tokenizer.merges(ranks)[-1] == (b"in", b"th")
    with pytest.raises(ValueError, match="not make b'abc' of two tokens"):
        tokenizer.merges(RANKS | {b"abc": 261})


def test_the_tokenizer_has_the_ids_of_the_ranks_and_special_tokens_behind_them() -> None:
    made = tokenizer.build(RANKS)
    text = "<b><i>the \u00e9"
    ids = made(text).input_ids
    assert ids == [60, 98, 259, 105, 62, 258, 32, 0xC3, 0xA9]
    assert made.decode(ids) == text
    ends = made.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>", "<|image_pad|>"])
    assert ends == [260, 262, 272]


def test_the_ranks_are_read_from_base64(tmp_path: Path) -> None:
    (tmp_path / "ranks").write_bytes(b"IQ== 0\n4pyT 1\n")
    assert tokenizer.read_ranks(tmp_path / "ranks") == {b"!": 0, "\u2713".encode(): 1}


def test_what_is_taught_is_the_form() -> None:
    rng = np.random.default_rng(0)
    for task, images, said in (("sod", 1, 1), ("sis", 1, 2), ("cosod", models.GROUP, models.GROUP)):
        parsed = cot.parse(models.answer(task, rng), task, images)
        assert parsed.ok
        assert len(parsed.expressions) == said


def narrow() -> dict:
    """The published configuration with other widths, and embeddings that can be told apart at them."""
    config = models.shape(1)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    config["text_config"] |= {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
        "rope_parameters": rope, "initializer_range": 0.02 * (2048 / 64) ** 0.5,
    }  # fmt: skip
    config["vision_config"] |= {"hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
    return config


@pytest.mark.slow
def test_a_taught_policy_is_one_that_the_pipeline_loads(tmp_path: Path) -> None:
    for number in range(5):
        Image.new("RGB", (60, 60), (50 * number, 90, 10)).save(tmp_path / f"{number}.png")
    policy = models.untaught(tokenizer.build(RANKS), narrow(), 0, models.torch.bfloat16)
    losses = [loss for _, loss in models.teach(policy, sorted(tmp_path.glob("*.png")), 100, 2, 3e-3, 0)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5  # that it learns; the form takes another size
    models.save(policy, tmp_path / "policy")
    again = models.Policy.load(tmp_path / "policy", dtype=models.torch.bfloat16)
    assert isinstance(again.tokenizer, Qwen2Tokenizer)
    prompt = again.prompt([Image.new("RGB", (56, 56))], "Find it.")
    text = again.tokenizer.decode(prompt.input_ids)
    assert text.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
    )
    assert text.endswith("<|vision_end|>Find it.<|im_end|>\n<|im_start|>assistant\n")
    assert again.generate([prompt], 3) == policy.generate([prompt], 3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures as the rehearsal expects them."""
    rng = np.random.default_rng(0)

    def draw(path: Path, mode: str = "RGB") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 2, (20, 30) if mode == "L" else (20, 30, 3), np.uint8) * 255
        Image.fromarray(noise).save(path)

    for group in "ABCD":
        for number in range(8):
            draw(tmp_path / f"voc_coseg_32/img/{group}/{number}.jpg")
            draw(tmp_path / f"voc_coseg_32/gt/{group}/{number}.png", "L")
    for number in range(60):
        draw(tmp_path / f"ecssd_60/images/{number}.jpg")
        draw(tmp_path / f"ecssd_60/masks/{number}.png", "L")
    for number in range(24):
        draw(tmp_path / f"coco_instances_24/images/{number}.jpg")
        label = tmp_path / f"coco_instances_24/labels/{number}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text("23 0.1 0.1 0.5 0.1 0.5 0.5\n7 0.6 0.6 0.9 0.6 0.9 0.9\n")
    return tmp_path


def test_every_data_set_of_the_profile_is_packed_as_the_catalogue_says(pictures: Path, tmp_path: Path) -> None:
    path = photographs.pack(ROOT / "embedded/catalogue.yaml", photographs.Photographs(pictures), tmp_path / "packed")
    profile = load_yaml(ROOT / "profiles/paper-3b.yaml")
    entries = load_yaml(path)["datasets"]
    assert set(entries) == set(profile["download"]["datasets"])
    with zipfile.ZipFile(tmp_path / "packed/DUTS-TR.zip") as packed:
        assert sorted({Path(name).parts[0] for name in packed.namelist()}) == ["DUTS-TR-Image", "DUTS-TR-Mask"]
        assert len(packed.namelist()) == 2 * 6
    with zipfile.ZipFile(tmp_path / "packed/SIS10K-json.zip") as packed:
        content = json.loads(packed.read("SIS10K_test.json"))
    assert [len(content[key]) for key in ("images", "annotations")] == [3, 6]
    assert content["annotations"][0]["segmentation"] == [[3.0, 2.0, 15.0, 2.0, 15.0, 10.0]]


def test_no_picture_stands_in_two_splits(pictures: Path) -> None:
    sets = photographs.assign(photographs.Photographs(pictures))
    names = [picture.path for groups in sets.values() for own in groups.values() for picture in own]
    assert len(names) == len(set(names))


def test_too_few_pictures_are_named(pictures: Path) -> None:
    left = photographs.Photographs(pictures)
    with pytest.raises(ValueError, match="61 pictures of the kind 'pairs' are wanted, and 60 are left"):
        left.take("pairs", 61)


def test_the_settings_are_the_profiles_but_for_what_a_rehearsal_changes(tmp_path: Path) -> None:
    profile = load_yaml(ROOT / "profiles/paper-3b.yaml")
    content = run.merged(profile, run.CHANGES)
    params = parse_params(load_yaml(_written(tmp_path / "params.yaml", content)))
    assert params.runtime.dtype == "bfloat16"
    assert params.policy.gradient_checkpointing
    assert content["sft"]["lora"] == profile["sft"]["lora"]
    assert content["policy"]["max_pixels"] == profile["policy"]["max_pixels"]
    with pytest.raises(KeyError, match="stps"):
        run.merged(profile, {"sft": {"stps": 4}})


def _written(path: Path, content: dict) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_rehearsal_that_shows_nothing_says_so() -> None:
    good = {
        "tasks sampled": ["cosod", "sis", "sod"], "sampled answers that parse": 0.9,
        "answers that parse": {"cgpo": 0.9},
        "tasks with a reward above what the form earns": ["sod"], "seconds of preparation": 500.0,
        "seconds of the pipeline": 600.0, "most memory of a process, GB": 6.0,
        "computed in": "bfloat16",
    }  # fmt: skip
    assert run.complaints(good) == []
    for key, value, words in (
        ("sampled answers that parse", 0.1, "teach the stand-in longer"),
        ("answers that parse", {"cgpo": 0.1}, "teach the stand-in longer"),
        ("tasks with a reward above what the form earns", [], "no mask earned anything"),
        ("tasks sampled", ["sod", "sis"], "no prompt of cosod"),
        ("seconds of the pipeline", 900.0, "it took 23.3 minutes"),
        ("most memory of a process, GB", 13.0, "took 13.0 GB"),
    ):
        (complaint,) = run.complaints(good | {key: value})
        assert words in complaint
    assert run.complaints(good | {"seconds of the pipeline": 900.0, "computed in": "float32"}) == []
    assert run.complaints({"seconds of preparation": 500.0}) == ["the pipeline was stopped before its report"]
