"""Fetching from a real server on this machine that stalls, truncates, lies, apologises in HTML and hangs up."""

import hashlib
import io
import os
import random
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from saliency_r1.data.catalogue import Archive
from saliency_r1.data.errors import DataError, Unreachable
from saliency_r1.data.fetch import ArchiveCache
from saliency_r1.runtime.files import sha256

from .toys import QUICK, Project, pairs, zipped


def packed(content: bytes) -> bytes:
    """A zip, the same bytes from the same content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(zipfile.ZipInfo("content"), content)
    return file.getvalue()


CONTENT = packed(random.Random(0).randbytes(3_000_000))


class Handler(BaseHTTPRequestHandler):
    """Behaves as the path says; `visits` counts requests, `ranges` keeps the Range headers."""

    protocol_version = "HTTP/1.1"
    visits: Counter[str]
    ranges: list[str | None]

    def do_GET(self) -> None:
        kind = self.path[1:]
        self.visits[kind] += 1
        self.ranges.append(self.headers.get("Range"))
        getattr(self, kind.replace("-", "_"))(self.visits[kind])

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def answer(
        self, body: bytes, status: int = 200, length: int | None = None, tag: str | None = '"v1"', **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if tag:
            self.send_header("ETag", tag)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def rest(self, tag: str = '"v1"', upto: int | None = None) -> None:
        """What a good server does: the whole, or the part asked for if the version is still the same."""
        asked = self.headers.get("Range")
        if asked is None or self.headers.get("If-Range") != tag:
            self.answer(CONTENT[:upto], length=len(CONTENT), tag=tag)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        place = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        self.answer(CONTENT[start:], 206, tag=tag, Content_Range=place)

    def hang_up(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def good(self, visit: int) -> None:
        self.rest()

    def drops(self, visit: int) -> None:
        self.rest(upto=2_000_000 if visit == 1 else None)
        if visit == 1:
            time.sleep(0.2)
            self.hang_up()

    def stalls(self, visit: int) -> None:
        self.rest(upto=2_000_000 if visit == 1 else None)
        if visit == 1:
            time.sleep(1.5)
            self.close_connection = True

    def always_stalls(self, visit: int) -> None:
        time.sleep(1.5)
        self.close_connection = True

    def changes(self, visit: int) -> None:
        self.rest(tag=f'"v{visit}"', upto=2_000_000 if visit == 1 else None)
        self.close_connection = True

    def no_ranges(self, visit: int) -> None:
        self.answer(CONTENT[: 2_000_000 if visit == 1 else None], length=len(CONTENT))
        self.close_connection = True

    def wrong_part(self, visit: int) -> None:
        if self.headers.get("Range"):
            self.answer(CONTENT[7:], 206, Content_Range=f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            self.rest(upto=2_000_000 if visit == 1 else None)
        self.close_connection = True

    def changes_unasked(self, visit: int) -> None:
        """A server that knows Range and not If-Range: the rest it sends is that of another version."""
        tag, old = f'"v{visit}"', CONTENT[::-1]
        if visit > 1 and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            place = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.answer(CONTENT[start:], 206, tag=tag, Content_Range=place)
        else:
            self.answer(old[:2_000_000] if visit == 1 else CONTENT, length=len(CONTENT), tag=tag)
        self.close_connection = True

    def truncates(self, visit: int) -> None:
        self.answer(CONTENT[:1_000_000], length=len(CONTENT), tag=None)
        self.close_connection = True

    def understates(self, visit: int) -> None:
        self.answer(CONTENT, length=1_000_000)
        self.close_connection = True

    def overstates(self, visit: int) -> None:
        self.answer(CONTENT, length=len(CONTENT) + 1000)
        self.close_connection = True

    def html(self, visit: int) -> None:
        self.answer(b"<!DOCTYPE html><p>Too many downloads", Content_Type="text/html; charset=utf-8")

    def disguised_html(self, visit: int) -> None:
        self.answer(b"\n<html><p>Too many downloads", Content_Type="application/zip")

    def busy(self, visit: int) -> None:
        if visit < 3:
            self.answer(b"later", 503, Retry_After="0")
        else:
            self.rest()

    def missing(self, visit: int) -> None:
        self.answer(b"no", 404)

    def wrong(self, visit: int) -> None:
        self.answer(CONTENT[::-1])

    def moved(self, visit: int) -> None:
        self.answer(b"", 302, Location="/good")

    def endless(self, visit: int, content: bytes = CONTENT) -> None:
        """No length at all, as servers do that make an archive on the fly."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def endless_and_cut(self, visit: int) -> None:
        self.endless(visit, CONTENT[:2_000_000])

    def quota(self, visit: int) -> None:
        self.answer(b'{"error": "over its quota"}', Content_Type="application/json")

    def page(self, visit: int) -> None:
        self.answer(b"<!-- saved --><html>Too many downloads", Content_Type="application/octet-stream")


