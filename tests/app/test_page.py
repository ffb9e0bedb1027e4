"""The page in a browser: Gradio, a headless Chromium, and models that speak by rote."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import pytest
from app.stand_in import EVIL
from browser import CHROMIUM, Tab, opened
from PIL import Image
from typer.testing import CliRunner

from saliency_r1.cli.app import app as command_line
from saliency_r1.cli.page import named
from saliency_r1.prediction.predictor import PredictError

FOLDER = Path(__file__).parent


def test_adapters_have_names() -> None:
    assert named(["mine=runs/mine", "b=x=y"]) == {"mine": Path("runs/mine"), "b": Path("x=y"), "base": None}
    assert list(named(None))[-1] == "base"
    for wrong in ("mine", "=x", "mine=", "base=x"):
        with pytest.raises(PredictError, match="--adapter"):
            named([wrong])
    with pytest.raises(PredictError, match="'a' already"):
        named(["a=x", "a=y"])


def test_what_is_missing_is_said_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    done = CliRunner().invoke(command_line, ["app", "--policy", "nowhere"])
    assert done.exit_code == 1
    assert "nowhere: there is no such folder" in done.output


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_r1.cli.errors.find_spec", lambda name: None if name == "gradio" else True)
    done = CliRunner().invoke(command_line, ["app"])
    assert done.exit_code == 1
    assert done.output == "gradio is not installed; this needs: pip install 'saliency-r1[app]'\n"


@contextlib.contextmanager
def standing(folder: Path) -> Iterator[str]:
    """The page with models that speak by rote, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ask = build_opener(ProxyHandler({})).open
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, FOLDER / "stand_in.py", str(port)], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError), ask(f"http://127.0.0.1:{port}/", timeout=5):
                break
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, "the page did not come up"
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/"
        assert server.poll() is None, (folder / "log").read_text()
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The page, for a browser."""
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    if not CHROMIUM:
        pytest.skip("there is no Chromium")
    with standing(tmp_path) as here:
        yield here


def give(tab: Tab, *files: Path) -> None:
    tab.upload("#pictures input[type=file]", list(files))
    tab.until(f"document.querySelectorAll('#pictures img').length >= {len(files)}")


def choose(tab: Tab, element: str, option: str) -> None:
    tab.until(  # again and again: the page is drawn in parts, and before it listens
        f"(e => e && (e.click(), e.checked && e.closest('label').matches('.selected')))"
        f"(document.querySelector('#{element} input[value={option}]'))"
    )


def shown(tab: Tab, selector: str) -> str:
    return tab.run(f"getComputedStyle(document.querySelector({selector!r})).opacity")


@pytest.mark.slow
def test_a_picture_is_asked_about_pointed_at_reworded_and_compared(address: str, tmp_path: Path) -> None:
    picture = tmp_path / "a cat.png"
    Image.new("RGB", (32, 24), "orange").save(picture)
    with opened(tmp_path / "browser") as tab:
        tab.open(address)
        tab.until("!!document.querySelector('#ask')")
        choose(tab, "other", "base")
        tab.click("#ask")
        tab.until("document.querySelector('#first-answer').innerText.includes('drop one')")
        give(tab, picture)
        tab.click("#ask")
        tab.until("document.querySelectorAll('#first-answer .said').length == 2")
        # The words of a model are words: what looks like a tag was neither drawn nor run.
        assert EVIL in tab.run("document.querySelector('#first-answer .think').textContent")
        assert tab.run("document.querySelectorAll('#first-answer img, #first-answer script').length") == 0
        assert tab.said == []
        assert "I see nothing of note." in tab.until("document.querySelector('#second-answer pre')?.textContent")

        tab.point("#first-answer .e0")
        tab.until("getComputedStyle(document.querySelector('#first-answer .m1')).opacity == '0'")
        assert shown(tab, "#first-answer .m0") == "1"
        tab.until("getComputedStyle(document.querySelector('#first-answer .m0 .shade')).opacity == '1'")

        tab.write("#first-phrases textarea", "bottom\nthe left half\n<b>")
        tab.click("#first-again")
        tab.until("document.querySelector('#first-answer').innerText.includes('holds no < or >')")
        tab.write("#first-phrases textarea", "the left half")
        tab.click("#first-again")
        tab.until("document.querySelector('#first-answer .said')?.textContent == 'the left half'")
        assert "worded by hand" in tab.run("document.querySelector('#first-answer .who').textContent")

        with zipfile.ZipFile(tab.download("#first-masks", tmp_path / "downloads")) as archive:
            said = json.loads(archive.read("response.json"))
            assert "maps/a cat.png" in archive.namelist()
        assert [one["text"] for one in said["expressions"]] == ["the left half"]
        hosts = {urlsplit(one).hostname for one in tab.requested if one.startswith("http")}
        assert hosts == {"127.0.0.1"}, "the page asks nobody else"


@pytest.mark.slow
def test_a_group_and_a_file_that_is_no_picture(address: str, tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (32, 24), "orange").save(tmp_path / f"{name}.png")
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20_000_001))
    with opened(tmp_path / "browser") as tab:
        tab.open(address)
        tab.until("!!document.querySelector('#ask')")
        choose(tab, "model", "half")
        give(tab, tmp_path / "a.png", tmp_path / "b.png")
        tab.click("#ask")
        tab.until("document.querySelector('#first-answer').innerText.includes('sod takes one picture at a time')")
        choose(tab, "task", "cosod")
        tab.click("#ask")
        tab.until("document.querySelectorAll('#first-answer figure').length == 2")
        assert tab.run("document.querySelectorAll('#first-answer .said').length") == 1
        assert tab.run("document.querySelector('#first-phrases textarea').value") == "top\n"
    request = '--x\r\nContent-Disposition: form-data; name="files"; filename="l.png"\r\n\r\n'
    body = request.encode() + (tmp_path / "large.png").read_bytes() + b"\r\n--x--\r\n"
    done = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Content-Type: multipart/form-data; boundary=x",
         "--data-binary", "@-", f"{address}gradio_api/upload"], input=body, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == b"413"


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("saliency_r1.app.turns.Models.load", lambda _: pytest.fail("a model was loaded"))
    for folder in ("policy", "segmenter"):
        Path(folder).mkdir()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        call = ["app", "--policy", "policy", "--segmenter", "segmenter", "--port", str(port)]
        done = CliRunner().invoke(command_line, call)
    assert done.exit_code == 1
    assert f"port {port} of 127.0.0.1 is taken" in done.output
    assert "(--port)" in done.output
    assert "http://" not in done.output


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_the_page_comes_up_behind_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """Gradio asks itself whether it is up, and a proxy has no way there."""
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.delenv("no_proxy", raising=False)
    with standing(tmp_path):
        time.sleep(2)  # it answers before Gradio has asked
