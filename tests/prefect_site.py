"""Prefect servers and served projects, as a person has them in terminals."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from processes import read, until

from flows.pipeline import ROOT

EVERY_MINUTE = "* * * * *"


class Site:
    """Prefect servers, and projects whose schedules are served; all processes are killed when it is closed."""

    def __init__(self, folder: Path, path: str, make_project: Callable[[Path], Path]) -> None:
        self.folder, self.make_project = folder, make_project
        self.port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = os.environ | {
            "PATH": path,
            "PREFECT_HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT / "src"),  # not the folder of `flows`: a project's own are run
        }
        self.client = SyncPrefectClient(f"http://127.0.0.1:{self.port}/api")

    def project(self, name: str, hang: str = "") -> Path:
        """A small project with this project's flows; the stage `hang` of it never ends."""
        project = self.make_project(self.folder / name)
        shutil.copytree(ROOT / "flows", project / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        (project / "src").symlink_to(ROOT / "src")
        if hang:
            (project / "hang").write_text(hang)
        return project

    def start(self, name: str, script: str, cwd: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Run a script of the shell in the background; what it prints goes to a log of this name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-ec", script],
                cwd=cwd,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def serve_api(self, **environment: str) -> subprocess.Popen[bytes]:
        """The site's own server, as the README starts it."""
        return self.start("server", f"exec prefect server start --port {self.port}", self.folder, **environment)

    def serve(self, name: str, port: int | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Serve the project of this name every minute, under the same name."""
        script = f'exec python -m flows.serve --name {name} --cron "{EVERY_MINUTE}"'
        url = f"http://127.0.0.1:{port or self.port}/api"
        return self.start(name, script, self.folder / name, PREFECT_API_URL=url, **environment)

    def log(self, name: str) -> str:
        """What the process of this name has printed so far."""
        return read(self.folder / f"{name}.log")

    def says(self, name: str, words: str, seconds: float = 120) -> None:
        """Wait until the log of this name contains these words."""
        until(lambda: words in self.log(name), seconds)

    def runs(self, name: str, state: str | None = None) -> list[FlowRun]:
        """The runs of a deployment that the server started by itself, those in a state or all, the first one first."""
        runs = self.client.read_flow_runs(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[name])),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        )
        return [run for run in runs if run.auto_scheduled and (run.state_name == state if state else run.start_time)]

    def close(self) -> None:
        """End everything that was started and still runs."""
        for process in reversed(self.processes):  # the servers were the first
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started, as a machine does that goes down."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
