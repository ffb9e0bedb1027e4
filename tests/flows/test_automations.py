"""The automations on a real server: what happens to nights reaches a webhook."""

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from prefect_site import Site, kill
from processes import read, until

from flows.automations import RULES

NIGHT = "exec python -m flows.night"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's"),
]


@pytest.fixture
def told() -> Iterator[tuple[str, list[str]]]:
    """The address of a webhook, and the messages it has got so far."""
    messages: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/json"
            messages.append(json.loads(body)["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", messages
        server.shutdown()


@pytest.fixture
def site(tmp_path: Path, path_of_python: str, make_project: Callable[[Path], Path]) -> Iterator[Site]:
    """A server, and two projects: in one of them a stage never ends."""
    site = Site(tmp_path, path_of_python, make_project)
    site.project("fails")
    site.project("killed", "first")
    site.serve_api()
    yield site
    site.close()


def test_a_failed_night_a_killed_one_and_none_at_all_are_told(site: Site, told: tuple[str, list[str]]) -> None:
    """The rules as they are, but for their hours: seconds here."""
    address, messages = told
    rules = site.folder / "fails" / "flows" / "automations.yaml"
    text = RULES.read_text(encoding="utf-8")
    quick, count = re.subn(r"within: (600|93600)", lambda found: f"within: {75 if found[1] == '600' else 25}", text)
    assert count == 2
    assert [rule["name"] for rule in yaml.safe_load(quick)] == ["run without a heartbeat", "run failed", "no night"]
    rules.write_text(quick, encoding="utf-8")
    url = {"PREFECT_API_URL": f"http://127.0.0.1:{site.port}/api", "NIGHT_WEBHOOK": address}
    often = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}  # the least that Prefect takes; 75 s bear one that is lost
    until(lambda: site.client.api_healthcheck() is None, 120)
    for _ in range(2):  # the second time replaces
        site.start("put", "exec python -m flows.automations", site.folder / "fails", **url).wait(180)
    assert site.log("put").count("automation: no night") == 2
    assert len(site.client.read_automations()) == 3

    killed = site.start("killed", NIGHT, site.folder / "killed", **often, **url)
    until(lambda: read(site.folder / "killed" / "pids" / "first"), 180)
    kill(killed)
    site.start("fails", NIGHT, site.folder / "fails", FAIL="first", **often, **url)

    until(lambda: [text for text in messages if "Failed, " in text and "expected in [0, 1]" in text], 240)
    until(lambda: [text for text in messages if text == "no night of saliency-r1 was completed in 26 hours"], 180)
    until(lambda: [text for text in messages if "Crashed, no heartbeat for ten minutes" in text], 300)
    # Prefect tells at least once: a busy database can make it act on the same event again.
    told_of = {text for text in messages if text.startswith("saliency-r1 ")}
    assert len(told_of) == 2, "\n".join(messages)
    states = sorted(run.state_name for run in site.client.read_flow_runs())
    assert states == ["Crashed", "Failed"]
