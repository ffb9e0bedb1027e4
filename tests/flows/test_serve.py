"""The scheduled pipeline on a real server: a served run that is cancelled or killed leaves no process behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import alive, read, until

from flows.pipeline import ROOT, reproduce

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's"),
]


@pytest.fixture
def served(project: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The deployment's id, served by a process whose stage `first` never ends."""
    from prefect.settings import PREFECT_API_URL

    reproduce("data.dvc", project, print)
    variables = {"HANG": "first", "PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.serve", "--name", "test", "--cron", "0 3 1 1 *"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, start_new_session=True) as server:
        try:
            yield until(lambda: deployment_id("saliency-r1/test"), 120)
        finally:
            os.killpg(server.pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_an_ended_run_leaves_no_process_behind(how: str, served: str, project: Path) -> None:
    run = asyncio.run(start(served, project))
    training, dvc = map(int, until(lambda: read(project / "pids" / "first"), 120).split())
    assert alive(training)
    if how == "cancel":
        asyncio.run(cancel(run))
    else:
        os.kill(psutil.Process(dvc).ppid(), signal.SIGKILL)  # the process of the flow run
    until(lambda: not alive(training) and not alive(dvc), 90)
    until(lambda: asyncio.run(ended(run)), 90)  # else it would keep its place, and the next run would wait


def deployment_id(name: str) -> str | None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    async def find() -> str | None:
        async with get_client() as client:
            try:
                return str((await client.read_deployment_by_name(name)).id)
            except ObjectNotFound:
                return None

    return asyncio.run(find())


async def start(deployment: str, folder: Path) -> Any:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        run = await client.create_flow_run_from_deployment(deployment, parameters={"folder": str(folder)})
        return run.id


async def ended(run: Any) -> bool:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        state = (await client.read_flow_run(run)).state
        return state is not None and state.is_final()


async def cancel(run: Any) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    async with get_client() as client:
        await client.set_flow_run_state(run, Cancelling(), force=True)
