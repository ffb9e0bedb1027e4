"""A night: the stages in a tree of their own, ended by a record. `python -m flows.night` runs one now.

    refuse edits that are in no commit -> runs/nights/tree as the branch has it -> refresh the data -> the stages
        -> compare with the champion -> dvc push -> commit dvc.lock, metrics.json, params.yaml and the decision
        -> tag night/<date>, and where it is better a version and the champion -> push the tags

A night that fails leaves runs/nights/logs/<date>.log and no tag. `saliency-r1 nights` lists both kinds.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.alive import alive
from flows.locks import only_run
from flows.pictures import show_decision, show_drift
from flows.pipeline import ROOT, notice, publish_outcomes, run, run_stages
from flows.schedule import need_server
from flows.tree import begin, prepare, record, refresh
from saliency_r1.registry.champion import STAGE, champion, resolve, rolled_back_as
from saliency_r1.registry.git import learn
from saliency_r1.registry.nights import DECISION, LOGS
from saliency_r1.runtime.files import write_json, write_text


@flow(name="saliency-r1", task_runner=cast(Any, ThreadPoolTaskRunner(max_workers=2)))
def night(folder: Path = ROOT, branch: str | None = None, force: bool = False) -> str:
    """Retrain what the branch (None: the one checked out in `folder`) has, and record it; returns the tag."""
    say = get_run_logger()
    with alive(folder, flow_run.id), only_run(folder, say.warning):
        learn(folder, say.warning)
        name = begin(folder, date.today())
        with logged(folder / LOGS / f"{name}.log"):
            try:
                tree = prepare(folder, branch)
                refresh(tree, say.info)
                notice(tree, say.info)
                theirs = resolve(STAGE, folder).resolve() if champion(folder) else None
                if theirs and (tree / "stages" / "drift.py").exists():
                    run_stages(tree, False, until="check@download")
                    look_for_drift(tree, theirs)
                publish_outcomes(run_stages(tree, force))
                promote = compare(folder, tree, say.warning)
                tag = record(tree, name, promote, say.info)
            except Exception as error:
                say.error("night %s leaves no record: %s", name, error)
                raise
            say.info("night %s is recorded: %s", name, tag)
    return tag


@task(name="drift", task_run_name="drift", cache_policy=NO_CACHE, persist_result=False)
def look_for_drift(tree: Path, theirs: Path) -> None:
    """Compare today's data with the champion's and publish the table; fails where the parameters let drift stop."""
    command = [sys.executable, str(tree / "stages" / "drift.py"), str(theirs)]
    try:
        run(command, "drift", tree, get_run_logger().info)
    finally:
        if (path := tree / "records" / "drift.json").exists():
            rows = sorted(json.loads(path.read_text(encoding="utf-8")), key=lambda row: not row["moved"])
            moved = sum(row["moved"] for row in rows)
            create_table_artifact(rows, key="drift", description=f"Against the champion's data: {moved} moved")
            show_drift(rows)


def compare(folder: Path, tree: Path, say: Callable[[str], None]) -> bool:
    """Whether the tree's model takes the place of the champion; compared again where that changes meanwhile."""
    while True:
        known = champion(folder)
        theirs = resolve(STAGE, folder).resolve() if known else None
        promote = decide(tree, theirs, known.name if known else None)
        learn(folder, say)
        if champion(folder) == known:
            return promote
        say("somebody has changed the champion meanwhile: compared again, with the new one")


@task(name="judge", task_run_name="judge", cache_policy=NO_CACHE, persist_result=False)
def decide(tree: Path, theirs: Path | None, name: str | None) -> bool:
    """Whether the tree's model takes the champion's place; the decision is published and lies in records/."""
    script = tree / "stages" / "judge.py"
    if not script.exists():
        return False
    run([sys.executable, str(script), str(theirs or "-")], "judge", tree, get_run_logger().info)
    decision = json.loads((tree / DECISION).read_text(encoding="utf-8"))
    text = (tree / DECISION).with_suffix(".md").read_text(encoding="utf-8")
    if decision["verdict"] == "promote" and (left := rolled_back_as(tree)):
        reason = (
            f"it is {left.name} again, byte for byte, from which somebody rolled back; "
            f"`saliency-r1 champion {left.name}` takes it all the same"
        )
        decision |= {"verdict": "keep", "reasons": [reason]}
        text = f"**not promoted: {reason}**\n\nThe judge, who knows of no rollback, said:\n\n{text}"
        write_json(tree / DECISION, decision)
        write_text((tree / DECISION).with_suffix(".md"), text)
    show_decision(text, decision, name or "no champion")
    return bool(decision["verdict"] == "promote")


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write what the flow and its tasks say into a file as well, line by line."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(f"prefect.{kind}_runs") for kind in ("flow", "task")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--branch", help="a branch or commit; by default the one that is checked out")
    parser.add_argument("--force", action="store_true", help="run every stage, even one that is up to date")
    options = parser.parse_args()
    need_server()
    night(branch=options.branch, force=options.force)
