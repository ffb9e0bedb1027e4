"""Locations beyond plain HTTP: the Hugging Face hub, Google Drive, archives of record."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saliency_r1.data.catalogue import Archive
from saliency_r1.data.errors import DataError
from saliency_r1.data.fetch import ArchiveCache

from . import hub
from .toys import QUICK

ASK_THE_HUB = """
import sys
from pathlib import Path
from saliency_r1.data.catalogue import Archive
from saliency_r1.data.errors import DataError
from saliency_r1.data.fetch import ArchiveCache
from saliency_r1.data.models import Source, provide

folder = Path(sys.argv[1])
print(provide(Source(None, "owner/name", "v1.0"), folder / "model"))
archive = Archive(path="weights.bin", locations=("hf:owner/name@v1.0/weights/model.safetensors",))
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
    assert (tmp_path / "cache/weights.bin").read_bytes() == hub.FILES["weights/model.safetensors"]
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

    def download(**arguments: Any) -> str:
        asked.update(arguments)
        if arguments["id"] == "quota":
            raise errors.DownloadError("Too many users have viewed or downloaded this file recently.")
        Path(arguments["output"]).write_bytes(b"content")
        return str(arguments["output"])

    gdown = ModuleType("gdown")
    gdown.download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gdown", gdown)
    monkeypatch.setitem(sys.modules, "gdown.exceptions", errors)
    return asked


def test_google_drive(drive: dict[str, Any], tmp_path: Path) -> None:
    archive = Archive(path="DUTS-TR.zip", locations=("gdrive:quota", "gdrive:1hy5"))
    path = ArchiveCache(tmp_path, None, QUICK).obtain(archive, tmp_path / "nowhere")
    assert path.read_bytes() == b"content"
    assert drive["id"] == "1hy5"
    assert drive["resume"]
    with pytest.raises(DataError, match="Google Drive: Too many users"):
        ArchiveCache(tmp_path, None, QUICK).obtain(Archive(path="x", locations=("gdrive:quota",)), tmp_path / "nowhere")


def test_google_drive_without_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DataError, match=r"pip install gdown.*drive\.google\.com/file/d/1hy5"):
        ArchiveCache(tmp_path).obtain(Archive(path="x", locations=("gdrive:1hy5",)), tmp_path / "nowhere")


def test_an_archive_of_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pooch

    def retrieve(url: str, known_hash: None, fname: str, path: Path) -> str:
        assert url == "doi:10.5281/zenodo.1/set.zip"
        (path / fname).write_text(json.dumps(url))
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    archive = Archive(path="set.zip", locations=("doi:10.5281/zenodo.1/set.zip",))
    assert ArchiveCache(tmp_path).obtain(archive, tmp_path / "nowhere").is_file()
