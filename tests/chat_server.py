"""A server that speaks the chat protocol and misbehaves on purpose."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = json.dumps({"expressions": ["the red disc"], "reasoning": "A red disc stands out."})


def completion(content: Any, finish: str = "stop", **message: Any) -> tuple[int, bytes]:
    choice = {"message": {"content": content} | message, "finish_reason": finish}
    reply = {"choices": [choice], "usage": {"total_tokens": 100}, "model": "served-model"}
    return 200, json.dumps(reply).encode()


class Server(ThreadingHTTPServer):
    """Answers the n-th request as the n-th of `replies` says, and from then on as the last."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[Callable[[BaseHTTPRequestHandler], tuple[Any, ...] | None]] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()
        self.busy = self.busiest = 0
        self.looks: list[str] = []
        self.health = 200  # the status of every GET

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.bodies)
            self.server.bodies.append(body)
            self.server.keys.append(self.headers.get("Authorization"))
            self.server.busy += 1
            self.server.busiest = max(self.server.busiest, self.server.busy)
        answer = self.server.replies[min(number, len(self.server.replies) - 1)](self)
        with self.server.lock:
            self.server.busy -= 1
        if answer is None:
            self.close_connection = True
            return
        status, content, *headers = answer
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.looks.append(self.path)
        self.send_response(self.server.health)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass
