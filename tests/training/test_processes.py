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
LAUNCH = [sys.executable, "-m", "saliency_r1.runtime.launch", "--nproc-per-node"]
Trained = tuple[dict[str, torch.Tensor], list[dict]]

pytestmark = pytest.mark.slow


def start(count: int, *arguments: str | Path, sharded: bool = False) -> subprocess.Popen[str]:
    launch = [*LAUNCH, str(count)] if count > 1 else [sys.executable]
    environment = os.environ | ({"ACCELERATE_USE_FSDP": "true"} if sharded else {})
    return subprocess.Popen([*launch, *map(str, arguments)], env=environment, stderr=subprocess.PIPE, text=True)


def trained(count: int, trainer: str, folder: Path, batch_size: int = 5, sharded: bool = False) -> Trained:
    """The weights and the table of a training, which goes on if the folder holds the checkpoints of another."""
    folder.mkdir(exist_ok=True)
    process = start(count, HERE / "two_processes.py", folder, trainer, str(batch_size), sharded=sharded)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return torch.load(folder / "weights.pt", weights_only=True), json.loads((folder / "table.json").read_text())


def assert_same(one: Trained, two: Trained) -> None:
    (weights, table), (others, shared) = one, two
    assert len(table) == len(shared) == 10
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert torch.allclose(value, others[name], atol=1e-5), name
    for row, other in zip(table, shared):
        drawn, again = row.get("rollouts", []), other.get("rollouts", [])
        assert [rollout["response"] for rollout in drawn] == [rollout["response"] for rollout in again]
        row, other = ({key: value for key, value in r.items() if key != "rollouts"} for r in (row, other))
        assert row == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("trainer", ["sft", "cgpo", "own"])
def test_two_processes_with_their_shares_follow_one_with_the_whole_batch(trainer: str, tmp_path: Path) -> None:
    assert_same(trained(1, trainer, tmp_path / "one"), trained(2, trainer, tmp_path / "two"))


@pytest.mark.parametrize("trainer", ["full", "cgpo", "own"])
def test_weights_split_over_two_processes_follow_the_whole_ones(trainer: str, tmp_path: Path) -> None:
    one = trained(1, trainer, tmp_path / "one", 4)
    assert_same(one, trained(2, trainer, tmp_path / "split", 4, sharded=True))
    assert all(held < 0.51 for held in json.loads((tmp_path / "split" / "held.json").read_text()))
    for folder in ("one", "split"):  # each goes on from the checkpoint before the last in the other's way
        max((tmp_path / folder / "runs").glob("step-*.pt")).unlink()
    assert_same(one, trained(1, trainer, tmp_path / "split", 4))
    assert_same(one, trained(2, trainer, tmp_path / "one", 4, sharded=True))


def test_lora_in_float32_on_a_split_base_in_bfloat16_with_checkpointed_layers(tmp_path: Path) -> None:
    """What the profiles of the paper's size are under FSDP: it follows one process as far as bfloat16 lets it."""
    (weights, table), (others, split) = (
        trained(count, "half-sft", tmp_path / str(count), 4, sharded=count > 1) for count in (1, 2)
    )
    assert all(held < 0.6 for held in json.loads((tmp_path / "2" / "held.json").read_text()))
    assert {value.dtype for name, value in others.items() if "lora" in name} == {torch.float32}
    assert {value.dtype for name, value in others.items() if "lora" not in name} == {torch.bfloat16}
    assert [row["loss"] for row in split] == pytest.approx([row["loss"] for row in table], rel=0.01)
    for name, value in weights.items():
        assert "lora" in name or torch.equal(value, others[name]), f"{name} is frozen"
    # Gradients that are rounding alone go either way: of all weights together, not of each.
    pairs = [(value, others[name]) for name, value in weights.items() if "lora_B" in name]
    apart = sum((one - other).square().sum().item() for one, other in pairs) ** 0.5
    gone = sum(one.square().sum().item() for one, _ in pairs) ** 0.5  # from zero
    assert gone > 0
    assert apart < 0.2 * gone
    max((tmp_path / "2" / "runs").glob("step-*.pt")).unlink()
    again, resumed = trained(2, "half-sft", tmp_path / "2", 4, sharded=True)
    assert resumed == split
    assert all(torch.equal(value, again[name]) for name, value in others.items())


def test_cgpo_on_a_split_base_in_bfloat16_measures_what_it_sampled(tmp_path: Path) -> None:
    _, table = trained(2, "half-cgpo", tmp_path / "two", 4, sharded=True)
    assert len(table) == 10
    assert all(0 < row["sampling_gap"] < 0.02 and row["grad_norm"] > 0 for row in table)


def test_a_batch_that_cannot_be_split_evenly_is_named(tmp_path: Path) -> None:
    process = start(2, HERE / "two_processes.py", tmp_path, "sft", "5", sharded=True)
    _, errors = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "sft.batch_size = 5 with 2 processes: FSDP needs a multiple of their number" in errors


@pytest.mark.parametrize("how", ["one of them", "the launcher"])
def test_a_killed_process_takes_the_others_along(how: str, tmp_path: Path) -> None:
    launcher = start(2, HERE / "two_processes.py", tmp_path, "cgpo", "5")
    until(lambda: len(psutil.Process(launcher.pid).children()) == 2, 60)
    workers = [worker.pid for worker in psutil.Process(launcher.pid).children()]
    until(lambda: (tmp_path / "1").exists(), 60)  # both have met
    os.kill(workers[1] if how == "one of them" else launcher.pid, signal.SIGKILL)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    if how == "one of them":
        assert "ended with exit code" in errors
    until(lambda: not any(map(alive, workers)), 60)
