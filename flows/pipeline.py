"""The pipeline as a Prefect flow: `python -m flows.pipeline` runs what `dvc repro` runs, one task a stage.

The graph is read from DVC, so it is written once, in dvc.yaml. DVC also stays the judge of what has to run: a task asks
for its stage and DVC answers "didn't change, skipping" where nothing did. Results are DVC's, not Prefect's.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.states import State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.children import start as start_child
from flows.locks import forget_dead_owners, only_run, wait_for_owners
from flows.pictures import show_overview
from flows.schedule import need_server
from saliency_r1.registry.git import environment
from saliency_r1.runtime.stage import TRY_AGAIN

ROOT = Path(__file__).resolve().parents[1]
SOURCES = Path("records/sources.json")
BUSY = "is busy, it is being blocked by"  # what DVC says of files that another one works on, and then of whom:
OWNER = re.compile(r"^  \(PID (\d+)\): ")
LAST_LINES = 15  # of a failed stage's output that go into the error


class Stage(NamedTuple):
    """A stage of the graph and the stages it needs."""

    name: str
    needs: list[str]


class Outcome(NamedTuple):
    """What became of a stage: whether it ran or was up to date, and how long that took."""

    stage: str
    ran: bool
    seconds: float


def read_graph(folder: Path = ROOT, commit: str | None = None) -> list[Stage]:
    """The stages of the folder's dvc.yaml with all they depend on, in an order in which they can run.

    With `commit` as that has them, else as they lie in the folder.
    """
    import networkx
    from dvc.repo import Repo

    with Repo(str(folder), rev=commit) as repo:
        graph = repo.index.graph  # an edge leads from a stage to one it needs
        names = {stage: name_of(stage) for stage in graph}
        targets = [stage for stage in graph if stage.path_in_repo == "dvc.yaml"]
        wanted = set(targets).union(*(networkx.descendants(graph, stage) for stage in targets))
        return [
            Stage(names[stage], sorted(names[needed] for needed in graph.successors(stage)))
            for stage in networkx.dfs_postorder_nodes(graph)
            if stage in wanted
        ]


def name_of(stage: Any) -> str:
    """What DVC's stage is called. Its `addressing` starts from the working directory, which a server may choose."""
    return str(getattr(stage, "name", None) or stage.path_in_repo)


def reproduce(stage: str, folder: Path, say: Callable[[str], None], force: bool = False, pull: bool = False) -> Outcome:
    """Bring one stage up to date in a process of its own and pass its output on, line by line.

    With `pull` a result that DVC's remote has for the same inputs is fetched instead of made.
    Where another DVC works on the same files, as somebody's `dvc repro` in the same folder does, it waits for that one.
    The process asks to die with this one, and the stage with it: a cancelled or killed flow leaves nothing behind.
    """
    # The lock option stands before the subcommand: two tasks may ask at once, and then one waits.
    command = [*dvc_as_child(), "--wait-for-lock", "repro", "--single-item", stage]
    start = time.monotonic()
    ran = False
    owners: set[int] = set()

    def hear(line: str) -> None:
        nonlocal ran
        ran = ran or line.startswith(("Running stage", "Importing"))
        owners.update(int(pid) for pid in OWNER.findall(line))
        say(line)

    options = [*["--force"] * force, *["--pull"] * pull]
    while True:
        forget_dead_owners(folder)
        try:
            run([*command, *options], stage, folder, hear)
            return Outcome(stage, ran, time.monotonic() - start)
        except RuntimeError as error:
            if BUSY not in str(error):
                raise
        say(f"{stage} waits until another DVC is done with these files: process {', '.join(map(str, sorted(owners)))}")
        wait_for_owners(folder, owners)
        owners.clear()


def run(
    command: list[str], name: str, folder: Path, say: Callable[[str], None], variables: Mapping[str, str] | None = None
) -> None:
    """Run a command in a folder and pass its output on, line by line; what it last said is in the `RuntimeError`."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    with start_child(
        command,
        cwd=folder,
        env=_environment() | dict(variables or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            for line in _lines(process):
                last.append(line)
                say(line)
        except BaseException:  # a run that is stopped in here must not wait for the stage's own end
            process.terminate()
            raise
    if process.returncode:
        raise RuntimeError(f"{name} ended with exit code {process.returncode}:\n" + "\n".join(last))


def dvc_as_child() -> list[str]:
    """The command of a DVC that ends with this process.

    It asks for that itself: tasks are threads, and in a process with threads no Python may run between fork and exec.
    """
    return [sys.executable, "-P", str(Path(__file__).with_name("child.py")), str(os.getpid())]


def _environment() -> dict[str, str]:
    """This process's environment, in which `python` means the interpreter that runs the flow.

    DVC runs a stage with the shell that it names, and that of a service account may be /usr/sbin/nologin.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return environment() | {"PATH": path, "SHELL": "/bin/sh", "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            yield line.rstrip()


def metrics_table(folder: Path) -> str:
    """The metrics of the workspace as Markdown, as `dvc metrics show` writes them."""
    command = [sys.executable, "-m", "dvc", "metrics", "show", "--md"]
    return subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=True).stdout


