"""A stage runs the code of the tree it lies in, whatever is installed and whatever the search path says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARK = "this is the code of the copy"
WHERE = """
def describe_params() -> dict[str, str]:
    return {"MARK": __file__}
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A tree of the project beside the one that PYTHONPATH names, as a queued experiment has it."""
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copyfile(ROOT / "profiles" / "smoke.yaml", tmp_path / "params.yaml")
    return tmp_path


def start(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the copy, while `saliency_r1` is that of this tree to everybody else."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "stages").glob("*.py")))
def test_every_stage_takes_the_path_of_its_own_tree_first(script: str) -> None:
    lines = (ROOT / "stages" / script).read_text(encoding="utf-8").splitlines()
    imports = [line for line in lines if line.startswith(("import own_tree", "from saliency_r1", "import saliency_r1"))]
    assert script == "own_tree.py" or imports[0].startswith("import own_tree")


def test_a_stage_runs_the_code_of_its_own_tree(copy: Path) -> None:
    with open(copy / "src/saliency_r1/params/file.py", "a", encoding="utf-8") as file:
        file.write(WHERE.replace("MARK", MARK))
    ended = start(copy, "stages/check.py", "params")
    assert ended.returncode == 0, ended.stderr
    report = (copy / "artifacts/checks/params.json").read_text(encoding="utf-8")
    assert MARK in report
    assert str(copy / "src") in report


PROBE = """
import own_tree  # noqa: F401
import multiprocessing
import os
from pathlib import Path

import saliency_r1
from saliency_r1.runtime.parent import die_with_parent
from saliency_r1.runtime.stage import run_stage


def where(_):
    return saliency_r1.__file__


def main(params):
    with multiprocessing.get_context("spawn").Pool(1, die_with_parent) as pool:
        Path(f"seen-{os.getpid()}.txt").write_text("\\n".join([where(None), *pool.map(where, [1])]))


if __name__ == "__main__":
    run_stage(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch",
    [
        [],
        ["-m", "saliency_r1.runtime.launch", "--nproc-per-node", "2"],
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
        ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
         "--mixed_precision", "no", "--dynamo_backend", "no"],
    ],
    ids=["python", "launch", "torchrun", "accelerate"],
)  # fmt: skip
def test_so_do_the_processes_of_any_launcher_and_those_they_start(launch: list[str], copy: Path) -> None:
    (copy / "stages/probe.py").write_text(PROBE)
    ended = start(copy, *launch, "stages/probe.py")
    assert ended.returncode == 0, ended.stderr
    mine = str(copy / "src/saliency_r1/__init__.py")
    seen = [path.read_text().splitlines() for path in copy.glob("seen-*.txt")]  # their lines would mix in one pipe
    assert seen == [[mine, mine]] * (2 if "--nproc-per-node" in launch else 1)


def test_a_stage_that_would_run_the_code_of_another_tree_refuses(copy: Path) -> None:
    script = copy / "stages/check.py"
    script.write_text(script.read_text(encoding="utf-8").replace("import own_tree", "import os"), encoding="utf-8")
    ended = start(copy, "stages/check.py", "params")
    assert ended.returncode == 1
    assert f"check stopped: stages/check.py lies in {copy} but would run the code of {ROOT / 'src'}" in ended.stderr
    assert f"PYTHONPATH={copy / 'src'}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (copy / "artifacts").exists()
