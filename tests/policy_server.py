"""Servers of policies: one that speaks as much of the chat protocol as a client needs, and transformers' own."""

import base64
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saliency_r1.policy import Policy

NAME = "the-policy-behind-the-server"
needs_transformers_serve = pytest.mark.skipif(
    find_spec("openai") is None, reason="`transformers serve` needs transformers[serving]"
)


class PolicyServer(ThreadingHTTPServer):
    """Answers with a policy, one prompt at a time; `bodies` are the requests so far."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.policy = policy
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The chat completion of a request."""
        content = body["messages"][0]["content"]
        codes = [part["image_url"]["url"].partition(",")[2] for part in content if part["type"] == "image_url"]
        images = [Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB") for code in codes]
        text = next(part["text"] for part in content if part["type"] == "text")
        with self.lock:
            self.bodies.append(body)
            (response,) = self.policy.generate([self.policy.prompt(images, text)], body["max_tokens"])
        choice = {
            "message": {"role": "assistant", "content": response.text},
            "finish_reason": "stop" if response.ended else "length",
        }
        usage = {"prompt_tokens": 10, "completion_tokens": len(response.ids), "total_tokens": 10 + len(response.ids)}
        return {"choices": [choice], "usage": usage, "model": NAME}


class Handler(BaseHTTPRequestHandler):
    server: PolicyServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(self.server.complete(body))

    def do_GET(self) -> None:
        self._send({"data": [{"id": NAME}]})

    def _send(self, content: dict[str, Any]) -> None:
        code = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(code)))
        self.end_headers()
        self.wfile.write(code)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def transformers_serve(log: Path) -> Iterator[str]:
    """The address of `transformers serve`, which loads whatever folder it is asked for; it ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1"]
    with log.open("w") as said:
        server = subprocess.Popen(
            [*command, "--port", str(port)], stdout=said, stderr=said, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    try:
        end = time.monotonic() + 300
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                break
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, "the server did not come up"
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait(30)
