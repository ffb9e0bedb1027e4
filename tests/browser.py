"""A headless Chromium, spoken to in its own protocol: enough to fill a page in, read it and take its picture."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--remote-debugging-port=0",
)  # fmt: skip


class Tab:
    """A page that is open."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)
        self.requested: list[str] = []  # every address that the page has asked for
        self.said: list[str] = []  # dialogs that it has opened, and errors of its scripts

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol and its result; what happens on the page meanwhile is kept."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=120))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            if message.get("method") == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
            elif message.get("method") == "Page.javascriptDialogOpening":
                self.said.append(message["params"]["message"])

    def run(self, script: str) -> Any:
        """The value of a script's expression."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str, seconds: float = 120) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"not within {seconds} s: {script}\n{self.run('document.body.innerText')}"
            time.sleep(0.1)
        return value

    def open(self, address: str) -> None:
        self.call("Network.enable")
        self.call("Page.enable")
        self.call("Page.navigate", url=address)
        self.until("document.readyState == 'complete'")

    def upload(self, selector: str, files: list[Path]) -> None:
        """Give files to an input element."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]
        self.call("DOM.setFileInputFiles", files=[str(path.resolve()) for path in files], objectId=found["objectId"])

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({selector!r}).click()")

    def point(self, selector: str) -> None:
        """Put the mouse over the middle of an element."""
        box = f"document.querySelector({selector!r}).getBoundingClientRect()"
        x, y = self.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def write(self, selector: str, text: str) -> None:
        """Put a text into a field, as typing it would."""
        self.run(
            f"(field => {{ Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value').set.call(field, "
            f"{json.dumps(text)}); field.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
            f"(document.querySelector({selector!r}))"
        )

    def download(self, selector: str, folder: Path) -> Path:
        """The file that a click on an element brings."""
        folder.mkdir()
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder.resolve()))
        self.click(selector)
        end = time.monotonic() + 120
        while not (found := [path for path in folder.iterdir() if not path.name.endswith(".crdownload")]):
            assert time.monotonic() < end, f"{selector} brought no file"
            self.run("1")
            time.sleep(0.1)
        return found[0]

    def picture(self, path: Path) -> None:
        """What is on the screen, as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def opened(folder: Path, width: int = 1400, height: int = 1000) -> Iterator[Tab]:
    """An empty tab of a browser whose profile lies in `folder`; it ends with the block."""
    from websockets.sync.client import connect

    command = [str(CHROMIUM), *_OPTIONS, f"--window-size={width},{height}", f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = folder / "DevToolsActivePort"
        end = time.monotonic() + 120
        while not (port.is_file() and len(port.read_text().split()) == 2):
            assert process.poll() is None, "the browser did not start"
            assert time.monotonic() < end, "the browser is not ready"
            time.sleep(0.1)
        number = port.read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{number}/json/list") as answer:
            (address,) = [tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page"]
        with connect(address, max_size=None, proxy=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(30)
