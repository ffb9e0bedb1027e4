"""How commands end, whatever happens in them; and what names that people give can do to a terminal."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from saliency_r1.cli.app import app
from saliency_r1.cli.errors import command
from saliency_r1.runtime.messages import about, printable

ROOT = Path(__file__).parents[2]
RED = "[red]a :cat: $\\frac{$ \x1b[31m"


def ended(error: BaseException, *arguments: str, extra: str = "") -> Any:
    """A command in which that happens."""
    small = typer.Typer(pretty_exceptions_enable=False)

    @small.command()
    @command(extra)
    def body(name: Annotated[str, typer.Option(help="a name")] = "x") -> None:
        with about(f"{name}.png"):
            raise error

    return CliRunner().invoke(small, list(arguments))


@pytest.mark.parametrize("error", [RuntimeError("odd"), KeyError("k"), RecursionError(), ValueError()])
def test_what_nobody_has_thought_of_names_its_input_and_offers_the_traceback(error: Exception) -> None:
    done = ended(error, "--name", "photo")
    assert done.exit_code == 1
    assert f"unexpected {type(error).__name__} at photo.png" in done.stderr
    assert "--debug" in done.stderr
    assert "Traceback" not in done.output
    seen = ended(error, "--name", "photo", "--debug")
    assert seen.exception is error
    assert seen.exit_code == 1


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_too_little_memory_is_no_defect(error: Exception) -> None:
    done = ended(error)
    assert done.exit_code == 1
    assert done.stderr.startswith("out of memory at x.png: less at once takes less (`--batch`")


def test_an_error_of_the_system_is_one_line_with_what_it_was_about() -> None:
    done = ended(OSError(28, "No space left on device"))
    assert (done.exit_code, done.stderr) == (1, "no space left on device (x.png)\n")


def test_a_missing_extra_is_one_line() -> None:
    done = ended(ModuleNotFoundError("No module named 'torch'", name="torch"), extra="predict")
    assert (done.exit_code, done.stderr) == (
        1,
        "torch is not installed; this needs: pip install 'saliency-r1[predict]'\n",
    )
    assert "unexpected" in ended(ModuleNotFoundError("", name="saliency_r1.nowhere"), extra="predict").stderr


def test_a_wrong_command_line_is_usage() -> None:
    assert ended(RuntimeError(), "--nome", "x").exit_code == 2
    assert CliRunner().invoke(app, ["evaluate", "--pred", "x"]).exit_code == 2


def test_what_an_error_was_about_comes_home_from_another_process() -> None:
    with pytest.raises(RuntimeError) as caught, about("a\nb.png"):
        raise RuntimeError("odd")
    assert pickle.loads(pickle.dumps(caught.value)).__notes__ == ["a\\nb.png"]


def test_what_cannot_be_seen_is_spelt() -> None:
    assert printable("a\nb\x1b[2J\u202e\udce9\u2028\ufeff") == "a\\nb\\x1b[2J\\u202e\\udce9\\u2028\\ufeff"
    seen = "café 猫 کتاب‌ها 👩‍🌾 क्ष"  # joiners are letters to those who write them
    assert printable(seen) == seen
    assert printable("a\nb\r", keep="\n") == "a\nb\\r"


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200", **changes}


def evaluate(folder: Path, *options: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
    call = [sys.executable, "-m", "saliency_r1.cli", "evaluate", "--gt", str(folder / "gt"), "--bootstrap", "10"]
    return subprocess.run([*call, *options], capture_output=True, env=environment(**changes), check=False, cwd=folder)


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A method of a name that says things to terminals, tables and plots; with pictures named in several scripts."""
    mask = np.zeros((20, 30), np.uint8)
    mask[4:12, 5:20] = 255
    for folder in (RED, "gt"):
        (tmp_path / folder).mkdir()
        for shift, name in enumerate(("a", "ä", "猫", "b\n\x1b[31mc")):
            Image.fromarray(np.roll(mask, shift * (folder == "gt"), 1)).save(tmp_path / folder / f"{name}.png")
    return tmp_path


