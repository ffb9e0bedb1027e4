"""The stage as people run it: `python stages/download.py`."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from saliency_r1.data.table import read_samples

from .toys import Project, contents, pairs

ROOT = Path(__file__).parents[2]


def start(project: Project, **settings: Any) -> subprocess.Popen[str]:
    project.write()
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    chosen = {"datasets": ["toy"], "policy": "models/policy", "segmenter": "models/segmenter"}
    params["download"] |= chosen | settings
    (project.root / "params.yaml").write_text(yaml.safe_dump(params))
    return subprocess.Popen(
        [sys.executable, str(ROOT / "stages/download.py")],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_success_and_failure(project: Project, tmp_path: Path) -> None:
    archive = project.add("toy", pairs(tmp_path / "toy", 3), count=3)
    run = start(project)
    printed, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    assert "toy/test: 3 samples" in printed
    assert len(read_samples(project.out)) == 3
    before = contents(project.root / "artifacts")

    archive.write_bytes(archive.read_bytes()[:-10])
    project.datasets["toy"]["splits"]["test"] = {"archive": "datasets/toy-test.zip"}
    run = start(project)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "toy-test.zip" in errors
    assert "Traceback" not in errors
    assert contents(project.root / "artifacts") == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing_half_done(project: Project, tmp_path: Path, number: signal.Signals) -> None:
    project.add("toy", pairs(tmp_path / "toy", 600))
    run = start(project)
    deadline = time.monotonic() + 30
    while not list(project.out.parent.glob(".download.new/datasets/toy/test/masks/*.png")):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    run.send_signal(number)
    run.communicate(timeout=60)
    assert run.returncode not in (0, None)
    assert not project.out.exists()
    assert len(project.run()) == 600
    assert [path.name for path in project.out.parent.iterdir() if path.suffix != ".lock"] == ["download"]
