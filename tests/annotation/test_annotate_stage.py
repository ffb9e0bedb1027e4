"""The stage annotate: what its results are kept under, and how many samples are asked for together."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripts import imported

from saliency_r1.params import Params, parse_params
from saliency_r1.runtime.files import held
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stage():
    with imported("annotate") as module:
        yield module


def served(batch_images: int = 4, **endpoint) -> Params:
    whole = load_yaml(ROOT / "params.yaml")
    whole["annotate"]["annotator"] = "openai"
    whole["annotate"]["endpoint"] |= endpoint
    whole["segmenter"]["batch_images"] = batch_images
    return parse_params(whole)


def test_a_raised_budget_and_another_pace_go_on_with_what_is_kept(stage, monkeypatch):
    monkeypatch.setattr(stage, "run_key", lambda settings, inputs, code: str(settings))
    kept = stage.runs(served())
    assert stage.runs(served(max_requests=9, timeout=7.0, retries=1, requests_per_minute=3.0)) == kept
    assert stage.runs(served(temperature=0.1)) != kept


def test_a_server_is_asked_as_much_at_once_as_it_may_be(stage):
    """The segmenter's batch is a matter of its memory, and no limit of the server's."""
    assert stage.together(served(batch_images=4, concurrency=8)) >= 8
    assert stage.together(served(batch_images=64, concurrency=2)) == 64
    offline = parse_params(load_yaml(ROOT / "params.yaml"))
    assert stage.together(offline) == offline.segmenter.batch_images


def test_a_second_run_waits_for_the_first(tmp_path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "runs/annotate").mkdir(parents=True)
    command = [sys.executable, str(ROOT / "stages/annotate.py")]
    with held(tmp_path / "runs/annotate/.lock"):
        second = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        said = second.stderr.readline()
        time.sleep(0.2)
        assert second.poll() is None
    assert "waiting for another process that holds runs/annotate/.lock" in said
    _, said = second.communicate()
    assert "artifacts/download/table.parquet" in said, "and then begins"
