"""A model that is handed on: one folder, the same answers, by every way of reading it."""

import json
from pathlib import Path

import pytest
import torch
from rendered import EMBEDDED
from test_same_as_the_stage import LORA, SAID
from typer.testing import CliRunner

from saliency_r1 import tasks
from saliency_r1.cli.app import app
from saliency_r1.data.samples import read_images
from saliency_r1.params import load_params, parse_params
from saliency_r1.policy import Policy
from saliency_r1.prediction import Predictor
from saliency_r1.prediction.models import choose, manifest
from saliency_r1.rollout.environment import Environment
from saliency_r1.training import sft
from saliency_r1.training.optimiser import save_adapter, wrap
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
POLICY, SEGMENTER = EMBEDDED / "models/policy", EMBEDDED / "models/segmenter"


@pytest.fixture(scope="module")
def adapter(samples, segmenter, tmp_path_factory) -> Path:
    """Trained embeddings and matrices, as in the pipeline: merging has both to do."""
    folder = tmp_path_factory.mktemp("trained")
    whole = load_yaml(ROOT / "params.yaml")
    whole["sft"] |= {"steps": 6, "batch_size": 2, "micro_batch": 2, "warmup": 1, "lr": 1e-2, "average": 0.0}
    lora = PARAMS.sft.lora.model_copy(update={"r": LORA.r}) if PARAMS.sft.lora else LORA
    policy = wrap(Policy.load(POLICY, **PARAMS.policy.loading), lora, seed=1)
    environment = Environment(segmenter, samples[0], PARAMS.rewards.model_dump(), PARAMS.policy.max_new_tokens, 4)
    rows = [row for row in samples[1] if row["task"] == "sod"]
    list(sft.train(policy, environment, sft.Examples(rows, [SAID] * 2), parse_params(whole).sft, 0, folder / "runs"))
    save_adapter(policy, folder / "cgpo/adapter")
    return folder / "cgpo/adapter"


@pytest.fixture(scope="module")
def exported(adapter, tmp_path_factory) -> dict[str, Path]:
    """The model as an adapter and merged, with a card."""
    out = tmp_path_factory.mktemp("exported")
    metrics = out / "metrics"
    metrics.mkdir()
    (metrics / "metrics.json").write_text(json.dumps({"cgpo": {"mine": {"Sm": 0.8765, "parse_failures": 0.02}}}))
    (metrics / "intervals.json").write_text(json.dumps({"cgpo": {"mine": {"Sm": [0.81, 0.92]}}}))
    models = ["--policy", POLICY, "--segmenter", SEGMENTER, "--adapter", adapter, "--metrics", metrics]
    for name, more in (("adapter", []), ("merged", ["--merge"])):
        call = ["export", out / name, "--params", ROOT / "params.yaml", *models, *more]
        done = CliRunner().invoke(app, list(map(str, call)))
        assert done.exit_code == 0, done.output
    return {name: out / name for name in ("adapter", "merged")}


@pytest.fixture(scope="module")
def pictures(samples) -> list:
    folder, rows = samples
    return [read_images(row, folder) for row in rows if row["task"] == "sod"]


def said(policy: Policy, pictures: list) -> list[tuple[int, ...]]:
    prompts = [policy.prompt(images, tasks.get("sod").instruction) for images in pictures]
    return [response.ids for response in policy.generate(prompts, 64)]


@pytest.fixture(scope="module")
def before(adapter, pictures) -> list[tuple[int, ...]]:
    return said(Policy.load(POLICY, adapter, **PARAMS.policy.loading), pictures)


def test_a_folder_is_read_without_asking_anybody(exported, monkeypatch) -> None:
    """The base of an exported adapter is called `base`; PEFT would ask the hub for a model of that name."""
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *_: pytest.fail("asked the hub"))
    Policy.load(exported["adapter"])


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_answers_are_those_from_before(exported, before, pictures, form) -> None:
    """Sizes come with the folder: `Policy.load` is told nothing else."""
    assert said(Policy.load(POLICY, **PARAMS.policy.loading), pictures) != before, (
        "the base says the same: shows nothing"
    )
    assert said(Policy.load(exported[form]), pictures) == before
    predictor = Predictor.open(exported[form])
    assert [predictor.predict(images, "sod").text for images in pictures] == [
        predictor.policy.tokenizer.decode([token for token in ids if token != predictor.policy.end_id])
        for ids in before
    ]


def test_plain_transformers_say_the_same(exported, before, pictures) -> None:
    """From the folder alone: processor, sizes, weights and the way of generating."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = exported["merged"]
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for images, ids in zip(pictures, before, strict=True):
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": tasks.get("sod").instruction}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        encoded = processor(text=[text], images=images, return_tensors="pt")
        (row,) = model.generate(**encoded, max_new_tokens=64)[:, encoded["input_ids"].shape[1] :].tolist()
        assert tuple(row[: len(ids)]) == ids


def test_the_folder_says_what_it_is(exported) -> None:
    about = manifest(exported["merged"])
    assert about["form"] == "merged"
    assert about["tags"] == ["think", "answer", "rg", "ins"]
    assert about["loading"]["max_pixels"] == PARAMS.policy.max_pixels
    assert (exported["merged"] / "segmenter/model.safetensors").read_bytes() == (
        SEGMENTER / "model.safetensors"
    ).read_bytes()
    card = (exported["merged"] / "README.md").read_text()
    assert "| mine | S-measure | 0.8765 | 0.8100 to 0.9200 |" in card
    assert "at most 2.0% (mine)" in card
    from huggingface_hub import ModelCard

    (result,) = ModelCard(card).data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("mine", "Sm", 0.8765)
    assert choose(str(exported["adapter"])).settings.max_new_tokens == PARAMS.policy.max_new_tokens


def test_a_folder_of_something_else_is_not_replaced(adapter, tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"")
    call = ["export", tmp_path / "photos", "--policy", POLICY, "--segmenter", SEGMENTER, "--adapter", adapter]
    done = CliRunner().invoke(app, [*map(str, call), "--params", str(ROOT / "params.yaml")])
    assert done.exit_code == 1
    assert "holds something else than an exported model" in done.output
    assert (tmp_path / "photos/cat.jpg").exists()


def test_what_no_export_has_written_stays_and_an_edited_card_is_not_lost(adapter, tmp_path) -> None:
    out = tmp_path / "out"
    models = ["--policy", POLICY, "--segmenter", SEGMENTER, "--adapter", adapter]
    call = list(map(str, ["export", out, "--params", ROOT / "params.yaml", *models]))
    assert CliRunner().invoke(app, call).exit_code == 0
    (out / ".git/objects").mkdir(parents=True)
    (out / ".git/objects/ab").write_bytes(b"history")
    (out / ".git/HEAD").symlink_to("objects/ab")
    (out / "notes.txt").write_text("mine")
    done = CliRunner().invoke(app, [*call, "--merge"])
    assert done.exit_code == 0, done.output
    assert (out / ".git/HEAD").readlink() == Path("objects/ab")
    assert (out / ".git/HEAD").read_bytes() == b"history"
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "adapter_config.json").exists(), "of the earlier export; it would be read"
    assert not (out / "base").exists()

    card = out / "README.md"
    card.write_text(card.read_text() + "\nMine as well.\n")
    before = card.read_bytes()
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 1
    assert "README.md is not the card that an export has written there" in " ".join(done.output.split())
    assert card.read_bytes() == before
    card.unlink()
    assert CliRunner().invoke(app, call).exit_code == 0
