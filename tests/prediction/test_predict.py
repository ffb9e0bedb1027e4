"""Predictions for people who only want masks: with a policy that speaks by rote and a segmenter that draws boxes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from saliency_r1.cli import predict as cli_predict
from saliency_r1.cli.app import app as whole_app
from saliency_r1.data.samples import chunks
from saliency_r1.prediction.predictor import Failure, PredictError, Predictor
from saliency_r1.prediction.work import collect, prompts
from saliency_r1.segmenter import Segment

ROOT = Path(__file__).parents[2]
SIZE = (24, 32)  # height, width
SAID = {
    "sod": "<think>It is red.</think><answer><rg>top</rg><rg>bottom</rg></answer>",
    "sis": "<think>Two.</think><answer><ins>top</ins><ins>all</ins></answer>",
    "cosod": "<think>Both.</think><answer><rg>top</rg><rg>bottom</rg></answer>",
    "mute": "I see nothing of note.",
}
ROWS = {"top": slice(0, 12), "bottom": slice(12, 24), "all": slice(0, 24)}


class Policy:
    """Answers every prompt with the same words."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.prompts: list[tuple[int, str]] = []

    def prompt(self, images: list[Image.Image], instruction: str) -> str:
        self.prompts.append((len(images), instruction))
        return instruction

    def generate(self, prompts: list[str], max_new_tokens: int, *sampled: Any) -> list[SimpleNamespace]:
        return [SimpleNamespace(text=self.text) for _ in prompts]


class Segmenter:
    """Knows three phrases."""

    def encode(self, images: list[Image.Image]) -> list[tuple[int, int]]:
        return [(image.height, image.width) for image in images]

    def segment(self, encoded: list[tuple[int, int]], phrases: list[list[str]]) -> list[list[Segment]]:
        assert len(encoded) == len(phrases)
        return [[self._draw(size, phrase) for phrase in row] for size, row in zip(encoded, phrases)]

    def _draw(self, size: tuple[int, int], phrase: str) -> Segment:
        logits = np.full(size, -9, np.float32)
        logits[ROWS[phrase]] = 9
        return Segment(logits, 0.5 if phrase == "all" else 0.75)


def predictor(said: str) -> Predictor:
    return Predictor(Policy(SAID[said]), Segmenter())  # type: ignore[arg-type]


def picture(height: int = SIZE[0], width: int = SIZE[1]) -> Image.Image:
    return Image.new("RGB", (width, height), "red")


def test_regions_of_one_image_are_united() -> None:
    result = predictor("sod").predict([picture()], "sod")
    assert result.reasoning == "It is red."
    assert [item.text for item in result.expressions] == ["top", "bottom"]
    assert result.maps[0].shape == SIZE
    assert result.maps[0].dtype == np.float32
    assert result.maps[0].min() > 0.99
    assert not result.instances


def test_instances_stay_apart_and_the_surer_one_lies_on_top() -> None:
    result = predictor("sis").predict([picture()], "sis")
    assert len(result.instances) == 2
    assert [mask.sum() for mask in result.masks[0]] == [12 * 32, 24 * 32]
    assert np.unique(result.ids[:12]).tolist() == [1]
    assert np.unique(result.ids[12:]).tolist() == [2]


def test_a_group_is_one_prompt_and_every_image_gets_its_own_expression() -> None:
    asked = predictor("cosod")
    result = asked.predict([picture(), picture(24, 48)], "cosod")
    assert asked.policy.prompts[0][0] == 2  # type: ignore[attr-defined]
    assert [map_.shape for map_ in result.maps] == [(24, 32), (24, 48)]
    assert result.maps[0][0, 0] > 0.99 > 0.01 > result.maps[0][-1, 0]
    assert result.maps[1][-1, 0] > 0.99 > 0.01 > result.maps[1][0, 0]


@pytest.mark.parametrize("task", ["sod", "sis"])
def test_a_response_that_does_not_parse_predicts_nothing_and_says_why(task: str) -> None:
    result = predictor("mute").predict([picture()], task)
    assert result.errors
    assert not any(mask.any() for mask in result.masks[0])
    assert result.text == SAID["mute"]


