"""One model, one picture, one answer: by the stage masks and by the command that somebody calls."""

import json
from pathlib import Path

import pytest
from rendered import EMBEDDED
from typer.testing import CliRunner

from saliency_r1 import cot, tasks
from saliency_r1.cli.app import app
from saliency_r1.params import Lora, Params, load_params, parse_params
from saliency_r1.policy import Policy
from saliency_r1.prediction import split
from saliency_r1.rollout.environment import Environment
from saliency_r1.rollout.grounding import Answered, ground
from saliency_r1.training import sft
from saliency_r1.training.optimiser import save_adapter, wrap
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[2]
LORA = Lora(r=16, alpha=32, dropout=0.0, targets=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj", modules_to_save=())
SAID = cot.render("It stands out.", [cot.Expression("rg", 0, "the disc"), cot.Expression("rg", 0, "the star")])


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def environment(samples, segmenter, params) -> Environment:
    return Environment(segmenter, samples[0], params.rewards.model_dump(), params.policy.max_new_tokens, 4)


@pytest.fixture(scope="module")
def adapter(samples, environment, params, tmp_path_factory) -> Path:
    """Some steps on two pictures and one sentence: it answers in form, and names something."""
    folder = tmp_path_factory.mktemp("adapter")
    whole = load_yaml(ROOT / "params.yaml")
    whole["sft"] |= {"steps": 40, "batch_size": 2, "micro_batch": 2, "warmup": 1, "lr": 1e-2, "average": 0.0}
    policy = wrap(Policy.load(EMBEDDED / "models/policy", **params.policy.loading), LORA, seed=1)
    rows = [row for row in samples[1] if row["task"] == "sod"]
    list(sft.train(policy, environment, sft.Examples(rows, [SAID] * 2), parse_params(whole).sft, 0, folder / "runs"))
    save_adapter(policy, folder / "adapter")
    return folder / "adapter"


def test_the_map_of_the_command_is_the_map_of_the_stage_to_the_byte(samples, environment, adapter, params, tmp_path):
    folder, rows = samples
    rows = [row for row in rows if row["task"] == "sod"]
    policy = Policy.load(EMBEDDED / "models/policy", adapter, **params.policy.loading)
    (tmp_path / "part").mkdir()
    split.write_part(tmp_path / "part", "sft", split.answers(policy, environment, rows), "segmenter")
    split.assemble(tmp_path / "stage", [tmp_path / "part"])
    models = ["--policy", EMBEDDED / "models/policy", "--segmenter", EMBEDDED / "models/segmenter"]
    models += ["--adapter", adapter, "--params", ROOT / "params.yaml"]
    pictures = [folder / row["images"][0] for row in rows]
    done = CliRunner().invoke(app, ["predict", *map(str, [*pictures, "--out", tmp_path / "command", *models])])
    assert done.exit_code == 0, done.output
    answers = json.loads((tmp_path / "command/response.json").read_text())["answers"]
    assert all(entry["expressions"] and not entry["errors"] for entry in answers), "maps of nothing show nothing"
    assert all(entry["attempts"] == 1 for entry in answers), "the stage does not ask again"
    for row in rows:
        (stem,) = row["names"]
        one = (tmp_path / "stage/maps/sft/sod" / f"{stem}.png").read_bytes()
        assert one == (tmp_path / "command/maps" / f"{stem}.png").read_bytes()


class Counting:
    """Segments as another does and counts the pictures it was shown."""

    def __init__(self, segmenter) -> None:
        self.segmenter, self.shown = segmenter, []

    def encode(self, images):
        self.shown.append(len(images))
        return self.segmenter.encode(images)

    def segment(self, encoded, phrases):
        return self.segmenter.segment(encoded, phrases)


def test_answers_are_grounded_alike_in_any_company(samples, environment):
    """In batches of any size; what several say of a picture costs one look at it, none where they name nothing."""
    from saliency_r1.data.samples import read_images

    folder, rows = samples
    answers = []
    for row in rows:
        task = tasks.get(row["task"])
        sizes = list(zip(row["height"], row["width"], strict=True))
        said = [cot.Expression(task.kind, index, f"the object {index}") for index in range(len(sizes))]
        other = [cot.Expression(task.kind, index, "the red one") for index in range(len(sizes))]
        for text in (cot.render("So it is.", said), "nothing", cot.render("Or so.", other)):
            answers.append(Answered(text, task, sizes, lambda row=row: read_images(row, folder), row["sample_id"]))
    counting = Counting(environment.segmenter)
    ground(counting, answers, len(answers))
    assert sum(counting.shown) == sum(len(row["images"]) for row in rows)
    together = ground(environment.segmenter, answers, 4)
    for one, (alone,) in zip(together, (ground(environment.segmenter, [answer], 1) for answer in answers), strict=True):
        assert one.parsed == alone.parsed
        assert len(one.prediction.maps) == len(alone.prediction.maps)
        for a, b in zip(one.prediction.maps, alone.prediction.maps, strict=True):
            assert abs(a - b).max() < 1e-5
        masks = zip(one.prediction.instances, alone.prediction.instances, strict=True)
        assert all((a.mask == b.mask).all() for a, b in masks)