@pytest.fixture
def server() -> Iterator[tuple[str, type[Handler]]]:
    """The address, and the handler class with what it saw."""
    kind = type("Kind", (Handler,), {"visits": Counter(), "ranges": []})
    http = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    http.daemon_threads = True
    Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", kind
    http.shutdown()
    http.server_close()


def archive(*locations: str, known: bool = True) -> Archive:

    digest = hashlib.sha256(CONTENT).hexdigest()
    return Archive(
        path="sets/file.zip",
        size=len(CONTENT) if known else None,
        sha256=digest if known else None,
        locations=locations,
    )


def store(folder: Path) -> ArchiveCache:
    return ArchiveCache(folder / "cache", None, QUICK)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("kind", "ranges"),
    [
        ("good", [None]),
        ("moved", [None, None]),
        ("endless", [None]),
        ("busy", [None, None, None]),
        ("drops", [None, "some"]),
        ("stalls", [None, "some"]),
        ("changes", [None, "some"]),
        ("no-ranges", [None, "some"]),
        ("wrong-part", [None, "some", None]),
        ("changes-unasked", [None, "some", None]),
    ],
)
def test_what_can_be_fetched(
    server: tuple[str, type[Handler]], tmp_path: Path, kind: str, ranges: list[str | None], known: bool
) -> None:
    address, seen = server
    path = store(tmp_path).obtain(archive(f"{address}/{kind}", known=known), tmp_path)
    assert path.read_bytes() == CONTENT
    assert [asked and "some" for asked in seen.ranges] == ranges
    assert [file.name for file in path.parent.iterdir()] == ["file.zip"]


@pytest.mark.parametrize(
    ("kind", "message", "visits"),
    [
        ("always-stalls", "gave up after 3 attempts: no answer in time", 3),
        ("truncates", "gave up after 3 attempts", 3),
        ("understates", f"announces 1,000,000 bytes, the catalogue says {len(CONTENT):,}", 1),
        ("overstates", f"announces {len(CONTENT) + 1000:,} bytes, the catalogue says {len(CONTENT):,}", 1),
        ("html", "HTML page", 1),
        ("disguised-html", "the server announces 28 bytes", 1),
        ("missing", "HTTP status 404", 1),
        ("wrong", "sha256", 1),
    ],
)
def test_what_cannot(server: tuple[str, type[Handler]], tmp_path: Path, kind: str, message: str, visits: int) -> None:
    address, seen = server
    with pytest.raises(DataError) as caught:
        store(tmp_path).obtain(archive(f"{address}/{kind}"), tmp_path)
    assert message in str(caught.value)
    assert f"{address}/{kind}" in str(caught.value)
    assert "download.mirror" in str(caught.value)
    assert isinstance(caught.value, Unreachable) == (visits > 1), "only a bad connection goes away by itself"
    assert seen.visits[kind] == visits
    assert not (tmp_path / "cache/sets/file.zip").exists()


