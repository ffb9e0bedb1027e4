"""What a run's results are kept under: everything that decides them, and nothing else."""

from pathlib import Path

import pytest

import saliency_r1
from saliency_r1.runtime.keys import run_key, stage_code


def test_the_key_of_a_run_follows_parameters_inputs_code_and_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, folder = tmp_path / "package", tmp_path / "models"
    for name in ("package/__init__.py", "package/deep/code.py", "package/deep/sod.txt", "models/a.json", "models/b/c"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    monkeypatch.setattr(saliency_r1, "__file__", str(package / "__init__.py"))
    keys = [run_key({"lr": 1e-3}, [folder])]
    (package / "page.css").write_text("decides nothing that is kept")
    assert keys[0] == run_key({"lr": 1e-3}, [folder])
    keys.append(run_key({"lr": 1e-4}, [folder]))
    (folder / "b/c").write_text("2")
    keys.append(run_key({"lr": 1e-3}, [folder]))
    (folder / "b/c").rename(folder / "b/d")
    keys.append(run_key({"lr": 1e-3}, [folder]))
    for name in ("code.py", "sod.txt"):
        (package / "deep" / name).write_text("2")
        keys.append(run_key({"lr": 1e-3}, [folder]))
    assert len(set(keys)) == len(keys)


GRAPH = """
stages:
  sft:
    cmd: python stages/sft.py
    deps: [stages/sft.py, src/saliency_r1/tasks, src/saliency_r1/cot.py, artifacts/download/table.parquet]
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of the project with the code of one stage and some more."""
    for name in ("stages/sft.py", *(f"src/saliency_r1/{name}" for name in ("cot.py", "tasks/base.py", "app/page.py"))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    monkeypatch.setattr(saliency_r1, "__file__", str(tmp_path / "src/saliency_r1/__init__.py"))
    return tmp_path


@pytest.mark.parametrize("name", ["stages/sft.py", "src/saliency_r1/cot.py", "src/saliency_r1/tasks/base.py"])
def test_the_key_of_a_stage_follows_the_code_that_decides_it(tree: Path, name: str) -> None:
    before = run_key({}, [], stage_code("sft"))
    (tree / "src/saliency_r1/app/page.py").write_text("another")
    assert run_key({}, [], stage_code("sft")) == before
    (tree / name).write_text("another")
    assert run_key({}, [], stage_code("sft")) != before


def test_code_that_the_graph_lists_and_nobody_has_is_named(tree: Path) -> None:
    (tree / "src/saliency_r1/cot.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"cot\.py"):
        run_key({}, [], stage_code("sft"))


@pytest.mark.parametrize("stage", ["annotate", "sft", "cgpo", "masks"])
def test_the_code_of_a_stage_is_that_of_this_tree(stage: str) -> None:
    code = stage_code(stage)
    assert Path(__file__).parents[2] / f"stages/{stage}.py" in code
    assert all(path.exists() for path in code)
    assert run_key({}, [], code) != run_key({}, [])
