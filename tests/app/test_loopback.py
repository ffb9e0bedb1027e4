"""Who may ask the page, and what is left of it in the temporary folder when it ends."""

import asyncio
import http.client
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from app.test_page import standing

from saliency_r1.app.loopback import Loopback

OWN = [
    {"host": "127.0.0.1:7860"},
    {"host": "LOCALHOST:7860", "origin": "http://localhost:7860"},
    {"host": "localhost:9000", "origin": "http://localhost:9000"},
]
FOREIGN = [
    {},
    {"host": "evil.example:7860"},
    {"host": "127.0.0.1.evil.example"},
    {"host": "127.0.0.1:7860", "origin": "http://evil.example"},
    {"host": "127.0.0.1:7860", "origin": "http://localhost:3000"},
    {"host": "127.0.0.1:7860", "origin": "null"},
]


async def _page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "the page"})


def answered(kind: str, headers: dict[str, str]) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        said.append(dict(message))

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(Loopback(_page)({"type": kind, "headers": pairs}, None, send))
    return said


@pytest.mark.parametrize("headers", OWN)
def test_the_page_itself_is_answered(headers: dict[str, str]) -> None:
    assert answered("http", headers) == answered("websocket", headers) == [{"type": "the page"}]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_foreign_host_or_website_is_refused(headers: dict[str, str]) -> None:
    start, body = answered("http", headers)
    assert start["status"] == 403
    assert b"on this machine alone" in body["body"]
    assert answered("websocket", headers) == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.slow
def test_foreign_uploads_are_refused_and_own_ones_go_with_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    body = '--x\r\nContent-Disposition: form-data; name="files"; filename="secret.png"\r\n\r\nmine\r\n--x--\r\n'

    def upload(address: str, **more: str) -> int:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        headers = {"Content-Type": "multipart/form-data; boundary=x", **more}
        connection.request("POST", "/gradio_api/upload", body, headers)
        return connection.getresponse().status

    with standing(tmp_path) as address:
        assert upload(address, Origin="http://evil.example") == 403
        assert upload(address, Host="evil.example") == 403
        assert list(scratch.rglob("secret.png")) == []
        assert upload(address, Origin=address.rstrip("/")) == 200
        assert len(list(scratch.rglob("secret.png"))) == 1
        time.sleep(2)  # it answers before Gradio has asked
    assert list(scratch.rglob("secret.png")) == list(scratch.glob("saliency-r1-app-*")) == [], "as Ctrl-C ends it"