def test_a_page_in_disguise_of_unknown_size(server: tuple[str, type[Handler]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="HTML page"):
        store(tmp_path).obtain(archive(f"{server[0]}/disguised-html", known=False), tmp_path)


def test_the_next_location_is_tried(server: tuple[str, type[Handler]], tmp_path: Path) -> None:
    address, seen = server
    places = [f"{address}/{kind}" for kind in ("missing", "wrong", "good")]
    path = store(tmp_path).obtain(archive("http://127.0.0.1:1/refused", "ftq://nowhere", *places), tmp_path)
    assert path.read_bytes() == CONTENT
    assert seen.visits == {"missing": 1, "wrong": 1, "good": 1}


def test_a_later_run_continues_what_an_earlier_one_began(server: tuple[str, type[Handler]], tmp_path: Path) -> None:
    address, seen = server
    part = tmp_path / "cache/sets/file.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1_234_567])
    part.with_suffix(".tag").write_text('"v1"')
    assert store(tmp_path).obtain(archive(f"{address}/good"), tmp_path).read_bytes() == CONTENT
    assert seen.ranges == ["bytes=1234567-"]


def test_a_fetched_file_that_went_bad_is_replaced(server: tuple[str, type[Handler]], tmp_path: Path) -> None:
    cached = store(tmp_path).obtain(archive(f"{server[0]}/good"), tmp_path)
    times = cached.stat()
    with open(cached, "r+b") as file:  # bits rot without a new time of change
        file.write(b"rotten")
    os.utime(cached, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store(tmp_path).obtain(archive(f"{server[0]}/good"), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_somebody_put_into_the_cache_is_never_touched(
    server: tuple[str, type[Handler]], tmp_path: Path, replaced: bool
) -> None:
    cached = tmp_path / "cache/sets/file.zip"
    if replaced:
        store(tmp_path).obtain(archive(f"{server[0]}/good"), tmp_path)
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.unlink(missing_ok=True)
    cached.write_bytes(CONTENT[::-1])
    with pytest.raises(DataError, match=r"sha256 .*put there by hand, so it is left alone"):
        store(tmp_path).obtain(archive(f"{server[0]}/good"), tmp_path)
    assert cached.read_bytes() == CONTENT[::-1]


def test_a_link_in_the_cache_leads_nowhere_else(server: tuple[str, type[Handler]], tmp_path: Path) -> None:
    """What the catalogue calls a path cannot climb (test_catalogue); a linked folder could."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file.zip").write_bytes(b"somebody's own")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/sets").symlink_to(outside)
    with pytest.raises(DataError, match="lies outside of"):
        store(tmp_path).obtain(archive(f"{server[0]}/good"), tmp_path)
    assert (outside / "file.zip").read_bytes() == b"somebody's own"


def test_data_sets_whose_archives_share_a_name_keep_their_own(
    server: tuple[str, type[Handler]], project: Project, tmp_path: Path
) -> None:
    address, handler = server
    for name, seed in (("a", 0), ("b", 50)):
        content = zipped(pairs(tmp_path / name, 2, seed), tmp_path / f"{name}.zip").read_bytes()
        setattr(handler, f"{name}_data", lambda self, _, content=content: self.answer(content))
        split = {"archive": "data.zip", "locations": [f"{address}/{name}-data"]}
        project.datasets[name] = {"splits": {"test": split}}
    table = project.run()
    pictures = [(project.out / names[0]).read_bytes() for names in table["images"]]
    originals = [path.read_bytes() for name in "ab" for path in sorted((tmp_path / name / "images").iterdir())]
    assert pictures == originals
    assert len(project.run()) == 4, "and the recorded hashes are of each"
    split = project.datasets["b"]["splits"]["test"]
    project.datasets = {"a": {"splits": {"train": split, "test": split | {"locations": [f"{address}/a-data"]}}}}
    with pytest.raises(DataError, match=r"data\.zip is two archives"):
        project.run()


def test_what_was_fetched_under_its_path_alone_is_found_while_no_other_data_set_has_that(
    server: tuple[str, type[Handler]], project: Project, tmp_path: Path
) -> None:
    once = zipped(pairs(tmp_path / "toy", 3), project.root / "runs/download/data.zip")
    entry = {"splits": {"test": {"archive": "data.zip", "locations": [f"{server[0]}/missing"]}}}
    project.datasets = {"a": entry}
    assert len(project.run()) == 3
    project.datasets["b"] = {"splits": {"test": {"archive": "data.zip"}}}
    with pytest.raises(DataError, match=r"(?s)data\.zip: not found as .*HTTP status 404"):
        project.run(["a"])
    assert once.is_file()


@pytest.mark.parametrize("kind", ["endless-and-cut", "quota", "page"])
def test_what_is_no_archive_leads_to_the_next_location(
    server: tuple[str, type[Handler]], tmp_path: Path, kind: str
) -> None:
    """Where the catalogue knows no hash, only the file can tell; the benchmarks of the catalogue have none."""
    address, seen = server
    cache = store(tmp_path)
    places = [f"{address}/{one}" for one in (kind, "good")]
    assert cache.obtain(archive(*places, known=False), tmp_path).read_bytes() == CONTENT
    assert list(seen.visits) == [kind, "good"]


def test_a_damaged_download_of_unknown_size_is_fetched_anew(
    server: tuple[str, type[Handler]], project: Project, tmp_path: Path
) -> None:
    """Without length and hash, only the archive itself can tell that it is not whole."""
    archive_file = project.add("toy", pairs(tmp_path / "toy"))
    archive_file.unlink()
    project.datasets["toy"]["splits"]["test"] = {"archive": "toy.zip", "locations": [f"{server[0]}/quota"]}
    for visits in (1, 2):
        with pytest.raises(DataError, match=r"toy\.zip: expected a zip or tar archive, found .*over its quota"):
            project.run()
        assert server[1].visits["quota"] == visits


def test_licence_and_terms_are_shown_before_anything_is_fetched(
    server: tuple[str, type[Handler]], project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive_file = project.add("toy", pairs(tmp_path / "toy"), licence="research only", terms="Be kind.")
    archive_file.unlink()
    project.datasets["toy"]["splits"]["test"]["locations"] = [f"{server[0]}/html"]
    with pytest.raises(DataError, match="HTML page"):
        project.run()
    assert "toy/test: fetching; licence: research only. Be kind." in capsys.readouterr().out


def test_a_hash_is_recorded_at_first_and_enforced_after(project: Project, tmp_path: Path) -> None:
    archive_file = project.add("toy", pairs(tmp_path / "toy"))
    project.datasets["toy"]["splits"]["test"] = {"archive": "datasets/toy-test.zip"}
    project.run()
    assert project.report()["imports"]["toy/test"]["archives"][0]["sha256"] == sha256(archive_file)
    project.add("toy", pairs(tmp_path / "toy", 4, seed=7))
    project.datasets["toy"]["splits"]["test"] = {"archive": "datasets/toy-test.zip"}
    with pytest.raises(DataError, match=r"toy-test\.zip: .*expected.*take its entry out of .*known\.json"):
        project.run()
    (project.root / "runs/download/known.json").unlink()
    assert len(project.run()) == 4


@pytest.mark.parametrize("stated", ["sha256", "size"])
def test_another_version_that_the_catalogue_names_takes_the_place_of_the_recorded_one(
    project: Project, tmp_path: Path, stated: str
) -> None:
    project.add("toy", pairs(tmp_path / "toy"))
    project.datasets["toy"]["splits"]["test"] = {"archive": "datasets/toy-test.zip"}
    project.run()
    project.add("toy", pairs(tmp_path / "newer", 5, seed=7))
    entry = project.datasets["toy"]["splits"]["test"]
    project.datasets["toy"]["splits"]["test"] = {"archive": entry["archive"], stated: entry[stated]}
    assert len(project.run()) == 5


def test_an_incomplete_archive_is_not_the_one_to_hold_to(project: Project, tmp_path: Path) -> None:
    source = pairs(tmp_path / "toy")
    next((source / "masks").iterdir()).unlink()
    project.add("toy", source)
    project.datasets["toy"]["splits"]["test"] = {"archive": "datasets/toy-test.zip"}
    project.run(allow_missing=("toy/*",))
    project.add("toy", pairs(tmp_path / "whole", 5))
    project.datasets["toy"]["splits"]["test"] = {"archive": "datasets/toy-test.zip"}
    assert len(project.run()) == 5


def test_two_runs_do_not_fight(project: Project, tmp_path: Path) -> None:
    project.add("toy", pairs(tmp_path / "toy", 30))
    project.write()
    code = (
        "import sys; from types import SimpleNamespace; from pathlib import Path\n"
        "from saliency_r1.data.download import download\n"
        "settings = SimpleNamespace(catalogue='data/catalogue.yaml', datasets=('toy',), policy='models/policy',\n"
        "    segmenter='models/segmenter', mirror=None, cosod_chunk=3, limit=None, allow_missing=())\n"
        f"print(len(download(settings, Path({str(project.root)!r}), Path({str(project.out)!r}))))"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    printed = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], printed
    assert all(text.strip().endswith("30") for text in printed)
    assert sum("unchanged" in text for text in printed) == 1, "the second finds what the first has made"
