"""The README's queue with two workers, and experiments that travel through a bare repository."""

import json
from pathlib import Path
from typing import Any

import pytest
from processes import until

from flows.tree import dvc
from saliency_r1.registry.git import git

GRAPH = """
stages:
  first:
    cmd: exec python stage.py
    deps: [stage.py]
    params: [seed]
    metrics: [metrics.json: {cache: false}]
"""
STAGE = """
import json
from pathlib import Path
seed = int(Path("params.yaml").read_text().split()[1])
Path("metrics.json").write_text(json.dumps({"code": 1, "seed": seed}))
"""


def results(folder: Path) -> dict[int, tuple[int, int]]:
    """Of each experiment the seed that it was queued with: the code that ran, and the seed that the code saw."""
    (commit,) = [one for one in json.loads(dvc(folder, "exp", "show", "--json")) if one["rev"] != "workspace"]
    found = {}
    for experiment in commit["experiments"] or []:
        data: dict[str, Any] = experiment["revs"][0]["data"]
        seen = data["metrics"]["metrics.json"]["data"]
        found[data["params"]["params.yaml"]["data"]["seed"]] = (seen["code"], seen["seed"])
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    for name, text in {"dvc.yaml": GRAPH, "stage.py": STAGE, "params.yaml": "seed: 7\n"}.items():
        (folder / name).write_text(text)
    git(folder, "init", "--quiet")
    git(folder, "config", "user.name", "t")
    git(folder, "config", "user.email", "t@t")
    dvc(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "made")
    return folder


@pytest.mark.slow
def test_two_workers_give_each_experiment_its_own_code_and_result_and_others_get_them(
    folder: Path, path_of_python: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", path_of_python)
    dvc(folder, "exp", "run", "--queue", "-S", "seed=1,2,3")
    (folder / "stage.py").write_text(STAGE.replace('"code": 1', '"code": 2'))
    dvc(folder, "exp", "run", "--queue", "-S", "seed=4,5")
    (folder / "stage.py").write_text("raise SystemExit('the workspace has gone on')")
    dvc(folder, "queue", "start", "-j", "2")
    until(lambda: dvc(folder, "queue", "status").count("Success") == 5, 180)
    expected = {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 4), 5: (2, 5)}
    assert results(folder) == expected

    git(folder, "checkout", "--quiet", "stage.py")
    git(tmp_path, "init", "--quiet", "--bare", "bare.git")
    git(folder, "remote", "add", "origin", str(tmp_path / "bare.git"))
    git(folder, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    dvc(folder, "exp", "push", "--all-commits", "--no-cache", "origin")
    git(tmp_path, "clone", "--quiet", "--branch", "main", "bare.git", "clone")
    dvc(tmp_path / "clone", "exp", "pull", "--all-commits", "--no-cache", "origin")
    assert results(tmp_path / "clone") == expected
