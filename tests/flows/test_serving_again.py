"""A server that was away longer than Prefect's runner bears: the schedule is served again, by itself."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect_site import Site, kill
from processes import alive, read, until

from flows.serve import PAUSE, keep


def test_serving_goes_on_after_errors_with_a_pause_and_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    pauses: list[float] = []
    ends = iter([ExceptionGroup("loops", [RuntimeError("threshold\nexceeded")]), OSError("no route"), None])

    def serve() -> None:
        assert len(pauses) < 3
        if (error := next(ends)) is not None:
            raise error

    keep(serve, "saliency-r1/nightly", pauses.append)
    assert pauses == [PAUSE, PAUSE]
    first, second = capsys.readouterr().err.splitlines()
    assert "saliency-r1/nightly was no longer served (RuntimeError: threshold exceeded)" in first
    assert "OSError: no route" in second


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_who_ends_it_ends_it(end: type[BaseException]) -> None:
    def serve() -> None:
        raise end

    with pytest.raises(end):
        keep(serve, "saliency-r1/nightly", lambda seconds: pytest.fail("served again"))


@pytest.fixture
def site(tmp_path: Path, path_of_python: str, make_project: Callable[[Path], Path]) -> Iterator[Site]:
    site = Site(tmp_path, path_of_python, make_project)
    yield site
    site.close()


@pytest.mark.slow
def test_a_night_after_the_server_was_away_runs(site: Site) -> None:
    """Prefect's own patience, five minutes, is cut to seconds. A night that was running then goes on."""
    project = site.project("nights", "first")
    server = site.serve_api()
    serving = site.serve("nights", PREFECT_CLIENT_MAX_RETRIES="0", PREFECT_RUNNER_POLL_FREQUENCY="1")
    stage = int(until(lambda: read(project / "pids" / "first"), 180).split()[0])
    kill(server)
    site.says("nights", "saliency-r1/nights was no longer served", 180)
    site.says("nights", "waiting for the Prefect server", 60)
    (project / "hang").unlink()
    back = datetime.now(UTC)
    site.serve_api()
    until(lambda: site.client.api_healthcheck() is None, 120)
    assert alive(stage)
    assert len(site.runs("nights", "Running")) == 1, "a night that lives was called crashed"
    os.kill(stage, signal.SIGKILL)
    assert until(lambda: [run for run in site.runs("nights", "Completed") if run.expected_start_time > back], 300)
    assert serving.poll() is None
    assert not site.runs("nights", "Running")
    assert len(site.runs("nights", "Failed")) == 1
