"""A Hugging Face hub of one repository, for `HF_ENDPOINT`: enough of its interface for a download."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from .toys import EMPTY_ZIP

COMMIT = "c" * 40
FILES = {"config.json": b'{"hidden": 8}', "weights/model.safetensors": bytes(1000), "set.zip": EMPTY_ZIP}


class Handler(BaseHTTPRequestHandler):
    """`/api/...` describes the repository, `/.../resolve/<revision>/<path>` gives its files."""

    def do_HEAD(self) -> None:
        self.do_GET(head=True)

    def do_GET(self, head: bool = False) -> None:
        headers: dict[str, str] = {}
        body: bytes | None = None
        if self.path.startswith(("/api/models/owner/name", "/api/datasets/owner/name")):
            files = [{"type": "file", "path": name, "size": len(body), "oid": "1"} for name, body in FILES.items()]
            about = {"id": "owner/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            body = json.dumps(files if "/tree/" in self.path else about).encode()
            headers["Content-Type"] = "application/json"
        elif "/resolve/" in self.path:
            body = FILES.get(self.path.split("/resolve/")[1].partition("/")[2])
            if body is not None:
                headers |= {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self.send_response(404 if body is None else 200)
        for key, value in (headers | {"Content-Length": str(len(body or b""))}).items():
            self.send_header(key, value)
        self.end_headers()
        if not head:
            self.wfile.write(body or b"")

    def log_message(self, *args: object) -> None:
        """Nothing."""


def serve() -> str:
    """Start it on this machine, until the process ends, and return its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
