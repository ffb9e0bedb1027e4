"""DVC's list of paths in use after a kill: what it would take for living is forgotten, the living stay."""

import json
import os
import subprocess
import sys
import time
from contextvars import copy_context
from pathlib import Path
from threading import Thread

import pytest
from filelock import FileLock, Timeout
from processes import alive, read, until

from flows.locks import forget_dead_owners, only_run, wait_for_owners
from flows.pipeline import reproduce, run
from flows.tree import dvc


@pytest.fixture
def zombie() -> int:
    """The id of a process that has ended and that nobody has reaped."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    path = Path(f"/proc/{process.pid}/stat")
    until(lambda: ") Z " in path.read_text(), 20)
    return process.pid


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_zombie_is_forgotten_and_a_living_owner_is_kept(project: Path, zombie: int) -> None:
    reproduce("data.dvc", project, print)
    dead, living = ({"pid": pid, "cmd": "repro"} for pid in (zombie, os.getpid()))
    path = project / ".dvc" / "tmp" / "rwlock"
    path.write_text(json.dumps({"write": {"/a": dead, "/b": living}, "read": {"/c": [dead], "/d": [dead, living]}}))
    assert forget_dead_owners(project) == [zombie]
    assert json.loads(path.read_text()) == {"write": {"/b": living}, "read": {"/d": [living]}}
    assert forget_dead_owners(project) == []


def test_the_guard_is_of_the_kind_that_dvc_uses_here(project: Path) -> None:
    """On NFS `core.hardlink_lock` is set, and a file of the other kind stays: DVC would wait for it for ever."""
    dvc(project, "config", "core.hardlink_lock", "true")
    reproduce("data.dvc", project, print)
    forget_dead_owners(project)
    assert not (project / ".dvc" / "tmp" / "rwlock.lock").exists()
    assert reproduce("first", project, print).ran


def test_a_process_younger_than_the_list_is_no_owner(project: Path) -> None:
    """It was given the number of one that is gone."""
    reproduce("data.dvc", project, print)
    path = project / ".dvc" / "tmp" / "rwlock"
    path.write_text(json.dumps({"write": {"/a": {"pid": os.getpid(), "cmd": "repro"}}, "read": {}}))
    assert forget_dead_owners(project) == []
    hour_ago = time.time() - 3600
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        path.write_text(json.dumps({"write": {"/a": {"pid": process.pid, "cmd": "repro"}}, "read": {}}))
        os.utime(path, (hour_ago, hour_ago))
        assert forget_dead_owners(project) == [process.pid]
        assert json.loads(path.read_text()) == {"write": {}, "read": {}}
    finally:
        process.communicate(b"\n")


HANG = "import os, sys, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"


def test_a_run_that_is_stopped_gives_its_folder_back_when_its_processes_have_ended(tmp_path: Path) -> None:
    """As in a flow: a task's thread waits for the process, and the flow's is stopped."""
    said: list[str] = []

    def task() -> None:
        for command in ([sys.executable, "-c", HANG], ["touch", "later"]):
            try:
                run(command, "task", tmp_path, print)
            except RuntimeError as error:
                said.append(str(error))

    def flow() -> None:
        with only_run(tmp_path, print):
            Thread(target=copy_context().run, args=(task,)).start()
            until(lambda: read(tmp_path / "pid"), 60)
            with pytest.raises(Timeout):
                FileLock(tmp_path / ".dvc" / "tmp" / "flow.lock").acquire(timeout=0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow()
    assert not alive(int(read(tmp_path / "pid")))
    FileLock(tmp_path / ".dvc" / "tmp" / "flow.lock").acquire(timeout=0)
    until(lambda: len(said) == 2, 20)
    assert said[0].startswith("task ended with exit code -15")
    assert said[1] == "the run is over, so nothing is started any more: touch later"
    assert not (tmp_path / "later").exists()


def test_a_run_that_is_stopped_while_it_listens_does_not_wait_for_the_process(tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"], "task", tmp_path, stop)
    assert time.monotonic() - began < 60


def test_a_run_that_is_stopped_while_it_waits_for_another_dvc_waits_no_longer(tmp_path: Path) -> None:
    path = tmp_path / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"write": {"/a": {"pid": os.getpid(), "cmd": "repro"}}, "read": {}}))
    said: list[str] = []

    def task() -> None:
        try:
            wait_for_owners(tmp_path, {os.getpid()})
        except RuntimeError as error:
            said.append(str(error))

    with only_run(tmp_path, print):
        waiting = Thread(target=copy_context().run, args=(task,))
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
    waiting.join(20)
    assert said == ["the run is over, so nothing is waited for any more"]
    wait_for_owners(tmp_path, {os.getpid() + 1})


@pytest.mark.parametrize("content", ["", '{"write": {"/a": {"pi'])
def test_a_list_cut_off_in_writing_does_not_stop_the_next_run(content: str, project: Path) -> None:
    reproduce("data.dvc", project, print)
    (project / ".dvc" / "tmp" / "rwlock").write_text(content)
    assert reproduce("first", project, print).ran
