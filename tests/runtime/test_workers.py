import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from saliency_r1.runtime.workers import WorkerError, spread

WAITING = "import time; from saliency_r1.runtime.workers import spread; list(spread(time.sleep, [300, 300, 300], 2))"


def test_in_the_order_of_the_jobs():
    assert list(spread(abs, [-2, -1], 1)) == list(spread(abs, [-2, -1], 2)) == [2, 1]
    assert list(spread(abs, [], 2)) == []


def test_a_killed_process_is_no_riddle():
    with pytest.raises(WorkerError, match="one of 2 processes ended before its work did"):
        list(spread(os._exit, [1, 1], 2))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process that its parent has died")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_one_that_has_started_them(how):
    """`saliency-r1 evaluate --workers 2` that a scheduler has killed left its workers behind for ever."""
    parent = subprocess.Popen([sys.executable, "-c", WAITING])
    try:
        workers = _workers_of(parent.pid)
        os.kill(parent.pid, how)
        assert not psutil.wait_procs(workers, timeout=30)[1]
    finally:
        parent.kill()
        parent.wait()


def _workers_of(parent: int) -> list[psutil.Process]:
    """Both workers, once they have loaded what they begin with."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [one for one in psutil.Process(parent).children() if "spawn_main" in " ".join(one.cmdline())]
        if len(found) == 2 and all(any("cv2" in file.path for file in one.memory_maps()) for one in found):
            time.sleep(0.5)
            return found
        time.sleep(0.1)
    pytest.fail("the workers have not started")
