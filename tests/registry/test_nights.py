"""The list of nights: one whose record is not as it should be is listed with what is wrong, beside the others."""

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from saliency_r1.cli.app import app
from saliency_r1.registry.git import git
from saliency_r1.registry.nights import DECISION, METRICS, headline, nights

WHO = ("-c", "user.name=test", "-c", "user.email=test@example.org")
GOOD = {"cgpo": {"D": {"reward": 0.5, "samples": 4, "Sm": 0.7}, "E": {"reward": 0.2, "samples": 2}}}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one good night, that of the first of March."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    record(tmp_path, "2026-03-01", json.dumps(GOOD), json.dumps({"verdict": "promote"}))
    return tmp_path


def record(root: Path, name: str, metrics: str, decision: str) -> None:
    for path, text in ((METRICS, metrics), (DECISION, decision)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    git(root, "add", ".")
    git(root, *WHO, "commit", "--quiet", "--message", name)
    git(root, "tag", f"night/{name}")


def test_a_good_night_has_no_faults(project: Path) -> None:
    (night,) = nights(project)
    assert night.metrics == GOOD
    assert night.decision == {"verdict": "promote"}
    assert night.faults == ()
    assert headline(night) == {"cgpo": pytest.approx(0.4)}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("{broken", "metrics.json: not valid JSON (Expecting"),
        ('{"cgpo": {"D": {"reward": null, "samples": 3}}}', "metrics.json: cgpo.D.reward = None, expected a number"),
        ('{"cgpo": {"D": {"Sm": "high"}}}', "metrics.json: cgpo.D.Sm = 'high', expected a number"),
        ('{"cgpo": {"D": 5}}', "metrics.json: cgpo.D = 5, expected a mapping of measures"),
        ('{"cgpo": [1]}', "metrics.json: cgpo = [1], expected a mapping of data sets"),
        ("[1]", "metrics.json: all of it = [1], expected a mapping of models"),
    ],
)
def test_broken_metrics_of_one_night_do_not_end_the_list(project: Path, metrics: str, message: str) -> None:
    record(project, "2026-03-02", metrics, json.dumps({"verdict": "keep"}))
    good, bad = nights(project)
    assert good.metrics == GOOD
    assert bad.metrics == headline(bad) == {}
    assert bad.decision == {"verdict": "keep"}
    (fault,) = bad.faults
    assert message in fault


@pytest.mark.parametrize(("decision", "message"), [("{", "not valid JSON"), ("[1]", "expected a mapping")])
def test_nor_does_a_broken_decision(project: Path, decision: str, message: str) -> None:
    record(project, "2026-03-02", json.dumps(GOOD), decision)
    bad = nights(project)[-1]
    assert (bad.metrics, bad.decision) == (GOOD, None)
    (fault,) = bad.faults
    assert fault.startswith(DECISION)
    assert message in fault


def test_the_command_says_what_is_wrong_and_goes_on(project: Path) -> None:
    record(project, "2026-02-28", "{", "null")
    done = CliRunner().invoke(app, ["nights", "--root", str(project)])
    assert done.exit_code == 0
    assert "metrics.json: not valid JSON" in done.stdout
    assert "0.4000" in done.stdout


def test_a_measure_is_found_whatever_points_its_names_have(project: Path) -> None:
    metrics = {"qwen2.5-vl": {"D.v2": {"Sm": 0.75}}, "cgpo": {"D": {"Sm": 0.5}}}
    record(project, "2026-03-02", json.dumps(metrics), "null")
    options = ["--measure", "qwen2.5-vl.D.v2.Sm", "--measure", "cgpo.D.Sm"]
    done = CliRunner().invoke(app, ["nights", "--root", str(project), *options])
    first, second = done.stdout.splitlines()
    assert first.endswith("cgpo.D.Sm 0.7000  promote")
    assert second.endswith("qwen2.5-vl.D.v2.Sm 0.7500  cgpo.D.Sm 0.5000")