@pytest.mark.parametrize(("task", "count"), [("sod", 2), ("sis", 0), ("cosod", 0)])
def test_a_wrong_number_of_images_is_refused(task: str, count: int) -> None:
    with pytest.raises(PredictError, match="image"):
        predictor("sod").predict([picture()] * count, task)


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PredictError, match="unknown task 'depth', expected one of sod, sis, cosod"):
        predictor("sod").predict([picture()], "depth")


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls the command in a folder with two pictures and without models; `said` is what the policy says."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        picture().save(name)
    (tmp_path / "text.png").write_text("not a picture")
    for folder in ("artifacts/download/models/policy", "artifacts/download/models/segmenter", "artifacts/cgpo/adapter"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.setattr("saliency_r1.runtime.stage.prepare_torch", lambda *_: ("cpu", None))
    app = typer.Typer()
    app.command()(cli_predict.predict)

    def call(*arguments: str, said: str = "sod") -> Any:
        monkeypatch.setattr(Predictor, "load", classmethod(lambda *_, **__: predictor(said)))
        return CliRunner().invoke(app, list(arguments))

    return call


def test_the_command_writes_maps_overlays_and_the_response(command: Any, tmp_path: Path) -> None:
    done = command("a.png", "b.png", "--task", "sod", "--out", "out")
    assert done.exit_code == 0, done.output
    assert listing(tmp_path / "out") == [
        "maps/a.png", "maps/b.png", "overlays/a.png", "overlays/b.png", "response.json",
    ]  # fmt: skip
    assert np.array(Image.open("out/maps/a.png")).tolist() == [[255] * 32] * 24
    written = json.loads(Path("out/response.json").read_text())
    assert [entry["images"] for entry in written["answers"]] == [["a.png"], ["b.png"]]
    assert written["answers"][0]["expressions"][0] == {"image": "a.png", "kind": "rg", "text": "top"}


def test_instances_are_written_as_ids(command: Any) -> None:
    assert command("a.png", "--task", "sis", "--out", "out", said="sis").exit_code == 0
    assert np.unique(np.array(Image.open("out/maps/a.png"))).tolist() == [1, 2]


def test_a_group_is_asked_about_at_once(command: Any) -> None:
    assert command("a.png", "b.png", "--task", "cosod", "--out", "out", said="cosod").exit_code == 0
    (entry,) = json.loads(Path("out/response.json").read_text())["answers"]
    assert [item["image"] for item in entry["expressions"]] == ["a.png", "b.png"]


def test_real_models_are_loaded_as_params_yaml_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    picture().save(tmp_path / "a.png")
    models = ("--policy", "embedded/models/policy", "--segmenter", "embedded/models/segmenter", "--base")
    done = CliRunner().invoke(whole_app, ["predict", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), *models])
    assert done.exit_code == 0, done.output
    assert "the response does not parse" in done.output, "the base describes and knows no tags"
    assert listing(tmp_path / "out") == ["maps/a.png", "overlays/a.png", "response.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.png", "--task", "depth"), "unknown task 'depth'"),
        (("c.png",), "c.png is missing"),
        (("text.png",), "text.png is not a readable image"),
        (("a.png", "other/a.png"), "two pictures are called a"),
        (("a.png", "--adapter", "nowhere"), "nowhere: there is no such folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(command: Any, arguments: tuple[str, ...], message: str) -> None:
    done = command(*arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output


def test_nothing_is_written_over_a_picture(command: Any, tmp_path: Path) -> None:
    """Whatever folder is named, the pictures stay; where a result would stand in the place of one, it is refused."""
    before = Path("a.png").read_bytes()
    assert command("a.png", "--out", ".").exit_code == 0
    assert Path("a.png").read_bytes() == before
    first = Path("maps/a.png").read_bytes()
    done = command("maps/a.png", "b.png", "--out", ".")
    assert done.exit_code == 1
    assert "maps/a.png would be written over maps/a.png" in done.output
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/maps").symlink_to(tmp_path / "maps")
    assert command("maps/a.png", "--out", "linked").exit_code == 1
    assert Path("maps/a.png").read_bytes() == first
    (tmp_path / "hard/overlays").mkdir(parents=True)
    (tmp_path / "hard/overlays/b.png").hardlink_to(tmp_path / "b.png")
    assert command("b.png", "--out", "hard").exit_code == 1
    assert not (tmp_path / "hard/response.json").exists()


def test_stems_that_are_one_file_elsewhere_are_refused(command: Any) -> None:
    for names in (("x.png", "x.jpg"), ("x.png", "X.png"), ("\u00e9.png", "e\u0301.png")):
        for name in names:
            picture().save(name)
        done = command(*names, "--out", "out")
        assert done.exit_code == 1
        assert "their results would overwrite each other" in done.output
        assert not Path("out").exists()


@pytest.mark.parametrize("task", ["sod", "sis"])
def test_what_predict_writes_can_be_evaluated(command: Any, task: str, tmp_path: Path) -> None:
    assert command("a.png", "b.png", "--task", task, "--out", "out", said=task).exit_code == 0
    (tmp_path / "gt").mkdir()
    for name in ("a", "b"):
        truth = np.ones(SIZE, np.uint8) * (255 if task == "sod" else 1)
        truth[12:] = truth[12:] if task == "sod" else 2
        truth[:, :4] = 0
        Image.fromarray(truth).save(tmp_path / "gt" / f"{name}.png")
    for pred in ("out", "out/maps"):
        call = ["evaluate", "--pred", pred, "--gt", "gt", "--task", task, "--bootstrap", "0", "--json", "n.json"]
        done = CliRunner().invoke(whole_app, call)
        assert done.exit_code == 0, done.output
        (result,) = json.loads(Path("n.json").read_text())["results"]
        assert result["images"] == 2
        assert result["measures"]["MAE" if task == "sod" else "AP50"] == pytest.approx(1 / 8 if task == "sod" else 1)


def test_what_was_done_is_kept_and_told_when_a_later_picture_fails(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Segmenter.encode
    seen = []

    def encode(self: Segmenter, images: list[Image.Image]) -> list[tuple[int, int]]:
        seen.append(len(images))
        if len(seen) > 1:
            raise RuntimeError("out of luck")
        return whole(self, images)

    monkeypatch.setattr(Segmenter, "encode", encode)
    done = command("a.png", "b.png", "--out", "out", "--batch", "1")
    assert done.exit_code == 1
    assert "unexpected RuntimeError at b.png: out of luck" in done.output
    (entry,) = json.loads(Path("out/response.json").read_text())["answers"]
    assert entry["images"] == ["a.png"]
    assert listing(Path("out")) == ["maps/a.png", "overlays/a.png", "response.json"]


def test_a_large_group_is_divided_as_in_the_training(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    parts = prompts(collect(paths, "cosod"), "cosod", 4)
    assert [[picture.path for picture in part] for part in parts] == chunks(paths, 4)
    assert [len(part) for part in prompts(collect(paths, "sod"), "sod", 4)] == [1] * 5


def test_a_file_that_no_run_has_written_stays(command: Any, tmp_path: Path) -> None:
    """Ground truth lies in `masks/` as well; what an earlier run has written, killed or not, is written again."""
    for name in ("set/images/a.png", "set/masks/a.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        picture().save(name)
    truth = Path("set/masks/a.png").read_bytes()
    call = ("set/images", "--out", "set", "--format")
    for before in ((), ("map",)):  # also where a run has written another format there
        for one in before:
            assert command(*call, one).exit_code == 0
        done = command(*call, "map,mask")
        assert done.exit_code == 1
        assert "set/masks/a.png is there, and no earlier run has written it" in " ".join(done.output.split())
        assert Path("set/masks/a.png").read_bytes() == truth
    picture().save("set/images/b.png")
    Path("set/maps/b.png").write_bytes(truth)
    done = command(*call, "map")
    assert "set/maps/b.png is there, and no earlier run has written it" in " ".join(done.output.split())
    assert Path("set/maps/b.png").read_bytes() == truth, "though a run has written a map of another picture there"
    Path("set/maps/b.png").unlink()
    Path("set/masks/a.png").unlink()
    for written in ("map,mask", "map", "map,mask"):
        assert command(*call, written).exit_code == 0
    Path("set/coco.json").write_text("{}")
    assert command(*call, "coco").exit_code == 1
    Path("new").mkdir()
    Path("new/response.json").write_text("{}")
    assert command("a.png", "--out", "new").exit_code == 1


def test_what_a_killed_run_has_written_is_written_again(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as killed:
        killed.setattr("saliency_r1.prediction.record.Record.add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert command("a.png", "--out", "out").exit_code == 130
    assert Path("out/maps/a.png").is_file()
    for options in ((), ("--skip-existing",)):
        assert command("a.png", "--out", "out", *options).exit_code == 0


@pytest.mark.parametrize("task", ["sod", "sis"])
def test_what_is_no_number_is_said_of_its_picture_and_written_nowhere(
    command: Any, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    broken = Segment(np.full(SIZE, np.nan, np.float32), float("nan"))
    monkeypatch.setattr(Segmenter, "_draw", lambda *_: broken)
    done = command("a.png", "b.png", "--out", "out", "--task", task, said=task)
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert "the segmenter gives NaN or infinity: damaged weights" in said
    assert "(a.png)" in said
    assert "(b.png)" in said
    assert not Path("out/response.json").exists()


def test_odd_words_of_a_command_line(command: Any) -> None:
    assert "an empty name is no picture" in command("").output
    long = "x" * 300 + ".png"
    done = command(long, "a.png", "--out", "out")
    assert done.exit_code == 1
    assert "2 of 2" not in done.output
    assert Path("out/maps/a.png").is_file(), "the others have their results"
    done = command("a.png", "--base", "--adapter", "mine")
    assert done.exit_code == 2
    assert "--base is the policy without an adapter" in done.output


def test_a_group_without_an_answer_is_asked_about_in_halves(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four images; the answer to two parses, but for the half with the narrow one."""
    whole, narrow = "cosod", (24, 16)

    def prompt(self: Policy, images: list[Image.Image], instruction: str) -> str:
        alone = len(images) == 2 and not any(image.size == narrow[::-1] for image in images)
        return SAID[whole] if alone else "I see nothing of note."

    monkeypatch.setattr(Policy, "prompt", prompt)
    monkeypatch.setattr(
        Policy, "generate", lambda self, prompts, *_: [SimpleNamespace(text=prompt) for prompt in prompts]
    )
    for group in ("good", "bad"):
        Path(group).mkdir()
        for name in "1234":
            picture(*(narrow if group == "bad" and name == "4" else SIZE)).save(f"{group}/{name}.png")
    call = ("--task", "cosod", "--out", "out", "--format", "map")
    done = command("good", *call)
    (entry,) = json.loads(Path("out/response.json").read_text())["answers"]
    assert (entry["parts"], entry["attempts"], entry["errors"]) == ([2, 2], 4 + 1 + 1, [])
    images = [f"good/{name}.png" for name in "1234"]
    assert [(item["image"], item["text"]) for item in entry["expressions"]] == [
        *zip(images, ["top", "bottom"] * 2, strict=True)
    ]
    assert np.array(Image.open("out/maps/good/4.png"))[:, 0].tolist() == [0] * 12 + [255] * 12
    assert "parse" not in done.output

    done = command("good", "bad", *call)
    assert done.exit_code == 0
    assert "top; bottom, of a part of the group nothing, the response does not parse" in done.output
    assert "1 of 2 answers do not parse: their maps are empty" in done.output
    assert np.array(Image.open("out/maps/bad/1.png")).max() == 255
    assert np.array(Image.open("out/maps/bad/4.png")).max() == 0
    done = command("a.png", "b.png", "good/1.png", *call, said="mute")
    (entry,) = json.loads(Path("out/response.json").read_text())["answers"]
    assert "parts" not in entry, "one picture shares nothing"
    assert "1 of 1 answers do not parse" in done.output


def test_what_does_not_parse_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = predictor("sod")
    good, bad = SAID["sod"], "I see nothing of note."
    answers = {"first": [good], "third": [bad, bad, good], "never": [bad] * 4}
    said: dict[str, list[Any]] = {name: [] for name in answers}

    def generate(prompts: list[str], most: int, seeds: Any = None, temperature: float = 1.0) -> list[SimpleNamespace]:
        for prompt, seed in zip(prompts, seeds or [None] * len(prompts), strict=True):
            said[prompt].append((seed, temperature))
        return [SimpleNamespace(text=answers[prompt][len(said[prompt]) - 1]) for prompt in prompts]

    names = iter(answers)
    monkeypatch.setattr(asked.policy, "generate", generate)
    monkeypatch.setattr(asked.policy, "prompt", lambda images, instruction: next(names))
    first, third, never = asked.predict_many([[picture()]] * 3, "sod")
    assert not isinstance(first, Failure)
    assert not isinstance(third, Failure)
    assert not isinstance(never, Failure)
    assert [one.attempts for one in (first, third, never)] == [1, 3, 4]
    assert said["first"] == [(None, 1.0)], "an answer that parses is greedy"
    assert said["third"] == [(None, 1.0), (2, 0.7), (3, 0.7)]
    assert np.array_equal(first.maps[0], third.maps[0])
    assert never.text == bad
    assert never.errors