def gate_table(path: Path) -> list[dict[str, Any]]:
    """The expectations of a gate's report; none where it wrote none."""
    return list(json.loads(path.read_text(encoding="utf-8"))["expectations"]) if path.exists() else []


def notice(folder: Path, say: Callable[[str], None]) -> None:
    """Let the project note what its data has outside of it (records/sources.json), where it keeps such a note."""
    if not (folder / SOURCES).exists():
        return
    reproduce("data.dvc", folder, say)
    tree = {"PYTHONPATH": os.pathsep.join([str(folder / "src"), os.environ.get("PYTHONPATH", "")])}
    run([sys.executable, "-m", "saliency_r1.cli", "data", "sources"], "data sources", folder, say, tree)


def may_go_well_later(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Whether a task failed for a reason that goes away by itself: its stage says so by its exit code, DVC in words."""
    return f"exited with {TRY_AGAIN}" in str(state.message)


@task(task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(stage: str, folder: Path, force: bool, pull: bool = False) -> Outcome:
    """One stage: run it, and publish what it says about quality or metrics, a failed gate's table included."""
    kind, _, name = stage.partition("@")
    complaints = folder / "runs" / "checks" / f"{name}.json"
    if kind == "check":
        complaints.unlink(missing_ok=True)  # of an earlier run: a gate that ends before its suite leaves none
    try:
        outcome = reproduce(stage, folder, get_run_logger().info, force, pull)
    except RuntimeError as error:
        if kind == "check":
            table = gate_table(complaints)
            said = table or [{"expectation": "the gate runs to its end", "complaint": str(error)}]
            create_table_artifact(said, key=f"check-{name}", description=f"Gate after {name}: FAILED")
        raise
    if kind == "check":
        table = gate_table(folder / "artifacts" / "checks" / f"{name}.json")
        create_table_artifact(table, key=f"check-{name}", description=f"Gate after {name}: passed")
    elif stage == "metrics":
        create_markdown_artifact(metrics_table(folder), key="metrics", description="Every measure, test split")
    elif stage == "report":
        show_overview(folder)
    return outcome


@flow(name="saliency-r1-here", task_runner=cast(Any, ThreadPoolTaskRunner(max_workers=2)))
def pipeline(folder: Path = ROOT, force: bool = False) -> None:
    """Run the stages of dvc.yaml in the tree that people work in, in order; a failed one skips what follows it."""
    with only_run(folder, get_run_logger().warning):
        notice(folder, get_run_logger().info)
        publish_outcomes(run_stages(folder, force))


def publish_outcomes(outcomes: list[Outcome]) -> None:
    """Show what ran as a table of the run."""
    create_table_artifact(
        [{"stage": name, "ran": ran, "seconds": round(seconds, 1)} for name, ran, seconds in outcomes],
        key="stages",
        description="What ran and what was up to date",
    )


def run_stages(folder: Path, force: bool, until: str | None = None) -> list[Outcome]:
    """One task a stage of the folder's graph, in the flow that calls; the first failure is raised when all are over.

    With `until` only that stage and those it needs.
    """
    futures: dict[str, PrefectFuture[Outcome]] = {}
    for stage in _needed(read_graph(folder), until):
        options = run_stage.with_options(retries=3, retry_delay_seconds=60, retry_condition_fn=may_go_well_later)
        futures[stage.name] = options.submit(
            stage.name, folder, force, return_state=False, wait_for=[futures[needed] for needed in stage.needs]
        )
    wait(list(futures.values()))
    return [future.result() for future in futures.values()]


def _needed(graph: list[Stage], target: str | None) -> list[Stage]:
    """The stages that the target needs, itself among them, in the graph's order; all without a target."""
    if target is None:
        return graph
    needs = {stage.name: stage.needs for stage in graph}
    wanted: set[str] = set()
    queue = [target]
    while queue:
        if (name := queue.pop()) not in wanted:
            wanted.add(name)
            queue += needs[name]
    return [stage for stage in graph if stage.name in wanted]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="run every stage, even one that is up to date")
    options = parser.parse_args()
    need_server()
    pipeline(force=options.force)
