"""Locations beyond plain HTTP: the Hugging Face hub, Google Drive, archives of record."""

import errno
import ftplib
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
import requests

from saliency_r1.data.catalogue import Archive
from saliency_r1.data.errors import DataError, Unreachable
from saliency_r1.data.fetch import ArchiveCache
from saliency_r1.data.models import Source, provide
from saliency_r1.data.sources import _revision

from . import hub
from .toys import EMPTY_ZIP, QUICK

ASK_THE_HUB = """
import sys
from pathlib import Path
from saliency_r1.data.catalogue import Archive
from saliency_r1.data.errors import DataError
from saliency_r1.data.fetch import ArchiveCache
from saliency_r1.data.models import Source, provide

folder = Path(sys.argv[1])
print(provide(Source(None, "owner/name", "v1.0"), folder / "model"))
archive = Archive(path="own.zip", locations=("hf:owner/name@v1.0/set.zip",))
print(ArchiveCache(folder / "cache").obtain(archive, folder))
for attempt in (
    lambda: provide(Source(None, "nobody/nothing"), folder / "other"),
    lambda: ArchiveCache(folder / "cache").obtain(Archive(path="x", locations=("hf:owner/name/x", "hf:owner")), folder),
):
    try:
        attempt()
    except DataError as error:
        print("REFUSED", str(error).replace(chr(10), " "))
"""


