"""The scheduled pipeline: `python -m flows.serve` registers it with a Prefect server and waits for its hours.

    prefect server start                                      # once, in another terminal; SQLite
    export PREFECT_API_URL=http://127.0.0.1:4200/api
    python -m flows.serve --cron "0 2 * * *"
    prefect deployment run saliency-r1/nightly                # not waiting for the hour

One run at a time: a second one waits until the first is over. DVC decides what a run has to do, so a night without new
data or code costs seconds; `--force` retrains every time.
"""

import argparse

from flows.pipeline import pipeline


def main() -> None:
    """Register the deployment and serve it until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="nightly", help="name of the deployment")
    parser.add_argument("--cron", default="0 2 * * *", help="when to run, as five cron fields")
    parser.add_argument("--force", action="store_true", help="run every stage, even one that is up to date")
    options = parser.parse_args()
    pipeline.serve(name=options.name, cron=options.cron, parameters={"force": options.force}, limit=1, global_limit=1)


if __name__ == "__main__":
    main()
