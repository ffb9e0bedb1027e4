"""A served schedule does not wait in silence: it waits for its server, names its next run and says what is wrong."""

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import SCHEDULE_TYPES, CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, State

from flows.runs import runs_in

EVERY_NIGHT = "0 2 * * *"
_KEPT = ("schedule", "active", "max_scheduled_runs", "parameters", "slug")  # of a schedule that is registered again
LOOK = 5.0  # seconds between two looks at the server
PATIENCE = timedelta(minutes=1)  # with a server that plans nothing, starts nothing or does not answer
REPEAT = timedelta(hours=1)  # until a warning is said again
NO_SERVER = """no Prefect server is named. Start one and say where it is:
    prefect server start
    export PREFECT_API_URL=http://127.0.0.1:4200/api"""
NOTHING = """the server plans no run of {name}, though its schedule is active. Look at
  - the server's log: errors of `schedule_deployments` name the cause. The server's environment must hold the versions
    of requirements.lock (Prefect's scheduler fails with SQLAlchemy 2.1)
  - the server's settings: PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED must not be false
  - the schedule: a server plans 100 days ahead, a run that is farther off is planned later"""


class Finding(NamedTuple):
    """What is to be said of a schedule; trouble is said again and again, once it has lasted for `patience`."""

    text: str
    trouble: bool = False
    patience: timedelta = timedelta(0)


class Outlook(NamedTuple):
    """What a server has in store for a deployment.

    `resume` says how a paused one is resumed (None: it is not paused); `due` is the next run to come, `late` the first
    one whose time is over and that has not started (both with their time zone, or None).
    """

    resume: str | None
    due: datetime | None
    late: datetime | None


class Herald:
    """Decides what is said when: news at once and once, trouble after its patience and then every hour."""

    def __init__(self) -> None:
        self.finding: Finding | None = None
        self.since = self.said = datetime.min.replace(tzinfo=UTC)

    def hear(self, finding: Finding, now: datetime) -> str | None:
        """The line to print about a finding that holds now, if any."""
        if finding != self.finding:
            self.finding, self.since, self.said = finding, now, datetime.min.replace(tzinfo=UTC)
        told = self.said >= self.since
        if now - self.since < finding.patience or (told and not (finding.trouble and now - self.said >= REPEAT)):
            return None
        self.said = now
        return f"WARNING: {finding.text}" if finding.trouble else finding.text


def judge(name: str, outlook: Outlook, now: datetime) -> Finding:
    """What a deployment's outlook means to the person who serves it."""
    if outlook.resume:
        return Finding(f"{name} is paused: no run will start. {outlook.resume}", trouble=True)
    if outlook.due is None:
        return Finding(NOTHING.format(name=name), trouble=True, patience=PATIENCE)
    if outlook.late and now - outlook.late >= PATIENCE:
        text = f"the run of {name} that was due {_clock(outlook.late)} has not started: it waits for the one that runs"
        return Finding(f"{text} (`prefect flow-run ls --state Running`)", trouble=True)
    return Finding(f"next run of {name}: {_clock(outlook.due)}")


def look(client: SyncPrefectClient, deployment: UUID, name: str, now: datetime) -> Outlook:
    """Ask the server about a deployment. Raises httpx.HTTPError or ObjectNotFound."""
    times = [moment for moment, _ in _planned(client, deployment)]
    return Outlook(
        _resume(client.read_deployment(deployment), name),
        next((moment for moment in times if moment > now), None),
        next((moment for moment in times if moment <= now), None),
    )


def skip_missed(client: SyncPrefectClient, deployment: UUID, now: datetime) -> list[str]:
    """Cancel the planned runs whose time has passed, but for the last one; returns their names.

    A server plans many days ahead. Where nobody served them (the machine was off), all of them would start when
    somebody does, one after the other, and do the same thing each time. To be called before this process serves.
    """
    missed = [run for moment, run in _planned(client, deployment) if moment <= now][:-1]
    for run in missed:
        state: State[Any] = Cancelled(message="nobody served it at its time; the last one missed runs for all of them")
        client.set_flow_run_state(run.id, state, force=True)
    return [run.name for run in missed]


def _planned(client: SyncPrefectClient, deployment: UUID) -> list[tuple[datetime, FlowRun]]:
    """The runs that the schedule of a deployment has planned and that have not begun, the next one first."""
    planned = [run for run in runs_in(client, deployment, [StateType.SCHEDULED]) if run.auto_scheduled]
    times = [(run.next_scheduled_start_time, run) for run in planned if run.next_scheduled_start_time]
    return sorted(times, key=lambda planned: planned[0])


