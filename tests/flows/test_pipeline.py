"""The flow: the graph as DVC has it, one task a stage, artifacts, failures, nothing left behind when it is killed."""

import asyncio
import logging
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from prefect.states import Failed
from processes import alive, read, until

from flows.pipeline import ROOT, may_go_well_later, metrics_table, pipeline, read_graph, reproduce, run_stage


def test_the_graph_is_that_of_dvc_and_of_this_pipeline_only(project: Path) -> None:
    graph = read_graph(project)
    assert [stage.name for stage in graph] == ["data.dvc", "first", "check@first", "metrics"]
    assert {stage.name: stage.needs for stage in graph} == {
        "data.dvc": [],
        "first": ["data.dvc"],
        "check@first": ["first"],
        "metrics": ["check@first"],
    }


def test_the_real_graph_has_a_gate_after_each_stage() -> None:
    graph = {stage.name: stage.needs for stage in read_graph(ROOT)}
    order = list(graph)
    stages = ["download", "annotate", "sft", "cgpo", "masks", "metrics", "report"]
    assert "data.dvc" in graph["download"]
    for stage, following in pairwise(stages):
        assert f"check@{stage}" in graph[following]
        assert order.index(stage) < order.index(f"check@{stage}") < order.index(following)
    assert not [name for name in graph if name.startswith("pretrain")]


def test_a_stage_runs_once_and_is_then_up_to_date(project: Path) -> None:
    lines: list[str] = []
    assert reproduce("data.dvc", project, lines.append).ran
    assert reproduce("first", project, lines.append).ran
    assert "first wrote artifacts/first/table.txt" in lines
    assert not reproduce("first", project, lines.append).ran
    assert reproduce("first", project, lines.append, force=True).ran


def test_a_stage_of_an_account_that_nobody_may_log_in_to_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/sbin/nologin")
    reproduce("data.dvc", project, print)
    assert reproduce("first", project, print).ran


def test_a_failed_stage_says_what_it_printed_and_whether_it_may_go_well_later(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its exit code, which DVC tells in words of its own."""
    monkeypatch.setenv("FAIL", "first")
    reproduce("data.dvc", project, print)
    with pytest.raises(RuntimeError, match=r"(?s)first ended with exit code .*expected in \[0, 1\]") as broken:
        reproduce("first", project, print)
    monkeypatch.delenv("FAIL")
    monkeypatch.setenv("AWAY", "first")
    with pytest.raises(RuntimeError) as away:
        reproduce("first", project, print)
    states = [Failed(message=repr(error.value)) for error in (broken, away)]  # as Prefect asks
    assert [may_go_well_later(None, None, state) for state in states] == [False, True]


def test_a_gate_that_does_not_start_shows_no_complaints_of_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints = tmp_path / "runs/checks/sft.json"
    complaints.parent.mkdir(parents=True)
    complaints.write_text('{"expectations": [{"column": "reward", "complaint": "of last week"}]}')
    tables: list[list[dict[str, Any]]] = []

    def fail(*_: Any) -> None:
        raise RuntimeError("No space left on device")

    monkeypatch.setattr("flows.pipeline.reproduce", fail)
    monkeypatch.setattr("flows.pipeline.get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr("flows.pipeline.create_table_artifact", lambda table, **_: tables.append(table))
    with pytest.raises(RuntimeError, match="No space left"):
        run_stage.fn("check@sft", tmp_path, False)
    assert tables == [[{"expectation": "the gate runs to its end", "complaint": "No space left on device"}]]


def test_a_stage_waits_for_a_dvc_that_somebody_runs_beside_it_and_says_so_once(project: Path) -> None:
    reproduce("data.dvc", project, print)
    (project / "hang").write_text("first")
    by_hand = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "first"], cwd=project)
    try:
        until(lambda: read(project / "pids" / "first"), 60)
        lines: list[str] = []
        waiting = Thread(target=lambda: lines.append(str(reproduce("first", project, lines.append).ran)))
        waiting.start()
        until(lambda: [line for line in lines if "waits until another DVC is done" in line], 60)
        assert str(by_hand.pid) in lines[-1]
        (project / "hang").unlink()
        psutil.Process(int(read(project / "pids" / "first").split()[0])).kill()
        waiting.join(120)
    finally:
        by_hand.kill()
        by_hand.wait(20)
    assert lines[-1] == "True", "the stage by hand has failed"
    assert len([line for line in lines if "waits until" in line]) == 1


@pytest.mark.slow
def test_the_flow_runs_everything_and_publishes_its_tables(project: Path, prefect_server: None) -> None:
    pipeline(folder=project)
    assert (project / "artifacts" / "metrics" / "metrics.json").exists()
    assert "scenes-sod.Sm" in metrics_table(project)
    artifacts = latest_artifacts()
    assert '"expectation": "in [0, 1]"' in artifacts["check-first"]
    assert "scenes-sod.Sm" in artifacts["metrics"]
    assert artifacts["stages"].count('"ran": true') == 4

    pipeline(folder=project)
    assert '"ran": true' not in latest_artifacts()["stages"]


@pytest.mark.slow
def test_nothing_runs_after_a_failed_gate(project: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "check")
    with pytest.raises(RuntimeError, match="check@first ended with exit code"):
        pipeline(folder=project)
    assert (project / "pids" / "check").exists()
    assert not (project / "pids" / "metrics").exists()
    assert "expected in [0, 1]" in latest_artifacts()["check-first"], "the newest artifact is that of another run"


@pytest.mark.slow
def test_a_failure_is_raised_when_what_runs_beside_it_is_over(
    project: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "first")
    graph = project / "dvc.yaml"
    beside = "  other:\n    cmd: sleep 8 && touch other\n    deps: [data]\n    outs: [other]\n"
    graph.write_text(graph.read_text().replace("  metrics:\n", f"{beside}  metrics:\n", 1))
    with pytest.raises(RuntimeError, match="first ended with exit code"):
        pipeline(folder=project)
    assert (project / "other").exists()


def latest_artifacts() -> dict[str, str]:
    """The newest artifact of each key, as the server has it."""
    from prefect.client.orchestration import get_client

    async def read() -> list[Any]:
        async with get_client() as client:
            return await client.read_latest_artifacts()

    return {artifact.key: str(artifact.data) for artifact in asyncio.run(read())}


KILLED = """
from pathlib import Path
from flows.pipeline import reproduce
from threading import Thread
thread = Thread(target=reproduce, args=("first", Path.cwd(), print))
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killing_the_flow_ends_dvc_and_the_stage(how: int, project: Path) -> None:
    """As in a task: the stage is started from a thread of the flow's process, by DVC through a shell."""
    reproduce("data.dvc", project, print)
    (project / "hang").write_text("first")
    flow = subprocess.Popen([sys.executable, "-c", KILLED], cwd=project)
    until(lambda: read(project / "pids" / "first"), 60)
    training, dvc = map(int, read(project / "pids" / "first").split())
    assert alive(training)
    assert psutil.Process(dvc).parent().pid == flow.pid, "a shell stands between DVC and the stage"
    flow.send_signal(how)
    flow.wait(20)
    until(lambda: not alive(training) and not alive(dvc), 60)

    (project / "hang").unlink()
    assert reproduce("first", project, print).ran, "the killed run left a lock or a half-written state"
