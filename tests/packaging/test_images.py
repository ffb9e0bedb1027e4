"""The Dockerfiles: they install the lock and the package, and copy what is there; nothing here builds them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def instructions(file: Path) -> list[str]:
    """The instructions of a Dockerfile, one a line, without comments."""
    text = re.sub(r"(?m)^\s*#.*\n", "", file.read_text(encoding="utf-8")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip()]


def test_there_is_one_for_processors_and_one_for_gpus() -> None:
    assert [file.name for file in FILES] == ["cpu.Dockerfile", "cuda.Dockerfile"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_installed_is_the_lock_and_the_package(file: Path) -> None:
    installed = [re.search(r"pip install (.*)", line) for line in instructions(file) if "pip install" in line]
    assert [found[1].split()[-1] for found in installed if found] == ["requirements.lock", "."]
    assert all("--no-deps" in found[1] for found in installed if found), "nothing is resolved, the lock is whole"
    assert not any("apt-get" in line or "curl" in line for line in instructions(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_copied_is_there_and_not_ignored(file: Path) -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in instructions(file) if line.startswith("COPY ") for name in line.split()[1:-1]}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_python_is_one_that_the_package_takes(file: Path) -> None:
    (base,) = [line.split()[1] for line in instructions(file) if line.startswith("FROM ")]
    assert base == "python:3.11-bookworm"
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    if not (hadolint := shutil.which("hadolint")):
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
