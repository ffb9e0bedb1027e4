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
        # No limit at the server: `only_run` holds where a run was killed, too.
        runner = Runner(name=options.name, limit=1)
        Cron(options.cron)
    except ValueError as error:
        parser.error(str(error))
    try:
        wait_for_server()
        schedule = Cron(options.cron, active=is_active(name))
        added = runner.add_flow(night, options.name, schedule=schedule, parameters={"force": options.force})
        deployment = cast(UUID, added)  # no coroutine: no loop runs here
        with get_client(sync_client=True) as client:
            if dead := bury(client, ROOT, deployment):
                print(f"killed, and now called crashed: {', '.join(dead)}", file=sys.stderr, flush=True)
        threading.Thread(target=watch, args=(deployment, name), daemon=True).start()
        asyncio.run(runner.start())
    except (KeyboardInterrupt, TerminationSignal):
        print(f"{name} is no longer served: no run will start until it is served again", flush=True)


if __name__ == "__main__":
    main()
