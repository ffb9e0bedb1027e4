"""The scheduled nights (flows/night.py): `python -m flows.serve` registers them with a Prefect server and waits.

    prefect server start                                      # once, in another terminal; SQLite
    export PREFECT_API_URL=http://127.0.0.1:4200/api
    python -m flows.serve --cron "0 2 * * *"
    prefect deployment run saliency-r1/nightly                # not waiting for the hour

One run at a time: a second one waits until the first is over. DVC decides what a run has to do, so a night without new
data or code costs seconds; `--force` retrains every time. It says when the next run is due, and warns where none is.
"""

import argparse
import asyncio
import sys
import threading
from typing import cast
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.runner import Runner
from prefect.schedules import Cron

from flows.alive import bury
from flows.night import night
from flows.pipeline import ROOT
from flows.schedule import is_active, wait_for_server, watch


def main() -> None:
    """Register the deployment and serve it until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="nightly", help="name of the deployment")
    parser.add_argument("--cron", default="0 2 * * *", help="when to run, as five cron fields, in UTC")
    parser.add_argument("--force", action="store_true", help="run every stage, even one that is up to date")
    options = parser.parse_args()
    name = f"{night.name}/{options.name}"
    try:
        Runner(name=options.name)
        Cron(options.cron)
    except ValueError as error:
        parser.error(str(error))
    watching: threading.Thread | None = None
    try:
        while True:
            wait_for_server()
            # No limit at the server: `only_run` holds where a run was killed, too.
            runner = Runner(name=options.name, limit=1)
            schedule = Cron(options.cron, active=is_active(name))
            added = runner.add_flow(night, options.name, schedule=schedule, parameters={"force": options.force})
            deployment = cast(UUID, added)  # no coroutine: no loop runs here
            with get_client(sync_client=True) as client:
                if dead := bury(client, ROOT, deployment):
                    print(f"killed, and now called crashed: {', '.join(dead)}", file=sys.stderr, flush=True)
            if watching is None:
                watching = threading.Thread(target=watch, args=(deployment, name), daemon=True)
                watching.start()
            try:
                asyncio.run(runner.start())
            except Exception as error:
                # Prefect's runner gives up half a minute after its server went away; a schedule does not.
                if not of_the_server(error):
                    raise
                print(
                    "the Prefect server was away for too long: served again when it is back",
                    file=sys.stderr,
                    flush=True,
                )
    except (KeyboardInterrupt, TerminationSignal):
        print(f"{name} is no longer served: no run will start until it is served again", flush=True)


def of_the_server(error: BaseException) -> bool:
    """Whether the runner ended for want of a server, as its groups of exceptions have it."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(of_the_server, error.exceptions))
    return isinstance(error, httpx.HTTPError) or "Service exceeded error threshold" in str(error)


if __name__ == "__main__":
    main()
