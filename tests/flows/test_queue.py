"""The README's queue with two workers, and experiments that travel through a bare repository."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import until

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


def run(folder: Path, *words: str) -> str:
    ended = subprocess.run(words, cwd=folder, capture_output=True, encoding="utf-8", check=False)
    assert ended.returncode == 0, f"{words}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def results(folder: Path, *words: str) -> dict[int, tuple[int, int]]:
    """Of each experiment the seed that it was queued with: the code that ran, and the seed that the code saw."""
    (commit,) = [
        one for one in json.loads(run(folder, *dvc("exp", "show", "--json", *words))) if one["rev"] != "workspace"
    ]
    found = {}
    for experiment in commit["experiments"] or []:
        data: dict[str, Any] = experiment["revs"][0]["data"]
        seen = data["metrics"]["metrics.json"]["data"]
        found[data["params"]["params.yaml"]["data"]["seed"]] = (seen["code"], seen["seed"])
    return found


def dvc(*words: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *words]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    for name, text in {"dvc.yaml": GRAPH, "stage.py": STAGE, "params.yaml": "seed: 7\n"}.items():
        (folder / name).write_text(text)
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "config", "user.name", "t")
    run(folder, "git", "config", "user.email", "t@t")
    run(folder, *dvc("init", "--quiet"))
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "made")
    return folder


@pytest.mark.slow
def test_two_workers_give_each_experiment_its_own_code_and_result_and_others_get_them(
    folder: Path, path_of_python: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", path_of_python)
    run(folder, *dvc("exp", "run", "--queue", "-S", "seed=1,2,3"))
    (folder / "stage.py").write_text(STAGE.replace('"code": 1', '"code": 2'))
    run(folder, *dvc("exp", "run", "--queue", "-S", "seed=4,5"))
    (folder / "stage.py").write_text("raise SystemExit('the workspace has gone on')")
    run(folder, *dvc("queue", "start", "-j", "2"))
    until(lambda: run(folder, *dvc("queue", "status")).count("Success") == 5, 180)
    expected = {1: (1, 1), 2: (1, 2), 3: (1, 3), 4: (2, 4), 5: (2, 5)}
    assert results(folder) == expected

    run(folder, "git", "checkout", "--quiet", "stage.py")
    run(tmp_path, "git", "init", "--quiet", "--bare", "bare.git")
    run(folder, "git", "remote", "add", "origin", str(tmp_path / "bare.git"))
    run(folder, "git", "push", "--quiet", "origin", "HEAD:refs/heads/main")
    run(folder, *dvc("exp", "push", "--all-commits", "--no-cache", "origin"))
    run(tmp_path, "git", "clone", "--quiet", "--branch", "main", "bare.git", "clone")
    run(tmp_path / "clone", *dvc("exp", "pull", "--all-commits", "--no-cache", "origin"))
    assert results(tmp_path / "clone") == expected
