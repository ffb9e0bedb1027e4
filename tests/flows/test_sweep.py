"""A sweep: the points of a grid as experiments, the table, what a failed point leaves."""

import json
import logging
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from dvc.utils.hydra import apply_overrides

from flows.sweep import _text, chosen, expect, points, read_grid, split, sweep, unused
from flows.tree import NightError
from saliency_r1.registry.git import git, plain
from saliency_r1.yaml_loader import load_yaml

METRICS = {"cgpo": {"a": {"reward": 0.5, "Sm": 0.1}, "b": {"reward": 0.7}}, "sft": {"a": {"reward": 0.2}}}


def test_a_grid_is_all_its_combinations() -> None:
    assert points({"cgpo.lr": [1e-4, 3e-4], "seed": [1, 2]}) == [
        {"cgpo.lr": 1e-4, "seed": 1}, {"cgpo.lr": 1e-4, "seed": 2},
        {"cgpo.lr": 3e-4, "seed": 1}, {"cgpo.lr": 3e-4, "seed": 2},
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"no value for cgpo\.lr"):
        points({"cgpo.lr": [], "seed": [1]})


def test_a_comma_within_brackets_separates_no_points() -> None:
    assert split("3e-5,1e-4") == ["3e-5", "1e-4"]
    assert split("[sft,cgpo],[[base],{a: 1, b: 2}]") == ["[sft,cgpo]", "[[base],{a: 1, b: 2}]"]


def test_a_grid_of_a_command_line_has_each_key_once() -> None:
    assert read_grid(["cgpo.lr=3e-5,1e-4", "seed=1"]) == {"cgpo.lr": ["3e-5", "1e-4"], "seed": ["1"]}
    with pytest.raises(ValueError, match=r"seed is given twice.*seed=1,2"):
        read_grid(["seed=1", "seed=2"])
    with pytest.raises(ValueError, match="'seed', expected KEY=VALUE"):
        read_grid(["seed"])


