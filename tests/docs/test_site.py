"""The site: what it takes from the code, and that it can be built without a warning."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import DOCS

from saliency_r1.params import describe_params

ROOT = DOCS.parent
_SPEC = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
assert _SPEC is not None
assert _SPEC.loader is not None
generated = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(generated)


def test_the_reference_has_every_command_with_its_options() -> None:
    page = "\n".join(generated.commands())
    for name in ("evaluate", "predict", "plan", "app", "annotations", "params check", "data check"):
        assert f"## saliency-r1 {name}\n" in page
    assert "| `--port` | on 127.0.0.1 | `7860` |" in page
    assert "| `--open` | open it in the browser |" in page
    assert not re.findall(r"(?m)^\| `[^|]*` \|  \|.*", page), "an option without a word about it"


def test_the_reference_has_every_parameter_with_the_comment_beside_it() -> None:
    page = "\n".join(generated.parameters())
    for key in describe_params():
        assert page.count(f"| `{key}` |") == 1, key
    assert "| `runtime.device` | one of 'auto', 'cpu', 'cuda', 'mps' | `auto` | auto &#124; cpu" in page


def test_comments_are_read_by_the_full_name_of_a_key(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("a: 1  # one\nb:\n  c: 2   # two\n  d:\n    e: x#y\nf: 3\n")
    assert generated.comments(tmp_path / "p.yaml") == {"a": "one", "b.c": "two"}


def test_every_command_of_the_line_is_in_the_reference() -> None:
    import typer.main

    from saliency_r1.cli.app import app

    page = "\n".join(generated.commands())
    assert all(f"## saliency-r1 {name}" in page for name in typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "saliency-r1 evaluate" in (tmp_path / "site/reference/commands.html").read_text()
    assert "Predictor" in (tmp_path / "site/reference/python.html").read_text()
    # A link that leads nowhere is a warning, and a warning is an error.
    broken = tmp_path / "broken"
    shutil.copytree(DOCS, broken / "docs")
    shutil.copytree(ROOT / "src", broken / "src")
    shutil.copy(ROOT / "mkdocs.yml", broken)
    shutil.copy(ROOT / "params.yaml", broken)
    with (broken / "docs/data.md").open("a") as page:
        page.write("\n[nowhere](no_such_page.md)\n")
    assert subprocess.run(call, cwd=broken, capture_output=True, check=False).returncode == 1
