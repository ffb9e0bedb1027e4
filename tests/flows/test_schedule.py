"""What a served schedule says and when, without waiting; and the lock file's SQLAlchemy with Prefect's scheduler."""

import asyncio
import threading
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from packaging.requirements import Requirement
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule
from prefect.runner import Runner
from prefect.settings import PREFECT_API_URL, temporary_settings
from processes import until

from flows.alive import bury
from flows.locks import only_run
from flows.pipeline import ROOT
from flows.schedule import Herald, Outlook, hours, judge, look, need_server, skip_missed
from flows.serve import serve

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DUE = datetime(2026, 3, 2, 2, tzinfo=UTC)


def lines(*turns: tuple[float, Outlook]) -> list[tuple[float, str]]:
    """What is said when the server's outlook is asked for at these minutes, and at which minute."""
    herald = Herald()
    said = []
    for minute, outlook in turns:
        now = NOON + timedelta(minutes=minute)
        if line := herald.hear(judge("f/nightly", outlook, now), now):
            said.append((minute, line))
    return said


def test_a_run_by_hand_ends_in_one_line_where_the_named_server_is_down() -> None:
    words = r"^no Prefect server answers at PREFECT_API_URL = http://127\.0\.0\.1:9/api: .*prefect server start"
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), pytest.raises(SystemExit, match=words):
        need_server()
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        need_server()  # Prefect starts one


def test_the_next_run_is_named_once_and_the_one_after_it_again() -> None:
    outlook = Outlook(None, DUE, None)
    later = Outlook(None, DUE + timedelta(days=1), None)
    (first, named), (second, again) = lines((0, outlook), (1, outlook), (90, outlook), (900, later), (901, later))
    assert (first, second) == (0, 900)
    assert "f/nightly" in named
    assert "2026-03-02 02:00 UTC" in named
    assert "2026-03-03 02:00 UTC" in again
    assert "WARNING" not in named + again


def test_a_server_that_plans_nothing_is_loudly_named_after_a_minute_and_then_every_hour() -> None:
    said = lines(*((minute, Outlook(None, None, None)) for minute in (0, 0.5, 0.9, 1, 2, 30, 60.5, 61, 62, 121)))
    assert [minute for minute, _ in said] == [1, 61, 121]
    for _, line in said:
        assert line.startswith("WARNING: the server plans no run of f/nightly")
        assert "schedule_deployments" in line
        assert "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED" in line


def test_a_server_that_needs_a_moment_is_not_blamed() -> None:
    ((minute, line),) = lines(
        (0, Outlook(None, None, None)), (0.3, Outlook(None, DUE, None)), (2, Outlook(None, DUE, None))
    )
    assert minute == 0.3
    assert line.startswith("next run of f/nightly: 2026-03-02 02:00 UTC")


def test_a_pause_is_said_at_once_and_the_end_of_it_too() -> None:
    paused = Outlook("Resume it.", None, None)
    said = lines((0, Outlook(None, DUE, None)), (1, paused), (5, paused), (61, paused), (62, Outlook(None, DUE, None)))
    assert [minute for minute, _ in said] == [0, 1, 61, 62]
    assert said[1][1] == "WARNING: f/nightly is paused: no run will start. Resume it."


def test_a_run_that_does_not_start_at_its_time_is_named() -> None:
    late = Outlook(None, DUE, NOON)
    said = lines((0.2, late), (0.9, late), (1, late), (2, late))
    assert [minute for minute, _ in said] == [0.2, 1]
    assert "due 2026-03-01 12:00 UTC" in said[1][1]
    assert "has not started" in said[1][1]


class Pages:
    """A server with so many planned runs, one a minute, all but the last in the past; it gives 200 at a time."""

    def __init__(self, count: int) -> None:
        self.runs = [
            FlowRun(flow_id=uuid4(), auto_scheduled=True, next_scheduled_start_time=NOON + timedelta(minutes=number))
            for number in range(2 - count, 2)
        ]
        self.set: list[UUID] = []

    def read_flow_runs(self, offset: int = 0, **_: Any) -> list[FlowRun]:
        return sorted(self.runs, key=lambda run: str(run.id))[offset : offset + 200]

    def read_deployment(self, deployment: UUID) -> Any:
        return SimpleNamespace(paused=False, schedules=[])

    def set_flow_run_state(self, run: UUID, state: Any, force: bool) -> None:
        self.set.append(run)


def test_more_planned_runs_than_the_server_gives_at_once_are_all_seen(tmp_path: Path) -> None:
    server: Any = Pages(450)
    outlook = look(server, uuid4(), "f/nightly", NOON)
    assert outlook == Outlook(None, NOON + timedelta(minutes=1), NOON - timedelta(minutes=448))
    assert len(skip_missed(server, uuid4(), NOON)) == 448
    assert len(bury(server, tmp_path, uuid4())) == 450
    assert set(server.set) == {run.id for run in server.runs}


@pytest.mark.slow
def test_of_runs_that_were_missed_while_nobody_served_only_the_last_one_runs(prefect_server: None) -> None:
    @flow(name="missed")
    def nothing() -> None: ...

    now = datetime.now(UTC)
    with get_client(sync_client=True) as client:
        served = nothing.to_deployment("nightly", cron="0 2 * * *")
        deployment = UUID(str(served.apply()))
        span = {"start_time": str(now - timedelta(days=3)), "end_time": str(now + timedelta(days=2)), "min_runs": 5}
        client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment}, json=span)
        by_hand = client.create_flow_run_from_deployment(deployment)
        skipped = skip_missed(client, deployment, now)
        assert len(skipped) == 2
        runs = {run.name: run for run in client.read_flow_runs() if run.deployment_id == deployment}
        assert {runs[name].state_name for name in skipped} == {"Cancelled"}
        assert "nobody served it" in str(runs[skipped[0]].state.message)  # type: ignore[union-attr]
        left = [run for run in runs.values() if run.state_name == "Scheduled"]
        assert by_hand.name in {run.name for run in left}
        due = [run for run in left if run.auto_scheduled and run.next_scheduled_start_time <= now]  # type: ignore[operator]
        assert len(due) == 1
        assert now - due[0].next_scheduled_start_time < timedelta(days=1)  # type: ignore[operator]
        assert skip_missed(client, deployment, now) == []


