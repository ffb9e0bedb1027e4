"""kill -9 at random moments of a night: of its server, of who serves it, of its own processes, of all at once.

Two rounds; as many as one likes, and others, by `KILLS=10 SEED=0 pytest -m slow tests/flows/test_random_kills.py`.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun, StateType
from prefect_site import Site
from processes import alive, until

from flows.tree import dvc
from saliency_r1.registry.git import git, tags
from saliency_r1.registry.nights import nights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's"),
]
KILLS, SEED = int(os.environ.get("KILLS", "2")), int(os.environ.get("SEED", "3"))
PIPELINE = ("dvc.yaml", "data.dvc")  # the project's other one, pretrain/, is no night's business
VICTIMS = ("server", "serving", "night", "one of its processes", "everything")


class Host:
    """A server, a project that is served, and what a person does after a crash: start again what is gone."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.server = self.serving = subprocess.Popen(["true"])
        self.server.wait()

    def restart(self) -> None:
        """Start what does not run."""
        if self.server.poll() is not None:
            self.server = self.site.serve_api()
        if self.serving.poll() is not None:
            self.serving = self.site.start(
                "project",
                'exec python -m flows.serve --name project --cron "0 2 29 2 *" --force',  # the test says when
                self.site.folder / "project",
                PREFECT_API_URL=f"http://127.0.0.1:{self.site.port}/api",
                PREFECT_RUNNER_POLL_FREQUENCY="1",
            )
        until(lambda: self.site.client.api_healthcheck() is None, 180)

    def due(self) -> FlowRun:
        """A night that is due now."""
        deployment = until(self._deployment, 120)
        return self.site.client.create_flow_run_from_deployment(deployment)

    def _deployment(self) -> Any:
        found = [one for one in self.site.client.read_deployments() if one.name == "project"]
        return found and found[0].id

    def state(self, run: FlowRun) -> StateType | None:
        return self.site.client.read_flow_run(run.id).state_type

    def descendants(self) -> list[psutil.Process]:
        """The processes of the night, its own first: what the serving process has started."""
        try:
            return psutil.Process(self.serving.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def strike(self, victim: str, rng: random.Random) -> None:
        """kill -9."""
        below = self.descendants()
        pids = {
            "server": [self.server.pid],
            "serving": [self.serving.pid],
            "night": [each.pid for each in below[:1]],
            "one of its processes": [rng.choice(below).pid] if below else [],
            "everything": [self.server.pid, self.serving.pid, *(each.pid for each in below)],
        }[victim]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.kill(pid, signal.SIGKILL)
        for process in (self.server, self.serving):
            if process.pid in pids:
                process.wait(60)
        if self.serving.pid in pids:
            until(lambda: not any(alive(each.pid) for each in below), 180)


@pytest.fixture
def host(
    tmp_path: Path,
    path_of_python: str,
    make_project: Callable[[Path], Path],
    make_remotes: Callable[[Path, Path], Path],
) -> Iterator[Host]:
    """The project has a bare repository as its origin and a folder as DVC's remote."""
    site = Site(tmp_path, path_of_python, make_project)
    project = site.project("project")
    make_remotes(project, tmp_path)
    yield Host(site)
    site.close()


def test_after_any_kill_the_next_night_runs_and_every_record_is_whole(host: Host, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    host.restart()
    run, begun = host.due(), time.monotonic()
    until(lambda: host.state(run) == StateType.COMPLETED, 300)
    length = time.monotonic() - begun
    victims = [VICTIMS[(SEED + index) % len(VICTIMS)] for index in range(KILLS)]
    for number, victim in enumerate(rng.sample(victims, KILLS)):
        struck = host.due()
        time.sleep(rng.uniform(0, length))
        host.strike(victim, rng)
        print(f"{number}: {victim}, at {len(tags(tmp_path / 'project', 'night/*'))} nights", flush=True)
        host.restart()
        following = host.due()
        until(lambda run=following: host.state(run) == StateType.COMPLETED, 420)
        until(lambda run=struck: host.state(run) in (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED), 180)
    every_record_is_whole(tmp_path)
    assert not [name for name in host.site.log("server").splitlines() if "CRITICAL" in name]


def every_record_is_whole(folder: Path) -> None:
    """A clone of the origin at each night's tag, and what DVC's remote has: nothing is left to do there."""
    project = folder / "project"
    recorded = [night for night in nights(project) if night.commit]
    assert len(recorded) > KILLS
    assert git(project, "status", "--porcelain") == ""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", "--branch", "main", str(folder / "bare.git"), str(clone)], check=True)
    assert set(tags(clone, "night/*")) == set(tags(project, "night/*")) == {f"night/{night.name}" for night in recorded}
    for night in recorded:
        assert night.metrics == {"cgpo": {"scenes-sod": {"Sm": 0.9}}}
        git(clone, "checkout", "--quiet", f"night/{night.name}")
        dvc(clone, "pull", "--quiet", *PIPELINE)
        assert json.loads(dvc(clone, "status", "--json", *PIPELINE)) == {}
