"""A fresh clone of HEAD, the smoke profile, `dvc repro`: what a person gets who has just cloned the project."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from clones import Clone, ran
from columns import assert_table

from saliency_r1.params import load_params

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# What a run with other parameters may change in git: the parameters, and what records the run.
RECORDS = {"params.yaml", "dvc.lock", "artifacts/metrics/metrics.json"}


def test_everything_is_there(clone: Clone) -> None:
    artifacts = clone.folder / "artifacts"
    for stage in ("download", "annotate", "sft", "cgpo", "masks", "metrics"):
        assert (artifacts / stage / "table.parquet").exists()
        assert (artifacts / "checks" / f"{stage}.json").exists()
    for path in ("sft/adapter", "cgpo/adapter", "sft/curves.csv", "cgpo/curves.csv", "report/index.html"):
        assert (artifacts / path).exists()
    assert "Sm" in clone.run("dvc", "metrics", "show")
    page = clone.run("dvc", "plots", "show", "--json")
    assert "SFT, loss" in page
    assert "Precision and recall" in page
    assert "F over thresholds" in page


@pytest.mark.parametrize("stage", ["download", "annotate", "sft", "cgpo", "masks", "metrics"])
def test_the_table_of_a_stage_has_the_columns_of_the_architecture(stage: str, clone: Clone) -> None:
    assert_table(stage, pl.read_parquet(clone.folder / "artifacts" / stage / "table.parquet"))


def test_git_is_clean_but_for_the_parameters_and_the_records_of_the_run(clone: Clone) -> None:
    assert clone.changed() <= RECORDS


def test_a_second_run_does_nothing(clone: Clone) -> None:
    output = clone.run("dvc", "repro")
    assert ran(output) == []
    assert "up to date" in output
    assert clone.changed() <= RECORDS


def test_a_wrong_key_ends_before_any_work_and_leaves_results_alone(clone: Clone) -> None:
    params = clone.folder / "params.yaml"
    good, results = params.read_text(), clone.results()
    params.write_text(good.replace("  updates:", "  updatez:"))
    try:
        output = clone.run("dvc", "repro", check=False)
    finally:
        params.write_text(good)
    assert "unknown parameter cgpo.updatez = 3; did you mean updates?" in output
    assert "missing parameter cgpo.updates, expected int" in output
    assert "Traceback" not in output
    assert ran(output) == ["params"]
    gate = "artifacts/checks/params.json"
    assert clone.results() == {path: value for path, value in results.items() if path != gate}
    assert set(clone.repro()) <= {"params"}


def test_a_truncated_archive_stops_the_line_and_is_named(clone: Clone) -> None:
    archive = sorted((clone.folder / "embedded" / "datasets").glob("scenes-sis-train.*"))[0]
    good, results = archive.read_bytes(), clone.results()
    archive.write_bytes(good[: len(good) // 2])
    try:
        output = clone.run("dvc", "repro", check=False)
        assert archive.name in output
        assert "Traceback" not in output
        assert ran(output) == ["download"]
        clone.run("dvc", "checkout", "artifacts/download")
        assert clone.results() == results
    finally:
        archive.write_bytes(good)
    assert clone.repro() == [], "the results of the sound archive were not taken from the cache"
    assert clone.changed() <= RECORDS


@pytest.mark.parametrize(("stage", "checkpoint"), [("sft", "step-0000002.pt"), ("cgpo", "step-0000002.pt")])
def test_a_training_killed_between_checkpoints_resumes_to_the_very_same_adapter(
    clone: Clone, stage: str, checkpoint: str
) -> None:
    adapter = clone.folder / "artifacts" / stage / "adapter" / "adapter_model.safetensors"
    whole, runs = adapter.read_bytes(), clone.folder / "runs" / stage
    assert not list(runs.glob("*/*.pt")), "a finished stage left checkpoints, from which a forced run would go on"
    training = subprocess.Popen(
        [sys.executable, f"stages/{stage}.py"], cwd=clone.folder, env=clone.environment, stdout=subprocess.DEVNULL
    )
    while not any(runs.glob(f"*/{checkpoint}")):
        assert training.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    training.kill()
    training.wait()
    assert adapter.read_bytes() == whole, "what was complete is not touched by a run that dies"
    assert "resuming after step" in clone.run("dvc", "repro", "--force", "--single-item", stage)
    assert adapter.read_bytes() == whole
    assert clone.changed() <= RECORDS


@pytest.mark.parametrize("stage", ["annotate", "masks"])
def test_a_long_stage_killed_on_its_way_goes_on_to_the_very_same_result(clone: Clone, stage: str) -> None:
    before, runs = clone.results(), clone.folder / "runs" / stage
    shutil.rmtree(runs)
    command = [sys.executable, f"stages/{stage}.py"]
    work = subprocess.Popen(command, cwd=clone.folder, env=clone.environment, stdout=subprocess.DEVNULL)
    while not (done := list(runs.glob("*/part-*"))):
        assert work.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    work.kill()
    work.wait()
    stamp = done[0].stat().st_mtime_ns
    assert clone.results() == before
    clone.run(*command)
    assert done[0].stat().st_mtime_ns == stamp, "what was there is done again"
    assert len(list(runs.glob("*/part-*"))) > len(done)
    assert clone.results() == before
    assert clone.changed() <= RECORDS


def test_a_new_cgpo_adapter_does_not_make_the_others_answer_again(clone: Clone) -> None:
    output = clone.run(sys.executable, "stages/masks.py")
    assert output.count("as they were") == 3
    adapter = clone.folder / "artifacts/cgpo/adapter/adapter_config.json"
    good = adapter.read_bytes()
    try:
        adapter.unlink()
        adapter.write_bytes(good + b"\n")  # other bytes of the same meaning
        output = clone.run(sys.executable, "stages/masks.py")
    finally:
        adapter.write_bytes(good)
    assert [name for name in ("base", "sft", "cgpo") if f"masks of {name}: as they were" in output] == ["base", "sft"]
    assert len(list((clone.folder / "runs/masks").iterdir())) == 3, "answers of the adapter before are still there"


def test_an_experiment_reruns_what_it_changes_with_a_float(clone: Clone) -> None:
    output = clone.run("dvc", "exp", "run", "--name", "slower", "--set-param", "cgpo.lr=1e-5")
    stages = set(ran(output))
    assert stages >= {"params", "cgpo", "check@cgpo", "masks", "model", "report"}
    # As small a run may give the same answers, and then what follows them is spared.
    assert stages <= {
        "params",
        "cgpo",
        "check@cgpo",
        "masks",
        "check@masks",
        "metrics",
        "check@metrics",
        "model",
        "report",
    }
    assert "lr: 1e-05" in (clone.folder / "params.yaml").read_text(), "DVC no longer writes what PyYAML cannot read"
    assert load_params(clone.folder / "params.yaml").cgpo.lr == 1e-5
    assert "slower" in clone.run("dvc", "exp", "show", "--csv")


def test_a_fresh_clone_of_a_committed_run_gives_it_again_to_the_last_digit(clone: Clone, tmp_path: Path) -> None:
    """The page among it, though it was built before the commit, and though another commit follows."""
    clone.run("git", "add", "--update")
    clone.run("git", "commit", "--quiet", "--message", "results", "--allow-empty")
    clone.run("git", "commit", "--quiet", "--message", "something else", "--allow-empty")
    assert clone.changed() == set()
    again = Clone.of(clone.folder, tmp_path / "again")
    assert "report" in again.repro()
    assert again.changed() == set()
    results = {path: value for path, value in clone.results().items() if not path.endswith((".lock", "costs.csv"))}
    assert {path: value for path, value in again.results().items() if path in results} == results


def test_a_forced_run_is_equal_to_the_last_digit(clone: Clone) -> None:
    """Downloads included, which find what they have left before."""
    lock = (clone.folder / "dvc.lock").read_bytes()
    clone.repro("--force", "--single-item", "download")
    clone.repro("--force", "--single-item", "cgpo")
    assert (clone.folder / "dvc.lock").read_bytes() == lock
