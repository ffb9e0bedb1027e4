"""`make setup` where people keep their projects: My Drive, First Last."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Stands for Python: says what it was given, a line each, and makes an environment of itself.
PYTHON = """#!/bin/sh
for word in "$@"; do echo "<$word>"; done
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
"""


def test_setup_in_a_folder_whose_path_has_spaces(tmp_path: Path) -> None:
    project = tmp_path / "My Drive" / "first last"
    project.mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, project / name)
    python = tmp_path / "My Drive" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    command = ["make", "setup", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "<.venv>" in done.stdout
    assert (project / ".venv/.ready").is_file()
    assert sorted(path.name for path in (tmp_path / "My Drive").iterdir()) == ["first last", "python"]
    again = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    assert "venv" not in again.stdout, "the second time there is nothing to do"


def test_a_project_that_was_moved_is_set_up_again(tmp_path: Path) -> None:
    project, moved = tmp_path / "here", tmp_path / "there"
    project.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, project / name)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def setup(folder: Path) -> str:
        command = ["make", "setup", f"PYTHON={python}"]
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
        (folder / ".venv/bin/activate").write_text(f"VIRTUAL_ENV='{folder}/.venv'\n")  # as venv writes it
        return said

    setup(project)
    assert "<venv>" not in setup(project)
    project.rename(moved)
    assert "<venv>" in setup(moved)
    assert "<venv>" not in setup(moved)
    (moved / ".venv").rename(tmp_path / "shared")
    (moved / ".venv").symlink_to(tmp_path / "shared")
    (tmp_path / "shared/bin/activate").write_text("VIRTUAL_ENV=/elsewhere\n")
    assert "<venv>" not in setup(moved), "what somebody else has made stays"
