"""Signs of life: held as long as the process lives, however it ends."""

import subprocess
import sys
from pathlib import Path

from processes import until

from flows.alive import LOCKS, alive, lives

HOLDS = """
import sys, time
from pathlib import Path
from filelock import FileLock
path = Path(sys.argv[1])
path.parent.mkdir(parents=True)
lock = FileLock(path)
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_a_killed_process_gives_no_sign_of_life(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path / LOCKS / "run.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert lives(tmp_path, "run")
        process.kill()
        process.wait(20)
    until(lambda: not lives(tmp_path, "run"), 20)
    assert not lives(tmp_path, "another")


def test_a_run_lives_until_it_ends_and_leaves_nothing(tmp_path: Path) -> None:
    with alive(tmp_path, "run"):
        assert lives(tmp_path, "run")
    assert not lives(tmp_path, "run")
    assert not list((tmp_path / LOCKS).iterdir())


def test_a_run_without_an_id_locks_no_file(tmp_path: Path) -> None:
    with alive(tmp_path, None):
        assert not list(tmp_path.iterdir())
