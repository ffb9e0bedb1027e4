"""DVC's list of paths in use after a kill: what it would take for living is forgotten, the living stay."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import until

from flows.locks import forget_dead_owners
from flows.pipeline import reproduce


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


@pytest.mark.parametrize("content", ["", '{"write": {"/a": {"pi'])
def test_a_list_cut_off_in_writing_does_not_stop_the_next_run(content: str, project: Path) -> None:
    reproduce("data.dvc", project, print)
    (project / ".dvc" / "tmp" / "rwlock").write_text(content)
    assert reproduce("first", project, print).ran
