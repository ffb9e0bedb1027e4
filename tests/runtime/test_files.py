"""Folders that are whole or absent, links, hashes."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saliency_r1.runtime.files import atomic_folder, link, link_tree, replacing, sha256, write_json, write_text


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    with atomic_folder(target) as folder:
        (folder / "b").write_text("2")
        assert listing(target) == ["a"]
    assert listing(target) == ["b"]
    assert listing(tmp_path / "deep") == ["target"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "target"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("1")

    def half() -> None:
        with atomic_folder(target) as folder:
            (folder / "a").write_text("half")
            raise error

    with pytest.raises(error):
        half()
    assert (target / "a").read_text() == "1"
    assert listing(tmp_path) == ["target"]


def test_a_rename_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "a").write_text("1")
    rename = Path.rename

    def second_fails(path: Path, to: Path) -> Path:
        if path.name == ".target.new":
            raise OSError(errno.EIO, "input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OSError, match="input/output"), atomic_folder(target) as folder:
        (folder / "a").write_text("2")
    assert (target / "a").read_text() == "1"
    assert listing(tmp_path) == ["target"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".target.old").mkdir()
    (tmp_path / ".target.old/a").write_text("1")  # it died between its two renames
    (tmp_path / ".target.new").mkdir()
    (tmp_path / ".target.new/b").write_text("2")
    with pytest.raises(ValueError, match="stop"), atomic_folder(tmp_path / "target"):
        raise ValueError("stop")
    assert listing(tmp_path) == ["target"]
    assert listing(tmp_path / "target") == ["a"]


def test_a_second_writer_waits(tmp_path: Path) -> None:
    code = (
        "import sys, time; from saliency_r1.runtime.files import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as folder:\n"
        "    print('in', flush=True); time.sleep(float(sys.argv[2])); (folder / sys.argv[3]).write_text('')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "target")]
    first = subprocess.Popen([*command, "1", "first"], stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.readline()
    start = time.monotonic()
    second = subprocess.run([*command, "0", "second"], capture_output=True, text=True, timeout=60)
    assert first.wait(60) == second.returncode == 0
    assert "waiting for another process" in second.stderr or time.monotonic() - start > 1
    assert listing(tmp_path / "target") == ["second"]


def test_json_and_hashes(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": [1, 2]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "ä": [\n    1,\n    2\n  ]\n}\n'
    (tmp_path / "empty").write_bytes(b"")
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_two_files_of_one_folder_are_written_at_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    with replacing(one) as first, replacing(two) as second:
        first.write_text("1")
        second.write_text("2")
        assert first.suffix == second.suffix == ".png"
    assert (one.read_text(), two.read_text()) == ("1", "2")
    assert sorted(tmp_path.iterdir()) == [one, two]


def test_links_share_bytes_or_copy_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source/sub").mkdir(parents=True)
    (tmp_path / "source/sub/a").write_text("1")
    (tmp_path / "source/.hidden").write_text("2")
    (tmp_path / "source/b").symlink_to(tmp_path / "source/sub/a")
    link_tree(tmp_path / "source", tmp_path / "target")
    assert listing(tmp_path / "target") == ["b", "sub"]
    assert (tmp_path / "target/sub/a").samefile(tmp_path / "source/sub/a")
    assert not (tmp_path / "target/b").is_symlink()

    def elsewhere(*paths: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", elsewhere)
    link(tmp_path / "source/b", tmp_path / "copied")
    assert (tmp_path / "copied").read_text() == "1"
    assert (tmp_path / "copied").stat().st_nlink == 1


def test_a_pipe_is_written_into_and_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        write_text(pipe, "said")
        assert reader.communicate(timeout=10)[0] == "said"
    assert pipe.is_fifo()
    assert listing(tmp_path) == ["pipe"]


def test_a_link_to_a_folder_leads_to_the_new_one_each_time(tmp_path: Path) -> None:
    """`ln -s /bigdisk/out out`: the link stays, and so does a run after the next; what broke once is mended."""
    (tmp_path / "big/out").mkdir(parents=True)
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "big/out")
    for content in ("one", "two"):
        with atomic_folder(out) as folder:
            (folder / "content").write_text(content)
        assert out.is_symlink()
        assert (tmp_path / "big/out/content").read_text() == content
    (tmp_path / ".plain.old").symlink_to(tmp_path / "big/out")
    (tmp_path / "plain").mkdir()
    with atomic_folder(tmp_path / "plain"):
        pass
    assert not (tmp_path / ".plain.old").is_symlink()
    assert (tmp_path / "big/out/content").is_file(), "a link goes, and not what it leads to"
