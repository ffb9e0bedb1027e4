"""What an exported folder and its card say: whose results, of which weights, in which type."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from saliency_r1.cli.app import app
from saliency_r1.params import load_params
from saliency_r1.prediction.card import write_card
from saliency_r1.prediction.export import Sources, export
from saliency_r1.prediction.models import Chosen, Settings, identity, manifest
from saliency_r1.prediction.predictor import PredictError

ROOT = Path(__file__).parents[2]
ORIGIN = {"source": "policy"}
ABOUT = {
    "format": 1, "form": "adapter", "base": ORIGIN, "segmenter": ORIGIN | {"folder": "segmenter"}, "dtype": "float32",
    "loading": {}, "sizes": {"max_new_tokens": 64, "cosod_chunk": 5}, "tags": [], "instructions": {},
}  # fmt: skip


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sources]:
    """What would be exported, in a project whose run has results; `old/` is another run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for folder in ("download/models/policy", "download/models/segmenter", "cgpo/adapter", "metrics"):
        (tmp_path / "artifacts" / folder).mkdir(parents=True)
    (tmp_path / "old/cgpo/adapter").mkdir(parents=True)
    (tmp_path / "artifacts/metrics/metrics.json").write_text(json.dumps({"sft": {}, "cgpo": {"mine": {"Sm": 0.9}}}))
    found: list[Sources] = []

    def export(sources: Sources, _: Any, out: Path, *__: Any) -> dict[str, Any]:
        found.append(sources)
        out.mkdir()
        return {"form": "adapter"}

    monkeypatch.setattr("saliency_r1.prediction.export.export", export)
    return found


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ((), "cgpo"),
        (("--adapter", "old/cgpo/adapter"), ""),
        (("--adapter", "old/cgpo/adapter", "--results", "sft"), "sft"),
    ],
)
def test_an_adapter_of_another_run_has_not_the_results_of_this_one(
    asked: list[Sources], words: tuple[str, ...], shown: str
) -> None:
    done = CliRunner().invoke(app, ["export", "out", *words])
    assert done.exit_code == 0, done.output
    assert asked[0].model == shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--results", "cgppo"), "--results cgppo: artifacts/metrics/metrics.json has no results of this name"),
        (("--metrics", "artifacts/metrics/metrics.json"), "there is no metrics.json in this folder"),
    ],
)
def test_results_that_are_named_and_not_there_are_refused(
    asked: list[Sources], words: tuple[str, ...], said: str
) -> None:
    done = CliRunner().invoke(app, ["export", "out", *words])
    assert done.exit_code == 1
    assert said in " ".join(done.output.split())
    assert not asked


@pytest.mark.parametrize("out", [".", "..", "../here", "linked"])
def test_the_folder_one_is_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if out == "linked":
        Path(out).symlink_to(".")
    sources = Sources(Path("policy"), Path("adapter"), Path("segmenter"), Path("metrics"), "")
    with pytest.raises(PredictError, match=r"is the folder you are in, or above it.* name another one"):
        export(sources, load_params(ROOT / "params.yaml"), Path(out), merge=False)


def test_a_card_has_no_name_of_a_folder_that_is_gone(tmp_path: Path) -> None:
    """The folder is written aside, as `.mine.new`."""
    card = tmp_path / ".mine.new/README.md"
    card.parent.mkdir()
    write_card(card, ABOUT, tmp_path, "", {}, "apache-2.0")
    assert ModelCard(card.read_text()).data.model_name is None
    assert "mine.new" not in card.read_text()


def test_another_base_below_an_exported_adapter_is_another_model(tmp_path: Path) -> None:
    for folder in (".", "base", "segmenter"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "model.safetensors").write_bytes(b"one")
    chosen = Chosen("mine", tmp_path, None, tmp_path / "segmenter", Settings())
    plain = identity(chosen)
    (tmp_path / "base/model.safetensors").write_bytes(b"two")
    assert identity(chosen) == plain, "what lies below a whole model is not read with it"
    (tmp_path / "adapter_config.json").write_text("{}")
    first = identity(chosen)
    (tmp_path / "base/model.safetensors").write_bytes(b"three")
    assert identity(chosen) != first


def test_a_type_that_nothing_is_computed_in_is_refused_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "saliency_r1.json").write_text(json.dumps(ABOUT))
    assert manifest(tmp_path)["dtype"] == "float32"
    (tmp_path / "saliency_r1.json").write_text(json.dumps(ABOUT | {"dtype": "float16"}))
    with pytest.raises(PredictError, match=r"saliency_r1\.json is not what `saliency-r1 export` writes .*dtype"):
        manifest(tmp_path)