def hours(name: str, cron: str | None) -> list[DeploymentScheduleCreate]:
    """The schedules to register `flow/deployment` with, since registering replaces those that the server has.

    Without a cron they are those that the server has, as somebody may have edited them there, or else every night.
    A cron takes their place, and what it replaces is said; what was paused stays paused.
    """
    deployment = _registered(name)
    known = deployment.schedules if deployment else []
    if known and cron is None:
        return [DeploymentScheduleCreate(**one.model_dump(include={*_KEPT})) for one in known]
    wanted = CronSchedule(cron=cron or EVERY_NIGHT, timezone="UTC")
    others = sorted(_written(one.schedule) for one in known if _written(one.schedule) != _written(wanted))
    if others:
        text = f"{name} ran at {', '.join(others)} and now runs at {_written(wanted)}; leave out --cron to keep the"
        print(f"{text} hours that the server has", file=sys.stderr, flush=True)
    return [DeploymentScheduleCreate(schedule=wanted, active=all(one.active for one in known))]


def paused(name: str) -> bool:
    """Whether somebody has paused `flow/deployment` as a whole, which registering it again would resume."""
    deployment = _registered(name)
    return bool(deployment and deployment.paused)


def _registered(name: str) -> DeploymentResponse | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(name)
        except ObjectNotFound:
            return None


def _written(schedule: SCHEDULE_TYPES) -> str:
    """A schedule as a person would write it: its cron and time zone, or what stands for them."""
    said = schedule.model_dump(mode="json", exclude={"anchor_date", "day_or"}, exclude_none=True)
    zone = said.pop("timezone", "UTC")
    return f"{', '.join(f'{key} {value}' for key, value in said.items())} {zone}"


def wait_for_server() -> None:
    """Return when the server of PREFECT_API_URL answers; say that it is awaited. Exits where no server is named."""
    url = PREFECT_API_URL.value()
    if not url:
        sys.exit(NO_SERVER)
    herald = Herald()
    with get_client(sync_client=True) as client:
        while error := client.api_healthcheck():
            say(herald, Finding(f"waiting for the Prefect server at {url}: {error}", trouble=True))
            time.sleep(1)
    if herald.finding:
        say(herald, Finding(f"the Prefect server at {url} is up"))


def need_server() -> None:
    """Exit where a server is named and does not answer; where none is named, Prefect starts one for the run."""
    url = PREFECT_API_URL.value()
    if not url:
        return
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            sys.exit(
                f"no Prefect server answers at PREFECT_API_URL = {url}: {error}. Start it with `prefect server start`, "
                "or unset PREFECT_API_URL (`prefect config unset` where a profile says it): the run then brings its own"
            )


def watch(name: str) -> None:
    """Say for ever what the server has in store for `flow/deployment`: the next run, or what is wrong."""
    herald = Herald()
    with get_client(sync_client=True) as client:
        while True:
            now = datetime.now(UTC)
            try:
                finding = judge(name, look(client, client.read_deployment_by_name(name).id, name, now), now)
            except ObjectNotFound:
                finding = Finding(f"{name} is gone from the server: start this command again", trouble=True)
            except httpx.HTTPError as error:
                text = f"the Prefect server does not answer: {type(error).__name__}"
                finding = Finding(text, trouble=True, patience=PATIENCE)
            say(herald, finding)
            time.sleep(LOOK)


def say(herald: Herald, finding: Finding) -> None:
    """Print what a herald has to say about a finding that holds now."""
    if line := herald.hear(finding, datetime.now(UTC)):
        print(line, file=sys.stderr, flush=True)


def _resume(deployment: DeploymentResponse, name: str) -> str | None:
    if deployment.paused:
        return "Resume it on its page of the UI."
    paused = [schedule.id for schedule in deployment.schedules if not schedule.active]
    if not paused:
        return None
    return f"Resume it in the UI, or with: prefect deployment schedule resume {name} {paused[0]}"


def _clock(moment: datetime) -> str:
    """UTC, as the five fields are read, and the time of this machine where it is another."""
    there, here = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC", moment.astimezone()
    return there if not here.utcoffset() else f"{there} ({here:%H:%M %Z} here)"
