"""The stages over several machines that share nothing but git and DVC's remote: `python -m flows.machines` runs them.

The graph is cut into legs, stages of one pool that follow each other: `gpu` for the trainings and the predictions,
`light` for the rest (prefect.yaml). Each leg is a run of its own on a worker of its pool, in the tree that nights have,
too: it takes the branch machines/<run>, and for each stage pulls what the stage needs, runs `dvc repro --single-item`,
pushes what DVC keeps, commits dvc.lock and pushes the branch. That branch is the record; merge it like a night's tag.
"""

import argparse
import time
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, cast

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.runtime import flow_run
from prefect.states import Cancelling, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.locks import only_run
from flows.pipeline import ROOT, Stage, name_of, publish_outcomes, read_graph, run_stage
from flows.schedule import need_server
from flows.tree import IDENTITY, RECORDS, dvc, expect_own_repository, prepare
from saliency_r1.registry.git import git, plain, remote_of

GPU = ("sft", "cgpo", "masks")  # and their gates
LOOK = 5.0  # seconds between two looks whether a leg is over


class Leg(NamedTuple):
    """Stages that one worker of a pool runs in turn."""

    pool: str
    stages: list[str]


def legs(graph: list[Stage]) -> list[Leg]:
    """The graph's stages in their order, cut where the pool changes."""
    return [
        Leg(pool, list(names))
        for pool, names in groupby(
            (stage.name for stage in graph), lambda name: "gpu" if name.removeprefix("check@") in GPU else "light"
        )
    ]


@flow(name="saliency-r1-machines")
def machines(folder: Path = ROOT, commit: str = "HEAD") -> str:
    """Run the graph of a commit leg by leg on the workers of the pools; returns the branch with the result."""
    say = get_run_logger()
    branch = f"machines/{plain(str(flow_run.name))}"
    expect_own_repository(folder)
    commit = git(folder, "rev-parse", "--verify", f"{commit}^{{commit}}")  # of a night's tag, what it is the tag of
    _begin(folder, branch, commit)
    for pool, stages in legs(read_graph(folder, commit)):
        say.info("to a worker of %s: %s", pool, ", ".join(stages))
        run = _hand_over(pool, stages, branch)
        if run.state is None or not run.state.is_completed():
            raise RuntimeError(f"the leg {run.name} on {pool} is {run.state_name}: {run.state and run.state.message}")
    say.info("the result is on the branch %s", branch)
    return branch


def _hand_over(pool: str, stages: list[str], branch: str) -> FlowRun:
    """Have a worker of the pool run the stages, and wait for it; who stops this run stops the leg, too."""
    parameters = {"stages": stages, "branch": branch}
    run = cast(FlowRun, run_deployment(f"{leg.name}/{pool}", parameters=parameters, timeout=0))
    with get_client(sync_client=True) as client:
        try:
            while not (run.state and run.state.is_final()):
                time.sleep(LOOK)
                run = client.read_flow_run(run.id)
        except BaseException as error:
            if not isinstance(error, Exception):  # nobody wants it any more; a server that is away is no such reason
                state: State[Any] = Cancelling(message="the run over all machines was stopped")
                client.set_flow_run_state(run.id, state, force=True)
            raise
    return run


def _begin(folder: Path, branch: str, commit: str) -> None:
    """Push the run's branch; where a run is tried again it is there, and goes on from what its legs have left.

    Raises `RuntimeError` where a branch of that name began elsewhere.
    """
    ref, remote = f"refs/heads/{branch}", _remote(folder)
    if not git(folder, "ls-remote", remote, ref):
        git(folder, "push", "--quiet", remote, f"{commit}:{ref}")
        return
    git(folder, "fetch", "--quiet", remote, ref)
    if commit not in git(folder, "rev-list", "FETCH_HEAD").split():
        raise RuntimeError(f"{remote} has a branch {branch} that does not come from {commit[:12]}: start a new run")


def _remote(folder: Path) -> str:
    """The git remote over which the machines share the branch. Raises `RuntimeError` where there is none."""
    if (remote := remote_of(folder)) is None:
        raise RuntimeError(
            f"{folder} has no git remote over which machines could share a branch: expected origin, or one alone "
            "(`git remote`)"
        )
    return remote


@flow(name="saliency-r1-leg", task_runner=cast(Any, ThreadPoolTaskRunner(max_workers=1)))
def leg(stages: list[str], branch: str, folder: Path = Path()) -> str:
    """Run some stages of a branch on this machine, one after the other, and push each; returns the last commit."""
    say = get_run_logger()
    folder = folder.resolve()
    with only_run(folder, say.warning):
        remote = _remote(folder)
        git(folder, "fetch", "--quiet", remote, f"+refs/heads/{branch}:refs/remotes/{remote}/{branch}")
        tree = prepare(folder, f"{remote}/{branch}")
        outcomes = []
        for stage in stages:
            if needed := needs(tree, stage):
                say.info(dvc(tree, "pull", *needed))
            outcomes.append(run_stage(stage, tree, False, pull=True))
            say.info(dvc(tree, "push", "--run-cache", stage))
            _commit(tree, stage)
            git(tree, "push", "--quiet", remote, f"HEAD:refs/heads/{branch}")
        publish_outcomes(outcomes)
        return git(tree, "rev-parse", "HEAD")


def needs(tree: Path, stage: str) -> list[str]:
    """The outputs in DVC's keeping that a stage reads, whole ones: a table stands for the pictures beside it."""
    from dvc.repo import Repo

    with Repo(str(tree)) as repo:
        (this,) = [each for each in repo.index.stages if name_of(each) == stage]
        read = [Path(dependency.fs_path) for dependency in this.deps if dependency.protocol == "local"]
        kept = [Path(out.fs_path) for out in repo.index.outs if out.use_cache and out.stage is not this]
        wanted = {out for out in kept for path in read if path.is_relative_to(out) or out.is_relative_to(path)}
        return sorted(out.relative_to(repo.root_dir).as_posix() for out in wanted)


def _commit(tree: Path, stage: str) -> None:
    git(tree, "add", "--update")
    git(tree, "add", "--", *(path for path in RECORDS if (tree / path).exists()))
    if git(tree, "status", "--porcelain", "--untracked-files=no"):
        git(tree, *IDENTITY, "commit", "--quiet", "--no-verify", "--message", f"{stage} [skip ci]")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="HEAD", help="what to run")
    options = parser.parse_args()
    need_server()
    machines(commit=options.commit)
