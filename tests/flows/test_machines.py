"""The graph cut into legs; what a worker that is killed in the middle of one leaves, and how it goes on."""

import logging
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from prefect.states import Completed, Crashed
from prefect_site import Site, kill
from processes import alive, read, until

from flows.machines import legs, machines, needs
from flows.pipeline import ROOT, read_graph
from flows.tree import IDENTITY
from saliency_r1.registry.git import git

URL = "PREFECT_API_URL"


def test_the_real_graph_is_three_legs() -> None:
    assert [(pool, stages[0], stages[-1]) for pool, stages in legs(read_graph(ROOT))] == [
        ("light", "data.dvc", "check@annotate"), ("gpu", "sft", "check@masks"), ("light", "metrics", "report"),
    ]  # fmt: skip


def test_a_stage_gets_whole_outputs_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wherever the process stands: a worker may stand in another clone."""
    monkeypatch.chdir(tmp_path)
    assert needs(ROOT, "data.dvc") == []
    assert needs(ROOT, "sft") == ["artifacts/annotate", "artifacts/checks/annotate.json", "artifacts/download"]
    report = needs(ROOT, "report")
    assert {"artifacts/cgpo", "artifacts/metrics/table.parquet", "artifacts/checks/params.json", "data"} <= set(report)
    assert "artifacts/metrics/metrics.json" not in report, "that is in git"


def test_a_night_may_be_what_is_run_with_the_graph_that_it_had(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tag of a night has a message, so it is an object of its own and no commit. A remote need not be origin."""
    git(tmp_path, "init", "--quiet", "--bare", "bare.git")
    git(project, "remote", "add", "hub", str(tmp_path / "bare.git"))
    commit = git(project, "rev-parse", "HEAD")
    git(project, *IDENTITY, "tag", "--annotate", "--message", "made", "night/2026-03-01")
    (project / "dvc.yaml").write_text("stages: {}\n")
    given: list[list[str]] = []

    def run_deployment(name: str, parameters: dict[str, list[str]], **_: Any) -> SimpleNamespace:
        given.append(parameters["stages"])
        return SimpleNamespace(state=Completed())

    monkeypatch.setattr("flows.machines.run_deployment", run_deployment)
    monkeypatch.setattr("flows.machines.get_client", lambda sync_client: nullcontext())
    monkeypatch.setattr("flows.machines.get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr("flows.machines.flow_run", SimpleNamespace(name="mine, of March"))
    branch = machines.fn(project, "night/2026-03-01")
    assert branch == "machines/mine-of-March"
    assert git(tmp_path / "bare.git", "rev-parse", branch) == commit
    assert given == [["data.dvc", "first", "check@first", "metrics"]]

    # A leg has left a commit and failed; somebody presses "Retry", and the run has the name it had.
    left = git(project, *IDENTITY, "commit-tree", "-p", commit, "-m", "leg", f"{commit}^{{tree}}")
    git(project, "push", "--quiet", "hub", f"{left}:refs/heads/{branch}")
    assert machines.fn(project, "night/2026-03-01") == branch
    assert git(tmp_path / "bare.git", "rev-parse", branch) == left
    git(project, *IDENTITY, "commit", "--quiet", "--allow-empty", "--message", "another one")
    with pytest.raises(RuntimeError, match="does not come from"):
        machines.fn(project)
    git(project, "remote", "remove", "hub")
    with pytest.raises(RuntimeError, match=r"project has no git remote .*: expected origin, or one alone"):
        machines.fn(project)


@pytest.fixture
def site(tmp_path: Path, path_of_python: str, make_project: Callable[[Path], Path]) -> Iterator[Site]:
    """A server with the deployments of prefect.yaml, and a project with remotes; its stage `first` never ends."""
    site = Site(tmp_path, path_of_python, make_project)
    site.environment |= {URL: f"http://127.0.0.1:{site.port}/api", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    project = site.project("one", "first")
    (project / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text())
    bare = tmp_path / "bare.git"
    for command in (
        ["git", "init", "--quiet", "--bare", str(bare)],
        ["git", "remote", "add", "origin", str(bare)],
        ["dvc", "remote", "add", "--quiet", "--default", "store", str(tmp_path / "store")],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "remotes"],
    ):
        subprocess.run(command, cwd=project, check=True, env=site.environment)
    try:
        site.serve_api()
        until(lambda: site.client.api_healthcheck() is None, 120)
        pools = [f"prefect work-pool create {pool} --type process" for pool in ("light", "gpu")]
        setup = "; ".join([*pools, "prefect --no-prompt deploy --all"])
        assert site.start("setup", setup, project).wait(300) == 0, site.log("setup")
        yield site
    finally:
        site.close()


@pytest.mark.slow
def test_a_machine_that_goes_down_costs_the_stage_it_was_at(site: Site) -> None:
    """Its worker, and the process of the run, which is in a session of its own and outlives the worker."""
    project = site.folder / "one"
    worker = "exec prefect worker start --pool light"
    first = site.start("first", worker, project)
    everything = site.start("all", "exec python -m flows.machines", project)
    dvc = psutil.Process(int(until(lambda: read(project / "pids" / "first"), 300).split()[1]))
    dvc.parent().kill()
    kill(first)
    (project / "hang").unlink()
    # What the automation does after ten minutes without a heartbeat.
    (leg,) = [run for run in site.client.read_flow_runs() if run.state_name == "Running" and "stages" in run.parameters]
    site.client.set_flow_run_state(leg.id, Crashed(message="no heartbeat"), force=True)
    assert everything.wait(120) != 0
    assert f"the leg {leg.name} on light is Crashed: no heartbeat" in site.log("all")

    site.start("second", worker, project)
    again = site.start("again", "exec python -m flows.machines", project)
    assert again.wait(300) == 0, site.log("again")
    (branch,) = [word for word in site.log("again").split() if word.startswith("machines/")]
    git(project, "fetch", "--quiet", "origin", branch)
    made = git(project, "log", "--reverse", "--format=%s", "HEAD..FETCH_HEAD").splitlines()
    assert made == [f"{stage} [skip ci]" for stage in ("data.dvc", "first", "check@first", "metrics")]
    assert git(project, "show", "FETCH_HEAD:artifacts/metrics/metrics.json")


@pytest.mark.slow
def test_who_stops_the_whole_stops_the_leg(site: Site) -> None:
    """With Ctrl-C in its terminal, while a worker is at a stage."""
    project = site.folder / "one"
    site.start("worker", "exec prefect worker start --pool light", project)
    everything = site.start("all", "exec python -m flows.machines", project)
    stage = [int(pid) for pid in until(lambda: read(project / "pids" / "first"), 300).split()]
    (leg,) = [run for run in site.client.read_flow_runs() if "stages" in run.parameters]
    everything.send_signal(signal.SIGINT)
    assert everything.wait(60) != 0
    until(lambda: not any(alive(pid) for pid in stage), 180)
    until(lambda: site.client.read_flow_run(leg.id).state_name == "Cancelled", 180)
