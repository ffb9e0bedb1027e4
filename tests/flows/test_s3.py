"""A store that speaks S3, on loopback: a night is pushed, a fresh clone pulls it; no key lies in any file.

It needs `pip install dvc-s3 'moto[server]'`, which nothing else here does.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from processes import until

from flows.tree import NightError, begin, dvc, prepare, record
from saliency_r1.registry.git import git

pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed")
pytest.importorskip("moto.server", reason="moto[server] is not installed")
pytestmark = pytest.mark.slow
KEY = "a-key-that-is-nowhere-in-git"


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with an empty bucket `models`; the environment holds keys for it."""
    boto3 = pytest.importorskip("boto3")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "night")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "WHEN_REQUIRED")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "moto.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            until(lambda: _listens(port), 60)
            boto3.client("s3", endpoint_url=url).create_bucket(Bucket="models")
            yield url
        finally:
            server.kill()


@pytest.fixture
def remotes(project: Path, tmp_path: Path, endpoint: str) -> Path:
    """The project with a bare repository as origin and the bucket as DVC's remote; gives the repository."""
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(bare)], check=True)
    dvc(project, "remote", "add", "--default", "store", "s3://models/saliency-r1")
    dvc(project, "remote", "modify", "store", "endpointurl", endpoint)
    git(project, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--all", "--message", "remote")
    git(project, "remote", "add", "origin", str(bare))
    git(project, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    return bare


def test_a_clone_at_the_tag_pulls_from_the_bucket_and_has_nothing_to_do(
    project: Path, remotes: Path, tmp_path: Path
) -> None:
    tag = _night(project)
    again = tmp_path / "again"
    subprocess.run(["git", "clone", "--quiet", "--branch", tag, str(remotes), str(again)], check=True)
    dvc(again, "pull", "data.dvc", "first", "check@first")
    output = dvc(again, "repro")
    assert "Running stage" not in output
    assert "up to date" in output
    assert git(again, "status", "--porcelain") == ""
    written = [path for path in (*project.rglob("*"), *remotes.rglob("*"), *again.rglob("*")) if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def test_without_keys_there_is_no_tag_and_the_reason_is_said(
    project: Path, remotes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NightError, match=r"(?s)`dvc push --run-cache` in .* failed.*[Cc]redentials"):
        _night(project)
    assert git(project, "tag", "--list") == ""


def _night(project: Path) -> str:
    name = begin(project, date(2026, 3, 1))
    tree = prepare(project, None)
    dvc(tree, "repro")
    return record(tree, name, False, print)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