@pytest.mark.parametrize(
    "value",
    [3e-5, None, True, ["q_proj", "(k|v)"], {"every": 8, "of": ["é", {"a": "b, c"}]}, [{"name": "x", "shots": 0}]],
)
def test_dvc_reads_a_value_as_it_was_given(value: object, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("key: 0\n", encoding="utf-8")
    apply_overrides(tmp_path / "params.yaml", [f"key={_text(value)}"])
    assert load_yaml(tmp_path / "params.yaml") == {"key": value}


def test_a_point_has_a_name_that_git_takes_whatever_the_run_is_called() -> None:
    for name in ("lr, 2nd try", "a/b", "x:1", "..", "v1.lock", "-"):
        git(Path(), "check-ref-format", f"refs/exps/{plain(name)}-1")
    assert plain("amber-fox") == "amber-fox"


def test_what_is_shown_is_what_fits() -> None:
    assert chosen(METRICS, "cgpo.*.reward") == {"mean": 0.6, "cgpo.a.reward": 0.5, "cgpo.b.reward": 0.7}
    with pytest.raises(RuntimeError, match=r"no metric is called grpo\.\*; there are: cgpo\.a\.reward"):
        chosen(METRICS, "grpo.*")


GRAPH = """
stages:
  metrics:
    cmd: exec python stage.py
    deps: [stage.py, data]
    params: [seed, cgpo.lr]
    metrics: [artifacts/metrics/metrics.json: {cache: false}]
"""
STAGE = """
import json, sys, yaml
from pathlib import Path
params = yaml.safe_load(Path("params.yaml").read_text())
if params["seed"] == 13:
    sys.exit("13 is no seed")
Path("artifacts/metrics").mkdir(parents=True, exist_ok=True)
reward = params["seed"] * params["cgpo"]["lr"]
Path("artifacts/metrics/metrics.json").write_text(json.dumps({"cgpo": {"scenes-sod": {"reward": reward}}}))
"""


@pytest.mark.slow
def test_each_point_is_an_experiment_and_the_best_one_stands_first(project: Path, prefect_server: None) -> None:
    (project / "dvc.yaml").write_text(GRAPH)
    (project / "stage.py").write_text(STAGE)
    (project / "params.yaml").write_text("seed: 7\ncgpo:\n  lr: 0.5\n")
    git(project, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--all", "--message", "sweep")

    rows = sweep({"seed": [1, 2], "cgpo.lr": [0.25, "1e-1"]}, folder=project)
    assert [(row["seed"], row["cgpo.lr"], row["mean"]) for row in rows] == [
        (2, 0.25, 0.5), (1, 0.25, 0.25), (2, "1e-1", 0.2), (1, "1e-1", 0.1),
    ]  # fmt: skip
    assert git(project, "status", "--porcelain") == ""
    assert (project / "params.yaml").read_text().startswith("seed: 7")
    shown = _experiments(project)
    assert {row["experiment"] for row in rows} == set(shown)
    best = rows[0]["experiment"]
    metrics = json.loads(git(project, "show", f"{shown[best]}:artifacts/metrics/metrics.json"))
    assert metrics == {"cgpo": {"scenes-sod": {"reward": 0.5}}}

    with pytest.raises(RuntimeError, match="1 of 2 points failed"):
        sweep({"seed": [13, 3]}, folder=project)
    table = json.loads(_latest("sweep"))
    assert [row["seed"] for row in table] == [3, 13]
    assert "13 is no seed" in table[1]["failed"]
    assert table[0]["failed"] == "", "the UI shows the columns of the first row"
    assert len(_experiments(project)) == 5, "the failed point has left an experiment"


def test_all_points_have_the_commit_of_the_first_and_each_failure_is_in_the_table(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The branch moves and somebody edits while the points run."""
    seen: list[str] = []
    tables = []

    def try_out(tree: Path, name: str, point: dict[str, int]) -> dict[str, object]:
        seen.append((tree / "params.yaml").read_text())
        (project / "params.yaml").write_text(f"seed: {10 + len(seen)}\n")
        git(project, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--all", "--message", "moved")
        (project / "params.yaml").write_text("seed: 9\n")
        if point["seed"] == 1:
            raise ValueError("metrics.json is no JSON")
        return METRICS

    monkeypatch.setattr("flows.sweep.try_out", SimpleNamespace(with_options=lambda **_: try_out))
    monkeypatch.setattr("flows.sweep.get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr("flows.sweep.create_table_artifact", lambda table, **_: tables.append(table))
    with pytest.raises(RuntimeError, match="1 of 3 points failed"):
        sweep.fn({"seed": [1, 2, 3]}, folder=project)
    assert seen == ["seed: 7\n"] * 3
    assert [row["failed"] for row in tables[0]] == ["", "", "metrics.json is no JSON"]
    with pytest.raises(NightError, match="edits that are in no commit"):
        sweep.fn({"seed": [1]}, folder=project)


def _experiments(project: Path) -> dict[str, str]:
    """The project's experiments: name and commit."""
    command = ["dvc", "exp", "list", "--all-commits"]
    listed = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout
    refs = git(project, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    commits = {ref.split()[0].rsplit("/", 1)[1]: ref.split()[1] for ref in refs}
    return {name: commit for name, commit in commits.items() if name in listed}


def _latest(key: str) -> str:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = [each for each in client.read_artifacts() if each.key == key]
    return str(max(found, key=lambda each: each.created).data)


def test_a_run_that_is_tried_again_takes_names_that_are_free(project: Path) -> None:
    head = git(project, "rev-parse", "HEAD")
    for name in ("fox-1", "fox-1.2"):
        git(project, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", head)
    assert unused(project, "fox-1") == "fox-1.3"
    assert unused(project, "fox-2") == "fox-2"


def test_measures_that_no_point_will_have_are_refused_before_the_first(project: Path) -> None:
    expect("cgpo.*.rewrd", {"seed": [1]}, project, "HEAD")  # nothing has run: nobody knows
    metrics = project / "artifacts/metrics/metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps(METRICS))
    git(project, "add", "artifacts/metrics")
    git(project, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "metrics")
    expect("cgpo.*.reward", {"seed": [1]}, project, "HEAD")
    with pytest.raises(RuntimeError, match=r"no metric is called cgpo\.\*\.rewrd; there are: cgpo\.a\.reward"):
        expect("cgpo.*.rewrd", {"seed": [1]}, project, "HEAD")
    expect("qwen.*.reward", {"masks.models": [["base", "qwen"]]}, project, "HEAD")
