"""What a run's results are kept under: everything that decides them, and nothing else."""

from pathlib import Path

import pytest

import saliency_r1
from saliency_r1.runtime.keys import run_key


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