def test_a_name_is_a_name(named: Path) -> None:
    done = evaluate(named, "--pred", RED, "--html", "page.html", "--plot", "curves.png", "--json", "numbers.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().startswith(printable(RED) + ": 4 images")
    assert b"\x1b" not in done.stdout + done.stderr
    assert "frac{$" in (named / "page.html").read_text(encoding="utf-8")


def test_a_name_in_an_error_is_a_name(named: Path) -> None:
    (named / RED / "b\n\x1b[31mc.png").unlink()
    done = evaluate(named, "--pred", RED)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == "1 missing: b\\n\\x1b[31mc"


def test_an_odd_pair_of_pictures_is_named(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("saliency_r1.evaluation.folders.without_void", stumble)
    done = CliRunner().invoke(app, ["evaluate", "--pred", str(named / RED), "--gt", str(named / "gt")])
    assert done.exit_code == 1
    first = f"{named / RED / 'a.png'} with {named / 'gt' / 'a.png'}"
    assert done.stderr.startswith(f"unexpected ZeroDivisionError at {printable(first)}\n")


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1", "gbk", "utf-8"])
def test_no_terminal_ends_a_command(encoding: str, named: Path) -> None:
    (named / "他").mkdir()
    for path in (named / RED).iterdir():
        path.rename(named / "他" / path.name)
    done = evaluate(named, "--pred", "他", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    name = "他" if encoding in ("utf-8", "gbk") else "\\u4ed6"
    assert done.stdout.decode(encoding).startswith(f"{name}: 4 images")


def test_a_reader_that_leaves_is_no_news(named: Path) -> None:
    call = [sys.executable, "-m", "saliency_r1.cli", "evaluate", "--gt", "gt", "--pred", RED, "--bootstrap", "0"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(call, stdout=writing, stderr=subprocess.PIPE, env=environment(), check=False, cwd=named)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.slow
def test_ctrl_c_ends_a_command_in_one_line_at_any_moment(named: Path) -> None:
    """From when `main` begins to load the rest on: while that is loaded, reads, computes.

    With instances, because LLVM, which compiles a measure of maps, does not survive an exception in its callbacks.
    """
    code = """
import sys
from saliency_r1.cli import main
# Said from within `main`: a signal that comes between a word before it and its first line is nobody's to catch.
loading = ("import", "saliency_r1.cli.app")
sys.addaudithook(lambda event, arguments: print("on", flush=True) if (event, *arguments[:1]) == loading else None)
main()
"""
    call = [sys.executable, "-c", code, "evaluate", "--gt", "gt", "--pred", RED, "--bootstrap", "2000000"]
    call += ["--task", "sis"]
    for moment in (0.0, 0.05, 0.1, 0.2, 0.4, 1.0, 2.0):
        with subprocess.Popen(
            call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=named, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "on\n"
            time.sleep(moment)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        # Python ends by the signal itself where it came in the middle of an `exec`; a shell calls that 130 as well.
        assert process.returncode in (130, -signal.SIGINT), (moment, out, err)
        assert err == "interrupted\n", moment


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_streams_may_be_closed(named: Path, closed: str) -> None:
    call = [sys.executable, "-m", "saliency_r1.cli", "evaluate", "--gt", "gt", "--pred", RED, "--bootstrap", "0"]
    line = f'"$@" --json {closed[0]}.json {closed}'
    done = subprocess.run(
        ["sh", "-c", line, "sh", *call], cwd=named, env=environment(), capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert b"NoneType" not in done.stderr + done.stdout
    assert (named / f"{closed[0]}.json").is_file()


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (".", ". is a folder, expected the name of a file to write"),
        ("gone/a.html", "gone/a.html: there is no folder gone; make it, or name another"),
        ("download/table.parquet", "would be written over or between the inputs"),
    ],
)
def test_a_page_of_annotations_has_a_place_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("saliency_r1.report.annotated.write_page", lambda *_: pytest.fail("the page was made"))
    call = ["annotations", "--download", "download", "--annotate", "annotate", "--out", out]
    assert "download/table.parquet is missing" in CliRunner().invoke(app, call).output
    for stage in ("download", "annotate"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "table.parquet").touch()
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 1
    assert said in " ".join(done.output.split())