@pytest.mark.slow
def test_hours_that_were_edited_on_the_server_stay_unless_a_cron_is_given(
    prefect_server: None, capsys: pytest.CaptureFixture[str]
) -> None:
    @flow(name="edited")
    def nothing() -> None: ...

    def registered(cron: str | None) -> list[tuple[str, str, bool]]:
        """What the server has after the flow was served with this cron."""
        deployment = UUID(str(nothing.to_deployment("nightly", schedules=hours("edited/nightly", cron)).apply()))
        with get_client(sync_client=True) as client:
            known = client.read_deployment(deployment).schedules
        return sorted((one.schedule.cron, one.schedule.timezone, one.active) for one in known)  # type: ignore[union-attr]

    assert registered(None) == [("0 2 * * *", "UTC", True)]
    assert registered("0 2 * * *") == [("0 2 * * *", "UTC", True)]
    assert capsys.readouterr().err == ""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("edited/nightly").id
        client.create_deployment_schedules(
            deployment, [(CronSchedule(cron="30 4 * * 1", timezone="Asia/Tokyo"), False)]
        )
    edited = [("0 2 * * *", "UTC", True), ("30 4 * * 1", "Asia/Tokyo", False)]
    assert registered(None) == edited
    assert registered(None) == edited
    assert capsys.readouterr().err == ""
    assert registered("0 5 * * *") == [("0 5 * * *", "UTC", False)], "what was paused stays paused"
    said = capsys.readouterr().err
    assert "edited/nightly ran at cron 0 2 * * * UTC, cron 30 4 * * 1 Asia/Tokyo and now" in said
    assert "runs at cron 0 5 * * * UTC; leave out --cron to keep the hours" in said


@pytest.mark.slow
def test_who_stops_serving_pauses_nothing_and_what_a_person_paused_stays_so(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def come_and_go(runner: Runner) -> None:
        async with runner:
            pass

    monkeypatch.setattr(Runner, "start", come_and_go)
    monkeypatch.setattr("flows.serve._watched", lambda name: None)
    with get_client(sync_client=True) as client:
        serve("stopped", None, False)
        deployment = client.read_deployment_by_name("saliency-r1/stopped")
        assert not deployment.paused
        client.pause_deployment(deployment.id)
        serve("stopped", None, False)
        assert client.read_deployment(deployment.id).paused
        client.resume_deployment(deployment.id)
        serve("stopped", None, False)
        assert not client.read_deployment(deployment.id).paused


def test_a_second_run_of_a_folder_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with only_run(tmp_path, order.append):
            order.append("second")

    with only_run(tmp_path, order.append):
        waiting = threading.Thread(target=second)
        waiting.start()
        until(lambda: order, 20)
        order.append("first")
    waiting.join(20)
    said, *ended = order
    assert "another run holds" in said
    assert ended == ["first", "second"]


def test_the_lock_file_is_within_the_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    bounds = [Requirement(line) for line in [*project["dependencies"], *extras]]
    bounds = [bound for bound in bounds if not bound.extras]
    locked = dict(
        line.partition(";")[0].strip().lower().replace("_", "-").split("==")
        for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    assert {bound.name for bound in bounds} >= {"sqlalchemy", "fastapi"}
    for bound in bounds:
        assert bound.specifier.contains(locked[bound.name.lower().replace("_", "-")]), bound


def test_the_servers_scheduler_plans_runs_with_the_installed_packages(tmp_path: Path) -> None:
    """What the server does every minute, on a database of its own: it fails with an SQLAlchemy that does not fit."""
    from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{tmp_path}/prefect.db"}):
        planned = asyncio.run(plan("0 2 * * *"))
    assert len(planned) >= 3
    assert {moment.strftime("%H:%M") for moment in planned} == {"02:00"}


async def plan(cron: str) -> list[datetime]:
    """The runs that one turn of Prefect's scheduler plans for a deployment with this schedule."""
    from prefect.server import models
    from prefect.server.database import provide_database_interface
    from prefect.server.schemas.core import Deployment, DeploymentSchedule, Flow
    from prefect.server.schemas.schedules import CronSchedule
    from prefect.server.services.scheduler import schedule_deployments
    from sqlalchemy.schema import CreateTable

    database = provide_database_interface()
    async with (await database.engine()).begin() as connection:
        tables = {table.name: table for table in database.Base.metadata.sorted_tables}
        await connection.execute(CreateTable(tables.pop("artifact")))  # by itself: Prefect names an index of it twice
        await connection.run_sync(database.Base.metadata.create_all, tables=list(tables.values()))
    async with database.session_context(begin_transaction=True) as session:
        flow = await models.flows.create_flow(session=session, flow=Flow(name="flow"))
        schedules = [DeploymentSchedule(schedule=CronSchedule(cron=cron), active=True)]
        deployment = Deployment(name="nightly", flow_id=flow.id, schedules=schedules)
        await models.deployments.create_deployment(session=session, deployment=deployment)
    await schedule_deployments()
    async with database.session_context() as session:
        runs = await models.flow_runs.read_flow_runs(session=session)
        return [run.next_scheduled_start_time for run in runs if run.next_scheduled_start_time]
