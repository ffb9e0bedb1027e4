"""The scheduled nights (flows/night.py): `python -m flows.serve` registers them with a Prefect server and waits.

    prefect server start                                      # once, in another terminal; SQLite
    export PREFECT_API_URL=http://127.0.0.1:4200/api
    python -m flows.serve --cron "0 2 * * *"
    prefect deployment run saliency-r1/nightly                # not waiting for the hour

One run at a time: a second one waits until the first is over. DVC decides what a run has to do, so a night without new
data or code costs seconds; `--force` retrains every time. It says when the next run is due, and warns where none is.
Sweeps (flows/sweep.py) are served as well, for whoever starts one in the UI.
Prefect's runner gives up on a server that is away for some minutes; this command then waits and serves again.
"""

import argparse
import asyncio
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.runner import Runner
from prefect.schedules import Cron

from flows.alive import bury
from flows.night import night
from flows.pipeline import ROOT
from flows.schedule import EVERY_NIGHT, Finding, Herald, hours, paused, say, skip_missed, wait_for_server, watch
from flows.sweep import sweep

PAUSE = 10.0  # seconds between an end that nobody asked for and serving again


def main() -> None:
    """Register the deployment and serve it until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="nightly", help="name of the deployment")
    parser.add_argument(
        "--cron",
        help=f"when to run, as five cron fields, in UTC; by default as the server has it, at first {EVERY_NIGHT}",
    )
    parser.add_argument("--force", action="store_true", help="run every stage, even one that is up to date")
    options = parser.parse_args()
    name = f"{night.name}/{options.name}"
    try:
        Cron(options.cron or EVERY_NIGHT)
        Runner(name=options.name)
    except ValueError as error:
        parser.error(str(error))
    try:
        keep(lambda: serve(options.name, options.cron, options.force), name)
    except (KeyboardInterrupt, TerminationSignal):
        print(f"{name} is no longer served: no run will start until it is served again", flush=True)


class _Runner(Runner):
    """Prefect's, which pauses nothing when it ends, and ends at once where the server has gone.

    A pause is a person's. Who stops serving pauses nothing, so that what is missed meanwhile is planned and made up
    for, and another one that serves goes on. After an error a night that runs goes on as well, and is not waited for.
    """

    async def __aexit__(self, *exc_info: Any) -> None:
        if isinstance(error := exc_info[1], Exception):
            raise error
        await super().__aexit__(*exc_info)


def serve(deployment: str, cron: str | None, force: bool) -> None:
    """Wait for the server, register the deployment, and run what is due until the runner ends or gives up."""
    name = f"{night.name}/{deployment}"
    wait_for_server()
    # No limit at the server: `only_run` holds where a run was killed, too.
    runner = _Runner(name=deployment, limit=1, pause_on_shutdown=False)
    added = [
        runner.add_flow(
            night, deployment, schedules=hours(name, cron), paused=paused(name), parameters={"force": force}
        ),
        runner.add_flow(sweep, deployment),
    ]
    with get_client(sync_client=True) as client:
        if dead := [name for each in added for name in bury(client, ROOT, cast(UUID, each))]:
            print(f"killed, and now called crashed: {', '.join(dead)}", file=sys.stderr, flush=True)
        if missed := skip_missed(client, cast(UUID, added[0]), datetime.now(UTC)):
            text = f"{len(missed)} runs of {name} were missed while nobody served it, and are cancelled"
            print(f"{text}; the last one starts now", file=sys.stderr, flush=True)
    _watched(name)
    asyncio.run(runner.start())


@cache
def _watched(name: str) -> None:
    """Once a process: have a thread that says what the server has in store."""
    threading.Thread(target=watch, args=(name,), daemon=True).start()


def keep(serve: Callable[[], None], name: str, pause: Callable[[float], None] = time.sleep) -> None:
    """Serve, and after an error say so and serve again; returns when serving ends without one."""
    herald = Herald()
    while True:
        try:
            return serve()
        except Exception as error:  # whatever it was, the next night is due all the same
            say(herald, Finding(f"{name} was no longer served ({_cause(error)}): serving it again", trouble=True))
            pause(PAUSE)


def _cause(error: BaseException) -> str:
    """The first error of a group of errors, on one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())


if __name__ == "__main__":
    main()
