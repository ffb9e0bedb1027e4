"""The scripts of sft and cgpo: what they refuse before any work, and what they keep until a result is in place."""

import importlib
from pathlib import Path

import polars as pl
import pytest

from saliency_r1.params import load_params
from saliency_r1.training.errors import TrainingError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """The script of SFT in a folder with the tables that it reads; `splits` are those of its samples."""
    params = load_params(ROOT / "params.yaml")
    monkeypatch.syspath_prepend(ROOT / "stages")  # as when it is run
    monkeypatch.chdir(tmp_path)
    script = importlib.import_module("stages.sft")

    def main(*splits):
        rows = [{"sample_id": f"x/{split}/{n}", "split": split, "kept": True, "response": "a"}
                for n, split in enumerate(splits)]  # fmt: skip
        for folder in ("download", "annotate"):
            Path(f"artifacts/{folder}").mkdir(parents=True)
            pl.DataFrame(rows).write_parquet(f"artifacts/{folder}/table.parquet")
        script.main(params)

    return script, main


def test_sft_without_a_validation_sample_is_refused_before_the_base_is_loaded(stage, monkeypatch):
    script, main = stage
    monkeypatch.setattr(script.Policy, "load", lambda *args, **rest: pytest.fail("the base was loaded"))
    with pytest.raises(TrainingError, match=r"no validation sample.*download\.datasets"):
        main("train", "test")


@pytest.mark.parametrize("fails", ["save_adapter", "processes.map_sharded"])
def test_checkpoints_stay_until_the_result_is_in_place(stage, monkeypatch, fails):
    script, main = stage

    def train(policy, environment, examples, options, seed, runs):
        runs.mkdir(parents=True, exist_ok=True)
        (runs / "step-0000001.pt").write_bytes(b"state")
        yield {"step": 1, "loss": 1.0}

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(script.Policy, "load", lambda *args, **rest: None)
    monkeypatch.setattr(script, "wrap", lambda *args: None)
    monkeypatch.setattr(script.Environment, "load", lambda *args: None)
    monkeypatch.setattr(script.sft, "train", train)
    monkeypatch.setattr(script.processes, "map_sharded", lambda rows, work: [{"reward": 0.5, "parsed": True}])
    monkeypatch.setattr(script, "save_adapter", lambda policy, folder: None)
    owner, _, name = fails.rpartition(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(script, owner) if owner else script, name, full)
        with pytest.raises(OSError, match="no space"):
            main("train", "val")
    kept = [path.read_bytes() for path in Path("runs/sft").glob("*/step-*.pt")]
    assert kept == [b"state"]
    assert not Path("artifacts/sft").exists()
    script.main(load_params(ROOT / "params.yaml"))
    assert Path("artifacts/sft/table.parquet").exists()
    assert not list(Path("runs/sft").glob("*/step-*.pt"))
