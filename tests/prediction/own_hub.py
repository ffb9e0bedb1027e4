"""A Hugging Face hub on this machine, for `HF_ENDPOINT`: repositories are made, written in one commit, and read."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Hub:
    """`repositories[name]` is {"private": bool, "files": {path: bytes}}; `requests` what was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._serve(b"")

            def do_GET(self) -> None:
                self._serve(b"")

            def do_POST(self) -> None:
                self._serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            def _serve(self, body: bytes) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                status, headers, content = hub.answer(self.command, self.path.partition("?")[0], body)
                self.send_response(status)
                for key, value in (headers | {"Content-Length": str(len(content))}).items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def commit(self, name: str) -> str:
        """The revision of a repository: a hash of what is in it."""
        files = self.repositories[name]["files"]
        return hashlib.sha1(repr(sorted((path, len(data)) for path, data in files.items())).encode()).hexdigest()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        def said(value: Any) -> tuple[int, dict[str, str], bytes]:
            return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()

        parts = path.strip("/").split("/")
        if path == "/api/validate-yaml":
            return said({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in self.repositories:
                return 409, {"Content-Type": "application/json"}, json.dumps({"url": f"{self.address}/{name}"}).encode()
            self.repositories[name] = {"private": asked.get("visibility") == "private", "files": {}}
            return said({"url": f"{self.address}/{name}", "name": name, "id": name})
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if name not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        own = self.repositories[name]
        if "preupload" in parts:
            asked = json.loads(body)["files"]
            modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]
            return said({"files": modes})
        if "commit" in parts and method == "POST":
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    own["files"][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "deletedFile":
                    del own["files"][entry["value"]["path"]]
            commit = self.commit(name)
            return said({"commitUrl": f"{self.address}/{name}/commit/{commit}", "commitOid": commit, "success": True})
        if "tree" in parts:
            files = own["files"].items()
            return said([{"type": "file", "path": file, "size": len(data), "oid": "1"} for file, data in files])
        if "resolve" in parts:
            data = own["files"].get("/".join(parts[parts.index("resolve") + 2 :]))
            if data is None:
                return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit(name)}, b""
            return 200, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.commit(name)}, data
        siblings = [{"rfilename": file, "size": len(data)} for file, data in own["files"].items()]
        return said({"id": name, "sha": self.commit(name), "private": own["private"], "siblings": siblings})
