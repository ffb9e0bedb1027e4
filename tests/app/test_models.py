"""Which models the page has: those that `predict --model` takes, or what was trained here; nothing twice in memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rendered import EMBEDDED
from typer.testing import CliRunner

from saliency_r1.app.page import Page
from saliency_r1.app.turns import Models
from saliency_r1.app.uploads import Upload
from saliency_r1.cli.app import app
from saliency_r1.params import Lora
from saliency_r1.policy import Policy
from saliency_r1.prediction.models import Chosen, Settings, choose, load
from saliency_r1.training.optimiser import save_adapter, wrap

ROOT = Path(__file__).parents[2]
POLICY, SEGMENTER = EMBEDDED / "models/policy", EMBEDDED / "models/segmenter"
LORA = Lora(r=2, alpha=4, dropout=0.0, targets=r".*language_model.*\.q_proj", modules_to_save=())
LOADING = {"min_pixels": 1024, "max_pixels": 25600}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as `saliency-r1 export` writes it."""
    folder = tmp_path_factory.mktemp("handed-on")
    adapter = folder / "cgpo/adapter"
    save_adapter(wrap(Policy.load(POLICY), LORA, seed=1), adapter)
    metrics = folder / "metrics"
    metrics.mkdir()
    (metrics / "metrics.json").write_text('{"cgpo": {}}')
    call = ["export", folder / "exported", "--params", ROOT / "params.yaml", "--policy", POLICY]
    call += ["--segmenter", SEGMENTER, "--adapter", adapter, "--metrics", metrics]
    done = CliRunner().invoke(app, list(map(str, call)))
    assert done.exit_code == 0, done.output
    return folder / "exported"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the page would be opened with."""
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    calls: list[Any] = []
    monkeypatch.setattr("saliency_r1.app.page.serve", lambda *given: calls.append(given))
    return calls


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["app", *map(str, words)])


def test_a_model_that_was_handed_on_answers_as_predict_does(exported: Path, served: list[Any], samples: Any) -> None:
    done = run("--model", exported)
    assert done.exit_code == 0, done.output
    assert f"shows {exported}" in done.output
    ((models, most, _, _),) = served
    assert most == choose(str(exported)).settings.chunk
    folder, rows = samples
    picture = Image.open(folder / rows[0]["images"][0]).convert("RGB")
    turn = models.ask(str(exported), [Upload("one", picture)], rows[0]["task"])
    assert turn.answer.text == load(choose(str(exported))).predict([picture], rows[0]["task"]).text


def test_the_archive_of_a_model_in_a_folder_is_a_file(exported: Path, tmp_path: Path) -> None:
    """A name with slashes in it is no path below the folder of the archives."""
    models = Models.load({str(exported): choose(str(exported))})
    Image.new("RGB", (64, 64), "red").save(tmp_path / "cat.png")
    shown = Page(models, 3, tmp_path).ask([tmp_path / "cat.png"], "sod", str(exported), "nobody")
    place = Path(shown[5]["value"])
    assert place.is_file()
    assert place.parent.parent == tmp_path


def test_what_two_models_share_is_in_memory_once() -> None:
    one = Chosen("one", POLICY, None, SEGMENTER, Settings(loading=LOADING))
    coarse = replace(one, settings=replace(one.settings, loading={"min_pixels": 1024, "max_pixels": 4096}))
    speakers = Models.load({"one": one, "same": one, "coarse": coarse}).speakers
    assert speakers["one"].policies is speakers["same"].policies
    assert speakers["one"].segmenter is speakers["same"].segmenter is speakers["coarse"].segmenter
    assert speakers["coarse"].policies is not speakers["one"].policies
    assert speakers["coarse"].policies.loading["max_pixels"] == 4096


def test_two_models_are_compared_and_a_pair_of_folders_is_named(
    exported: Path, served: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # away from the adapters of a pipeline that has run in this tree
    done = run("--model", exported, "--model", POLICY, "--segmenter", SEGMENTER)
    assert done.exit_code == 0, done.output
    assert served[0][0].names == [str(exported), str(POLICY)]
    done = run("--policy", POLICY, "--segmenter", SEGMENTER, "--params", ROOT / "params.yaml")
    assert done.exit_code == 0, done.output
    assert served[1][0].names == ["base"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "nowhere"], "nowhere: there is no such folder, and it is no name of the hub"),
        (["--model", POLICY], "is a policy alone: name a segmenter"),
        (["--model", POLICY, "--adapter", "a=b"], "give it without --policy and --adapter"),
        (["--policy", POLICY, "--segmenter", "nowhere"], "nowhere: there is no such folder"),
    ],
)
def test_a_wrong_request_ends_in_a_line(words: list[object], said: str, served: list[Any]) -> None:
    done = run(*words)
    assert done.exit_code == 1
    assert said in " ".join(done.output.split())
    assert not served
