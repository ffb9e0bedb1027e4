"""The schedule on a real server, as the README has it: runs start by themselves, and what goes wrong is said.

A cron of every minute stands for every night's. Minutes are waited for once: the site starts everything at the same
time, and the tests look on.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.states import Cancelling
from prefect_site import EVERY_MINUTE, Site, free_port, kill
from processes import alive, read, until

from flows.pipeline import ROOT
from saliency_r1.registry.nights import nights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's"),
]
COMMIT = "git add --all; git -c user.name=t -c user.email=t@t commit --quiet --message run"


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, path_of_python: str, make_project: Callable[[Path], Path]
) -> Iterator[Site]:
    """One server and five served schedules, one of them before the server; and a server that schedules nothing."""
    site = Site(tmp_path_factory.mktemp("site"), path_of_python, make_project)
    try:
        for name, hang in {"cancelled": "first", "killed": "first", "paused": "", "mute": "", "readme": ""}.items():
            site.project(name, hang)
        site.serve("cancelled")
        site.says("cancelled", "waiting for the Prefect server")

        server, schedule = readme_commands()
        site.start("server", server, site.folder / "readme", PREFECT_SERVER_API_PORT=str(site.port))
        mute = free_port()
        site.start(
            "mute-server",
            f"exec prefect server start --port {mute}",
            site.folder,
            PREFECT_HOME=str(site.folder / "mute-home"),
            PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED="false",
        )
        site.serve("mute", mute)
        site.says("cancelled", "is up")
        for name in ("killed", "paused"):
            site.serve(name)
        site.start(
            "readme",
            # The run has written records that a person commits; a night refuses edits that are in no commit.
            re.sub(r"(?m)^(.* flows\.pipeline\b.*)$", rf"\1\n{COMMIT}", schedule)
            .replace("4200", str(site.port))
            .replace("0 2 * * *", EVERY_MINUTE),
            site.folder / "readme",
        )
        site.says("paused", "next run of saliency-r1/paused")
        pause(site, "paused")
        yield site
    finally:
        site.close()


def test_an_ended_run_leaves_no_process_and_the_next_one_runs(site: Site) -> None:
    """A run that is cancelled; a machine that goes down in the middle of one."""
    stages = {
        name: list(map(int, until(lambda name=name: read(site.folder / name / "pids" / "first"), 120).split()))
        for name in ("cancelled", "killed")
    }
    assert all(alive(pid) for pids in stages.values() for pid in pids)
    (run,) = site.runs("cancelled", "Running")
    site.client.set_flow_run_state(run.id, Cancelling(), force=True)
    serving = next(process for process in site.processes if process.args[2].count("--name killed"))
    kill(serving)
    for name, pids in stages.items():
        until(lambda pids=pids: not any(alive(pid) for pid in pids), 180)
        (site.folder / name / "hang").unlink()
    site.serve("killed")
    for name in stages:
        assert until(lambda name=name: site.runs(name, "Completed"), 180)
        assert [night for night in nights(site.folder / name) if night.metrics]
    until(lambda: site.runs("cancelled", "Cancelled"), 180)
    assert site.runs("killed", "Crashed"), "a killed run is Running for ever"


def test_the_commands_of_the_readme_retrain_by_themselves(site: Site) -> None:
    """Two scheduled runs in a row, each within three minutes."""
    site.says("readme", "next run of saliency-r1/nightly")
    assert (site.folder / "readme" / "artifacts" / "metrics" / "metrics.json").exists(), "the flow without a schedule"
    first, second, *_ = until(lambda: len(runs := site.runs("nightly", "Completed")) >= 2 and runs, 360)
    for run in (first, second):
        assert run.end_time - run.expected_start_time < timedelta(minutes=2)
    assert second.expected_start_time - first.expected_start_time == timedelta(minutes=1)
    assert "Traceback" not in site.log("readme")


def test_a_paused_schedule_starts_nothing_and_says_so(site: Site) -> None:
    site.says("paused", "WARNING: saliency-r1/paused is paused: no run will start")
    pausing = (site.folder / "paused.log").stat().st_mtime
    serving = next(process for process in site.processes if process.args[2].count("--name paused"))
    kill(serving)
    site.serve("paused")
    until(lambda: site.log("paused").count("is paused: no run will start") == 2, 180)  # and is so when served again
    until(lambda: time.time() - pausing > 75, 90)
    assert not [run for run in site.runs("paused") if run.start_time > datetime.fromtimestamp(pausing + 10, UTC)]
    assert not site.runs("paused", "Scheduled")


def test_a_server_that_schedules_nothing_is_named(site: Site) -> None:
    site.says("mute", "WARNING: the server plans no run of saliency-r1/mute", 300)


def test_the_server_has_nothing_to_complain_about(site: Site) -> None:
    """The last one: all of the above has happened."""
    assert "Check out the dashboard" in site.log("server")
    for record in re.split(r"(?m)^(?=[\d:.]+ \| )", site.log("server")):
        # On a machine with too much to do SQLite may refuse a write; who asked for it asks again.
        if "database is locked" not in record:
            for word in ("Traceback", "ERROR", "CRITICAL", "Exception"):
                assert word not in record, record[-4000:]


def readme_commands() -> tuple[str, str]:
    """The commands of the README's section on the schedule: the server's, and those of another terminal."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Schedule\n")[2]
    block = section.strip("\n").partition("\n\n")[0]
    server, *others = [line.strip() for line in block.splitlines()]
    assert server.startswith("prefect server start")
    assert any("flows.pipeline" in line for line in others)
    assert '--cron "0 2 * * *"' in others[-1]
    assert "127.0.0.1:4200" in others[0]
    return server, "\n".join(others)


def pause(site: Site, name: str) -> None:
    deployment = site.client.read_deployment_by_name(f"saliency-r1/{name}")
    site.client.update_deployment_schedule(deployment.id, deployment.schedules[0].id, active=False)
