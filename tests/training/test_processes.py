"""Several processes: the same training as in one, and no waiting for a dead one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from processes import alive, until

HERE = Path(__file__).parent
LAUNCH = [sys.executable, "-m", "saliency_r1.launch", "--nproc-per-node"]

pytestmark = pytest.mark.slow


def start(count: int, *arguments: str | Path) -> subprocess.Popen[str]:
    launch = [*LAUNCH, str(count)] if count > 1 else [sys.executable]
    paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [*launch, *map(str, arguments)], env=os.environ | {"PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True
    )


def trained(count: int, trainer: str, folder: Path) -> tuple[dict[str, torch.Tensor], list[dict]]:
    folder.mkdir()
    process = start(count, HERE / "two_processes.py", folder, trainer)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return torch.load(folder / "weights.pt", weights_only=True), json.loads((folder / "table.json").read_text())


@pytest.mark.parametrize("trainer", ["sft", "cgpo"])
def test_two_processes_with_their_shares_follow_one_with_the_whole_batch(trainer: str, tmp_path: Path) -> None:
    one, table = trained(1, trainer, tmp_path / "one")
    two, shared = trained(2, trainer, tmp_path / "two")
    assert len(table) == len(shared) == 10
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-5), name
    for row, other in zip(table, shared):
        drawn, again = row.pop("rollouts", []), other.pop("rollouts", [])
        assert [rollout["response"] for rollout in drawn] == [rollout["response"] for rollout in again]
        assert row == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("how", ["one of them", "the launcher"])
def test_a_killed_process_takes_the_others_along(how: str, tmp_path: Path) -> None:
    launcher = start(2, HERE / "two_processes.py", tmp_path, "cgpo")
    until(lambda: len(psutil.Process(launcher.pid).children()) == 2, 60)
    workers = [worker.pid for worker in psutil.Process(launcher.pid).children()]
    until(lambda: (tmp_path / "1").exists(), 60)  # both have met
    os.kill(workers[1] if how == "one of them" else launcher.pid, signal.SIGKILL)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    if how == "one of them":
        assert "ended with exit code" in errors
    until(lambda: not any(map(alive, workers)), 60)
