"""Every block of commands or code in the documentation is run here, or says why it is not."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from blocks import Block, blocks, every_block
from PIL import Image

from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).parents[2]
ALL = every_block()
RUN = [block for block in ALL if block.mark == "run"]


def test_every_block_of_commands_or_code_is_run_or_says_why_not() -> None:
    spoken = [block for block in ALL if block.language in ("sh", "python")]
    assert len(spoken) > 25
    silent = [str(block) for block in spoken if block.mark is None]
    assert not silent, "write <!-- run --> or <!-- not run: why --> above them"


def test_a_mark_stands_above_a_block_that_can_be_run() -> None:
    wrong = [str(block) for block in ALL if block.mark and block.language not in ("sh", "python")]
    assert not wrong
    marks = sum(page.read_text(encoding="utf-8").count("<!-- run -->") for page in (ROOT / "docs").rglob("*.md"))
    assert len(RUN) == marks, "a mark above nothing"


@pytest.mark.parametrize("block", [one for one in ALL if one.language == "python"], ids=str)
def test_code_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", [one for one in ALL if one.language == "yaml"], ids=str)
def test_yaml_can_be_read(block: Block, tmp_path: Path) -> None:
    (tmp_path / "block.yaml").write_text(block.text, encoding="utf-8")
    assert load_yaml(tmp_path / "block.yaml")


def test_blocks_are_found_wherever_they_stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("blocks.DOCS", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "a\n\n    dvc repro\n    x\n\n<!-- run -->\n\n1. b\n\n    <!-- run -->\n\n    ```sh\n    make it\n    ```\n\n"
        "    embedded/ -> data\n\n```python\nimport x\n```\n"
    )
    found = [(block.line, block.language, block.text, block.mark) for block in blocks(page)]
    assert found == [
        (3, "sh", "dvc repro\nx", None), (10, "", "<!-- run -->", None), (12, "sh", "make it", "run"),
        (16, "", "embedded/ -> data", None), (18, "python", "import x", None),
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the pages speak of: two folders of maps, ground truth, the parameters, and the commands on the path."""
    rng = np.random.default_rng(3)
    for number in range(3):
        mask = np.zeros((24, 32), np.uint8)
        mask[4:16, 4 + number : 20] = 255
        for name, values in (
            ("masks", mask),
            ("maps", np.roll(mask, 1, 1)),
            ("other", rng.integers(0, 256, mask.shape)),
        ):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "bin").mkdir()
    for name, call in (("python", ""), ("saliency-r1", " -m saliency_r1.cli")):
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{call} "$@"\n')
        script.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("block", RUN, ids=str)
def test_what_is_marked_so_runs(block: Block, folder: Path) -> None:
    command = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*command, block.text],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
