"""The segmenter's training in two processes: it follows one, and goes on where it was stopped with any number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes"]

pytestmark = pytest.mark.slow


def train(count: int, folder: Path, pieces: Path, stop: int = -1) -> None:
    folder.mkdir(exist_ok=True)
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    port = ["--main_process_port", "0"] if count > 1 else []
    command = [*ACCELERATE, str(count), *port, str(HERE / "train_pictures.py"), str(folder), str(pieces), str(stop)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[list[float]], list[list[int]]]:
    lines = json.loads((folder / "lines.json").read_text())
    figures = [[float(word) for word in line.split()[3:-2:2]] for line in lines]
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return torch.load(folder / "weights.pt", weights_only=True), figures, steps


def test_two_processes_follow_one_and_either_goes_on_from_the_other(pieces, tmp_path):
    train(1, tmp_path / "one", pieces)
    weights, figures, steps = outcome(tmp_path / "one")
    assert len(figures) == 3
    assert figures[0][0] > figures[-1][0], "nothing is learnt"
    assert steps == [[step, 0] for step in range(1, 7)]
    train(2, tmp_path / "two", pieces)
    for first, second in ((1, 2), (2, 1)):
        train(first, tmp_path / f"{first}{second}", pieces, stop=3)
        train(second, tmp_path / f"{first}{second}", pieces)
    for name in ("two", "12", "21"):
        others, again, done = outcome(tmp_path / name)
        for key, value in weights.items():
            assert torch.allclose(value, others[key], atol=1e-5), (name, key)
        assert again == [pytest.approx(line, abs=2e-4) for line in figures[-len(again) :]]
        assert {index for _, index in done} == {0}
        assert [path.name for path in (tmp_path / name / "run").iterdir() if not path.name.startswith(".")] == [
            "checkpoint"
        ]
