"""Every command of the README is run here, or stands below with the reason why not."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from clones import Clone
from PIL import Image
from processes import until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ELSEWHERE = {
    "git clone <this repository> && cd saliency-r1": "the fixture `clone`",
    "make repro": "`dvc repro` of the fixture; that the target is there: test_the_targets_of_make",
    "make test": "this is it",
    ". .venv/bin/activate": "the environment that the tests run in",
    "prefect server start": "tests/flows/test_serve.py",
    "export PREFECT_API_URL=http://127.0.0.1:4200/api": "tests/flows/test_serve.py",
    "python -m flows.pipeline": "tests/flows/test_serve.py",
    'python -m flows.serve --cron "0 2 * * *"': "tests/flows/test_serve.py",
    "saliency-r1 benchmark --model FOLDER_OR_URL --data ECSSD": "tests/benchmark; model and data set are the reader's",
    "saliency-r1 app": "tests/app/test_page.py, in a browser",
    "saliency-r1 data check --params profiles/paper-3b.yaml": "ends with what is missing; tests/data/test_survey.py",
    "cp profiles/paper-3b.yaml params.yaml && dvc repro": "needs a hub and a GPU; test_params checks the profile",
}
# At its smallest an update fits into a second, and three experiments into a test.
INSTEAD = {"cgpo.lr=3e-5,1e-4,3e-4": "cgpo.lr=3e-5,1e-4"}


def commands() -> list[str]:
    """The lines of the README's code blocks that are commands, in order and without their comments."""
    lines = re.findall(r"^    (\S.*)$", README, re.MULTILINE)
    shown = [re.sub(r"\s+#.*$", "", line).strip() for line in lines]
    return [line for line in shown if re.match(r"(git|make|\.|dvc|prefect|export|python|saliency-r1|cp) ", line)]


def test_no_command_is_forgotten() -> None:
    assert set(ELSEWHERE) <= set(commands()), "a reason for a command that is not in the README"
    blocks = re.findall(r"(?m)^    \S.*$", README)
    others = [line for line in blocks if re.sub(r"\s+#.*$", "", line).strip() not in commands()]
    assert all(re.match(r"\s+(embedded/ --|download ->|after each)", line) for line in others), others


@pytest.mark.parametrize("target", ["setup", "repro", "test", "smoke", "lint", "docs"])
def test_the_targets_of_make(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def visitor(clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A second clone with the results of the first, and pictures of one's own."""
    folder = tmp_path_factory.mktemp("visitor") / "clone"
    clone.run("git", "add", "--all")
    clone.run("git", "commit", "--quiet", "--allow-empty", "--message", "A run")
    visitor = Clone.of(clone.folder, folder)
    visitor.run("dvc", "cache", "dir", "--local", str(clone.folder / ".dvc" / "cache"))
    visitor.run("dvc", "checkout")
    assert "up to date" in visitor.run("dvc", "repro")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "a", "b", "c"):
        pixels = np.kron(rng.integers(60, 200, (6, 8, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    for kind in ("maps", "masks"):
        (folder / kind).mkdir(exist_ok=True)
        for name in ("cat", "dog"):
            mask = np.zeros((96, 128), np.uint8)
            mask[20:60, 30:80] = 255
            Image.fromarray(mask).save(folder / kind / f"{name}.png")
    return visitor


def has_ended(visitor: Clone) -> bool:
    """Whether both experiments have. A worker that found nothing for ten seconds has gone; then one starts another."""
    status = visitor.run("dvc", "queue", "status")
    assert "Failed" not in status, visitor.run("dvc", "queue", "logs", re.findall(r"(\w{7}).*Failed", status)[0])
    if "Queued" in status and " 0 active, 0 idle" in status:
        visitor.run("dvc", "queue", "start")
    return status.count("Success") == 2


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in commands() if line not in ELSEWHERE])
def test_a_command_does_what_it_says(visitor: Clone, command: str) -> None:
    words = [INSTEAD.get(word, word) for word in shlex.split(command)]
    printed = visitor.run(*words)
    assert "Traceback" not in printed
    match words[:2]:
        case ["dvc", "queue"]:
            until(lambda: has_ended(visitor), 900)
        case ["saliency-r1", "predict"]:
            out = visitor.folder / words[words.index("--out") + 1]
            assert (out / "response.json").exists()
        case ["saliency-r1", "annotations"]:
            assert (visitor.folder / "annotations.html").exists()
        case ["saliency-r1", "evaluate"]:
            assert "1.0000" in printed


def test_the_table_is_that_of_the_committed_run() -> None:
    metrics = json.loads((ROOT / "artifacts/metrics/metrics.json").read_text(encoding="utf-8"))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in README.splitlines() if line.startswith("|")]
    keys = {"S-measure": "Sm", "AP50": "AP50"}
    rows = [line for line in lines if len(line) == 5 and line[1] in keys]
    assert {row[0] for row in rows} == set(metrics["cgpo"])
    for name, measure, *cells in rows:
        for model, cell in zip(("base", "sft", "cgpo"), cells, strict=True):
            # AP of a model that names nothing is not a number, and none in the file.
            assert float(cell) == round(metrics[model][name].get(keys[measure], 0.0), 3), (name, model)
    (reward,) = (line[2:] for line in lines if line[1:2] == ["mean reward"])
    for model, cell in zip(("base", "sft", "cgpo"), reward, strict=True):
        sets = metrics[model].values()
        mean = sum(one["reward"] * one["samples"] for one in sets) / sum(one["samples"] for one in sets)
        assert abs(float(cell) - mean) <= 0.0005


def test_paths_that_the_readme_names_are_there() -> None:
    named = set(re.findall(r"`((?:docs|profiles|embedded|stages|flows|src|tests|benchmarks)/[\w./-]+)`", README))
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]
    assert os.path.exists(ROOT / "docs/overview.png")
    assert shutil.which("make")
