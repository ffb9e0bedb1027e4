"""The wheel in an empty environment: `pip install <wheel>` is an evaluator, and a small one."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
MOST_BYTES = 500 * 2**20  # 500 MB as `du -m` counts them


def pip(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment that holds the wheel and what it declares, and nothing else, not even pip."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    built = pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    done = pip("--python", environment, "install", "--quiet", wheel)
    if done.returncode and pip("download", "--quiet", "--no-deps", "--dest", folder, "filelock").returncode:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return environment


@pytest.mark.slow
def test_the_wheel_alone_evaluates_and_says_what_the_rest_needs(installed: Path, tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[4:12, 5:20] = 255
    for folder in ("gt", "pred"):
        (tmp_path / folder).mkdir()
        Image.fromarray(mask).save(tmp_path / folder / "a.png")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(installed / "bin" / "saliency-r1"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("evaluate", "--pred", "pred", "--gt", "gt", "--json", "numbers.json", "--dataset", "ECSSD")
    assert (done.returncode, done.stdout) == (1, ""), "the published numbers are in the wheel"
    assert "the data set has 1000" in done.stderr
    done = run("evaluate", "--pred", "pred", "--gt", "gt", "--json", "numbers.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "numbers.json").is_file()
    done = run("predict", "gt/a.png")
    assert done.returncode == 1
    assert "saliency-r1[predict]" in done.stderr
    # Last: what has been run has left its compiled files by now.
    (packages,) = installed.glob("lib/*/site-packages")
    size = sum(path.lstat().st_size for path in packages.rglob("*") if path.is_file())
    assert size < MOST_BYTES, f"{size / 2**20:.0f} MB"
    print(f"{size / 2**20:.0f} MB")