def test_models_and_files_of_the_hugging_face_hub(tmp_path: Path) -> None:
    environment = os.environ | {"HF_ENDPOINT": hub.serve(), "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", ASK_THE_HUB, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for name, content in hub.FILES.items():
        path = tmp_path / "model" / name
        assert path.read_bytes() == content
        assert not path.is_symlink()
    assert hub.COMMIT in done.stdout, "the report says which commit it was"
    assert (tmp_path / "cache/own.zip").read_bytes() == EMPTY_ZIP
    model, files = [line for line in done.stdout.splitlines() if line.startswith("REFUSED")]
    assert "nobody/nothing: not to be had from the Hugging Face hub" in model
    assert "hf:owner/name/x: Hugging Face hub:" in files
    assert "hf:owner: expected hf:<owner>/<dataset>" in files


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for gdown that keeps its arguments; the real one needs Google."""
    asked: dict[str, Any] = {}
    errors = ModuleType("gdown.exceptions")
    errors.DownloadError = type("DownloadError", (Exception,), {})  # type: ignore[attr-defined]
    errors.FileURLRetrievalError = type("X", (errors.DownloadError,), {})  # type: ignore[attr-defined]
    asked["errors"] = errors

    def download(**arguments: Any) -> str:
        asked.update(arguments)
        if arguments["id"] == "quota":
            raise errors.FileURLRetrievalError("Too many users have viewed or downloaded this file recently.")
        if "error" in asked:
            raise asked["error"]
        if not Path(arguments["output"]).exists():  # what is there already is not fetched again
            Path(arguments["output"]).write_bytes(EMPTY_ZIP)
        return str(arguments["output"])

    gdown = ModuleType("gdown")
    gdown.download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gdown", gdown)
    monkeypatch.setitem(sys.modules, "gdown.exceptions", errors)
    return asked


def test_google_drive(drive: dict[str, Any], tmp_path: Path) -> None:
    archive = Archive(path="DUTS-TR.zip", locations=("gdrive:quota", "gdrive:1hy5"))
    path = ArchiveCache(tmp_path, None, QUICK).obtain(archive, tmp_path / "nowhere")
    assert path.read_bytes() == EMPTY_ZIP
    assert drive["id"] == "1hy5"
    assert drive["resume"]
    with pytest.raises(DataError, match="Google Drive: Too many users"):
        ArchiveCache(tmp_path, None, QUICK).obtain(Archive(path="x", locations=("gdrive:quota",)), tmp_path / "nowhere")


def test_google_drive_goes_on_from_nothing_of_another_location(drive: dict[str, Any], tmp_path: Path) -> None:
    store, outputs = ArchiveCache(tmp_path, None, QUICK), []
    (tmp_path / "x.zip.part").write_bytes(b"half of what another location has")
    for file_id in ("1hy5", "1/..hy6"):
        path = store.obtain(Archive(path="x.zip", locations=(f"gdrive:{file_id}",)), tmp_path / "nowhere")
        assert path.read_bytes() == EMPTY_ZIP
        path.unlink()
        outputs.append(Path(drive["output"]))
    assert [output.parent for output in outputs] == [tmp_path, tmp_path]
    assert outputs[0] != outputs[1]


def status(code: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = code
    return requests.HTTPError(f"status {code}", response=response)


@pytest.mark.parametrize(
    ("error", "later"),
    [
        (requests.ConnectionError("Network is unreachable"), True),
        (requests.Timeout("timed out"), True),
        (status(503), True),
        (status(404), False),
        ("DownloadError: Download failed after 2 retries", True),
        ("FileURLRetrievalError: Too many users have viewed or downloaded this file recently", True),
        ("FileURLRetrievalError: Cannot retrieve the public link of the file", False),
    ],
)
def test_what_google_drive_may_give_later(drive: dict[str, Any], tmp_path: Path, error: Any, later: bool) -> None:
    if isinstance(error, str):
        kind, _, text = error.partition(": ")
        error = getattr(drive["errors"], kind)(text)
    drive["error"] = error
    assert_later(tmp_path, "gdrive:1hy5", later)


@pytest.mark.parametrize(
    ("error", "later"),
    [
        (requests.ConnectionError("Network is unreachable"), True),
        (socket.gaierror(-2, "Name or service not known"), True),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), True),
        (ftplib.error_temp("421 too many connections"), True),
        (ftplib.error_perm("550 no such file"), False),
        (status(404), False),
        (status(429), True),
        (ValueError("Invalid URL"), False),
    ],
)
def test_what_an_archive_of_record_may_give_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, later: bool
) -> None:
    monkeypatch.setattr("pooch.retrieve", Mock(side_effect=error))
    assert_later(tmp_path, "ftp://nowhere/x", later)


def test_a_hub_that_hangs_up_is_no_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError

    for error, later in ((HTTPError("Server disconnected"), True), (LocalEntryNotFoundError("no network"), True),
                         (HFValidationError("no name"), False)):  # fmt: skip
        monkeypatch.setattr("huggingface_hub.hf_hub_download", Mock(side_effect=error))
        assert_later(tmp_path, "hf:owner/name/x", later)


@pytest.mark.parametrize(("code", "later"), [(503, True), (429, True), (401, False), (404, False)])
def test_a_busy_hub_is_one_rule_for_files_models_and_revisions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, later: bool
) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    answer = Mock(status_code=code, headers={})
    for name in ("hf_hub_download", "snapshot_download", "HfApi.model_info"):
        error = HfHubHTTPError(f"status {code}", response=answer)
        monkeypatch.setattr(f"huggingface_hub.{name}", Mock(side_effect=error))
    assert_later(tmp_path, "hf:owner/name/x", later)
    for attempt in (lambda: provide(Source(None, "owner/name"), tmp_path), lambda: _revision("owner/name")):
        with pytest.raises(DataError) as caught:
            attempt()
        assert isinstance(caught.value, Unreachable) == later


@pytest.mark.parametrize("location", ["gdrive:1hy5", "hf:owner/name/x", "ftp://nowhere/x"])
def test_a_full_disk_is_no_fault_of_the_location(
    drive: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, location: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    drive["error"] = full
    for client in ("pooch.retrieve", "huggingface_hub.hf_hub_download"):
        monkeypatch.setattr(client, Mock(side_effect=full))
    with pytest.raises(OSError, match="No space left"):
        ArchiveCache(tmp_path, None, QUICK).obtain(Archive(path="x", locations=(location,)), tmp_path / "nowhere")


def assert_later(folder: Path, location: str, later: bool) -> None:
    """The next location is tried; where there is none, a schedule is told whether it may go better later."""
    with pytest.raises(DataError, match="expected https:") as caught:
        ArchiveCache(folder, None, QUICK).obtain(Archive(path="x", locations=(location, "ftq:")), folder / "nowhere")
    assert isinstance(caught.value, Unreachable) == later, caught.value


def test_google_drive_without_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DataError, match=r"pip install gdown.*drive\.google\.com/file/d/1hy5"):
        ArchiveCache(tmp_path).obtain(Archive(path="x", locations=("gdrive:1hy5",)), tmp_path / "nowhere")


def test_an_archive_of_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pooch

    def retrieve(url: str, known_hash: None, fname: str, path: Path) -> str:
        assert url == "doi:10.5281/zenodo.1/set.zip"
        (path / fname).write_bytes(EMPTY_ZIP)
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    archive = Archive(path="set.zip", locations=("doi:10.5281/zenodo.1/set.zip",))
    assert ArchiveCache(tmp_path).obtain(archive, tmp_path / "nowhere").is_file()
