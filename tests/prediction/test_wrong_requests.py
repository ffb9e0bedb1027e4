"""What cannot be answered as it is asked for, by a call or on the command line, and what is said of it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_predict import command, picture, predictor

from saliency_r1.prediction.predictor import Failure, PredictError
from saliency_r1.prediction.run import alone

__all__ = ["command"]  # a fixture


ARRAY = np.zeros((24, 32, 3), np.uint8)


@pytest.mark.parametrize("source", ["a.png", Path("a.png"), picture(), ARRAY, (name for name in ["a.png"]), None])
def test_what_is_no_list_is_no_prompt(source: Any) -> None:
    """A text is a sequence as well: of as many pictures as it has letters."""
    with pytest.raises(PredictError, match=r"a prompt is a list of pictures, got \w+ by itself: write \[picture\]"):
        predictor("sod").predict(source, "sod")
    outcome, other = predictor("sod").predict_many([source, [picture()]], "sod")
    assert isinstance(outcome, Failure)
    assert not isinstance(other, Failure)


def test_an_array_is_no_picture_and_costs_the_others_nothing() -> None:
    array: Any = ARRAY
    first, second = predictor("sod").predict_many([[array], [picture()]], "sod")
    assert isinstance(first, Failure)
    assert str(first.error) == "expected a picture of Pillow or the path of a file, got ndarray"
    assert not isinstance(second, Failure)


def test_a_picture_that_was_closed_or_is_cut_off_costs_the_others_nothing(tmp_path: Path) -> None:
    """Prompts are read ahead, a batch at a time: `with Image.open(...) as image: yield [image]` closes them before."""
    picture().save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])

    def given() -> Iterator[list[Image.Image]]:
        with Image.open(tmp_path / "a.png") as image:
            yield [image]
        yield [Image.open(tmp_path / "cut.png")]
        yield [picture()]

    closed, cut, whole = predictor("sod").predict_many(given(), "sod")
    for outcome in (closed, cut):
        assert isinstance(outcome, Failure)
        assert isinstance(outcome.error, PredictError)
        assert "the picture cannot be read" in str(outcome.error)
        assert "it stays open until its answer is there" in str(outcome.error)
    assert not isinstance(whole, Failure)


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


def test_a_file_is_no_folder_for_results(command: Any) -> None:
    done = command("a.png", "--out", "b.png")
    assert done.exit_code == 1
    assert "b.png is no folder: name one for the results (--out)" in done.output


def test_of_a_full_disk_is_said_which_one(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(
            "saliency_r1.prediction.formats.write_map", lambda *_: _raise(OSError(28, "No space left on device"))
        )
        done = command("a.png", "--out", "out")
        assert done.exit_code == 1
        assert "(in out; once there is room, --skip-existing goes on from here)" in " ".join(done.output.split())
    assert command("a.png", "--out", "out", "--skip-existing").exit_code == 0


def test_a_terminal_or_file_that_takes_no_line_is_not_the_folder_of_results(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.print", _full_unless_error)
    done = command("a.png", "--out", "out")
    assert done.exit_code == 1
    assert done.stderr == "no space left on device (standard output)\n"
    assert Path("out/response.json").is_file()


def _full_unless_error(text: str, file: Any, flush: bool) -> None:
    if file is sys.stdout:
        raise OSError(28, "No space left on device")
    file.write(f"{text}\n")


def test_a_device_that_is_not_there_is_told_as_it_was_asked_for(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    done = command("a.png", "--device", "mps", "--out", "out")
    assert done.exit_code == 1
    said = "--device mps, and this machine has no Apple GPU that torch can use; set it to auto or cpu\n"
    assert done.output == said
    assert not Path("out").exists()


def _raise(error: Exception) -> None:
    raise error
