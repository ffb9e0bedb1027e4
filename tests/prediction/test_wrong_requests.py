"""What cannot be answered as it is asked for, by a call or on the command line, and what is said of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_predict import command, picture, predictor

from saliency_r1.prediction.predictor import Failure, PredictError
from saliency_r1.prediction.run import alone

__all__ = ["command"]  # a fixture


@pytest.mark.parametrize("source", ["a.png", Path("a.png"), picture()])
def test_a_picture_by_itself_is_no_prompt(source: Any) -> None:
    """A text is a sequence as well: of as many pictures as it has letters."""
    with pytest.raises(PredictError, match=r"a prompt is a list of pictures, got \w+ by itself: write \[picture\]"):
        predictor("sod").predict(source, "sod")
    (outcome,) = predictor("sod").predict_many([source], "cosod")
    assert isinstance(outcome, Failure)


def test_an_array_is_no_picture_and_costs_the_others_nothing() -> None:
    array: Any = np.zeros((24, 32, 3), np.uint8)
    first, second = predictor("sod").predict_many([[array], [picture()]], "sod")
    assert isinstance(first, Failure)
    assert str(first.error) == "expected a picture of Pillow or the path of a file, got ndarray"
    assert not isinstance(second, Failure)


def test_no_prompts_at_once_are_no_answers_and_refused() -> None:
    with pytest.raises(PredictError, match="batch = 0, expected at least 1"):
        predictor("sod").predict_many([[picture()]], "sod", batch=0)


@pytest.mark.parametrize("device", ["cuda:1", "gpu"])
def test_an_unknown_device_is_a_wrong_command_line(command: Any, device: str) -> None:
    done = command("a.png", "--device", device)
    assert done.exit_code == 2
    assert f"'{device}' is not one of 'auto', 'cpu', 'cuda', 'mps'" in " ".join(done.output.replace("│", "").split())
    assert "unexpected" not in done.output


def test_the_segmenter_may_be_of_the_hub_beside_models_of_the_pipeline(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []
    monkeypatch.setattr("saliency_r1.prediction.hub.fetch", lambda name, files: fetched.append(name) or Path())
    assert command("a.png", "--segmenter", "them/segmenter@v1").exit_code == 0
    assert fetched == ["them/segmenter@v1"]
    assert command("a.png", "--segmenter", "them/segmenter", "--policy", "nowhere").exit_code == 1
    assert fetched == ["them/segmenter@v1"], "what is missing here is said first"


def test_a_second_run_into_the_same_folder_is_refused(command: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with alone(tmp_path / "out"):
        done = command("a.png", "--out", "out")
        assert done.exit_code == 1
        assert "another run is writing into out" in done.output
    assert command("a.png", "--out", "out").exit_code == 0
