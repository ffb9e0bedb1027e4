"""A small DVC project of the pipeline's shape, and one Prefect server for all tests that need one."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

GRAPH = """
stages:
  first:
    cmd: exec python stage.py first 1
    deps: [stage.py, data]
    outs: [artifacts/first/table.txt]
  metrics:
    cmd: exec python stage.py metrics 2
    deps: [stage.py, artifacts/checks/first.json]
    metrics: [artifacts/metrics/metrics.json: {cache: false}]
  check:
    matrix:
      stage: [first]
    cmd: exec python stage.py check ${item.stage}
    deps: [stage.py, "artifacts/${item.stage}/table.txt"]
    outs: ["artifacts/checks/${item.stage}.json"]
"""
STAGE = """
import json, os, sys, time
from pathlib import Path
from saliency_r1.runtime.parent import die_with_program

die_with_program()
name, value = sys.argv[1:]
home = Path(str(Path.cwd()).partition("/runs/nights/")[0])  # of a night's tree, the project
(home / "pids").mkdir(exist_ok=True)
(home / "pids" / name).write_text(f"{os.getpid()} {os.getppid()}")
if name == os.environ.get("FAIL"):
    sys.exit("reward: expected in [0, 1]")
if name == os.environ.get("AWAY"):
    sys.exit(75)
if (home / "hang").exists() and name == (home / "hang").read_text():
    time.sleep(600)
path, content = {
    "first": ("artifacts/first/table.txt", value),
    "metrics": ("artifacts/metrics/metrics.json", {"cgpo": {"scenes-sod": {"Sm": 0.9}}}),
    "check": (f"artifacts/checks/{value}.json", {"expectations": [{"column": "reward", "expectation": "in [0, 1]"}]}),
}[name]
Path(path).parent.mkdir(parents=True, exist_ok=True)
Path(path).write_text(json.dumps(content))
print(f"{name} wrote {path}")
"""


def _make_project(folder: Path) -> Path:
    """A project with an import, two stages and a gate between them, committed; nothing has run yet.

    A stage that is named in the file `hang` never ends.
    """
    (folder / "embedded").mkdir(parents=True)
    (folder / "embedded" / "scenes.txt").write_text("scenes")
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "stage.py").write_text(STAGE)
    (folder / "data.dvc").write_text("deps:\n- path: embedded\nouts:\n- path: data\n")
    other = folder / "pretrain"
    other.mkdir()
    (other / "dvc.yaml").write_text("stages:\n  base:\n    cmd: touch base\n    outs: [base]\n")
    (folder / "params.yaml").write_text("seed: 7\n")
    ignored = ["/artifacts/*", "!/artifacts/metrics/", "/data", "/runs/", "/pids/", "/hang", "/src", "/flows/"]
    (folder / ".gitignore").write_text("\n".join([*ignored, ""]))
    for command in (
        ["git", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "--message", "made"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def path_of_python() -> str:
    """A search path on which `python`, `dvc` and `prefect` are those of this interpreter."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.fixture(scope="session")
def make_project() -> Callable[[Path], Path]:
    """What makes a small project in a folder."""
    return _make_project


def _make_remotes(project: Path, folder: Path) -> Path:
    """Give a project a bare repository as origin and a folder as DVC's remote, both in `folder`; the repository."""
    bare = folder / "bare.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(bare)], check=True)
    for command in (
        [sys.executable, "-m", "dvc", "remote", "add", "--quiet", "--default", "store", str(folder / "store")],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--all", "--message", "remote"],
        ["git", "remote", "add", "origin", str(bare)],
        ["git", "push", "--quiet", "origin", "HEAD:refs/heads/main"],
    ):
        subprocess.run(command, cwd=project, check=True)
    return bare


@pytest.fixture(scope="session")
def make_remotes() -> Callable[[Path, Path], Path]:
    """What gives a small project its remotes."""
    return _make_remotes


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path_of_python: str) -> Path:
    """A small project, and a path on which `python` is this interpreter."""
    monkeypatch.setenv("PATH", path_of_python)
    return _make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A temporary Prefect server; starting one takes a quarter of a minute, so all tests share it."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield
