"""Extraction: the formats that are read, and what a hostile archive may not do."""

import gzip
import lzma
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from saliency_r1.data.archives import DamagedArchive, expanded_size, extract
from saliency_r1.data.errors import DataError


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_tars(tmp_path: Path, mode: str) -> None:
    (tmp_path / "source/deep").mkdir(parents=True)
    (tmp_path / "source/deep/file.txt").write_text("hello")
    with tarfile.open(tmp_path / "some.tar", mode) as file:  # type: ignore[call-overload]
        file.add(tmp_path / "source", ".")
    extract(tmp_path / "some.tar", tmp_path / "out")
    assert (tmp_path / "out/deep/file.txt").read_text() == "hello"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_truncated_tars(tmp_path: Path, mode: str) -> None:
    (tmp_path / "file.bin").write_bytes(random.Random(0).randbytes(50_000))
    archive = tmp_path / "some.tar"
    with tarfile.open(archive, mode) as file:  # type: ignore[call-overload]
        file.add(tmp_path / "file.bin", "file.bin")
    archive.write_bytes(archive.read_bytes()[:-15_000])
    with pytest.raises(DataError, match=r"some\.tar: truncated or damaged"):
        extract(archive, tmp_path / "out")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("more", [0, 200])
def test_tars_that_end_at_the_head_of_a_member(tmp_path: Path, mode: str, more: int) -> None:
    """Every member that is there is whole, and the last ones are not there."""
    whole, archive = tmp_path / "whole.tar", tmp_path / "some.tar"
    with tarfile.open(whole, "w") as file:
        for name in ("a.bin", "b.bin", "c.bin"):
            (tmp_path / name).write_bytes(random.Random(0).randbytes(5_000))
            file.add(tmp_path / name, name)
    with tarfile.open(whole) as file:
        end = file.getmember("c.bin").offset
    pack = {"w": bytes, "w:gz": gzip.compress, "w:xz": lzma.compress}[mode]
    archive.write_bytes(pack(whole.read_bytes()[: end + more]))
    with pytest.raises(DamagedArchive, match=r"some\.tar: truncated or damaged"):
        extract(archive, tmp_path / "out")


def test_a_tar_with_a_damaged_head(tmp_path: Path) -> None:
    archive = tmp_path / "some.tar"
    with tarfile.open(archive, "w") as file:
        for name in ("a.bin", "b.bin"):
            (tmp_path / name).write_bytes(b"1")
            file.add(tmp_path / name, name)
    content = bytearray(archive.read_bytes())
    content[1024 + 150] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DamagedArchive, match="where the next member or the end is expected"):
        extract(archive, tmp_path / "out")


def test_a_zip_with_a_link(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("trap")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="member 'trap' is a link or a device"):
        extract(tmp_path / "some.zip", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("images/../../escaped", "climbs out"),
        ("images/../../", "climbs out"),  # a folder
        ("/escaped", "absolute or foreign"),
        ("C:/escaped", "absolute or foreign"),
        ("images\\..\\..\\escaped", "climbs out|absolute or foreign"),
        ("C:\\escaped", "absolute or foreign"),
        ("\\\\server\\escaped", "absolute or foreign"),
    ],
)
def test_a_member_that_some_system_would_put_elsewhere(tmp_path: Path, name: str, fault: str) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as file:
        file.writestr(name, "")
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        member = tarfile.TarInfo(name.rstrip("/"))
        member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
        tar.addfile(member)
    for archive in ("some.zip", "some.tar"):
        with pytest.raises(DataError, match=fault):
            extract(tmp_path / archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bound", [None, 1000])
def test_a_bomb(tmp_path: Path, bound: int | None) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("small", "x")
        with file.open("big", "w") as member:
            for _ in range(90 if bound is None else 1):
                member.write(bytes(1 << 20))
    with pytest.raises(DataError, match=r"with member 'big' the content exceeds .* expands_to"):
        extract(archive, tmp_path / "out", bound)
    extract(archive, tmp_path / "allowed", expanded_size(archive))


def test_a_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("big", bytes(5000))
    content = archive.read_bytes().replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"bomb.zip"):
        extract(archive, tmp_path / "out", 1000)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) <= 1000


def test_a_file_that_comes_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as file:
        file.writestr("a.txt", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.txt", "2")
    with pytest.raises(DataError, match=r"'a\.txt' comes twice"):
        extract(tmp_path / "some.zip", tmp_path / "out")


def packed(archive: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return archive


def test_archives_that_are_unpacked_over_each_other_may_share_files(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        extract(packed(tmp_path / "some.zip", {"README": "read me", f"{folder}/a": folder}), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README", "images", "masks"}
    for other in ("read it", "read me not", "read"):
        with pytest.raises(DataError, match=r"other\.zip: member 'README' is not the file of this name") as no:
            extract(packed(tmp_path / "other.zip", {"README": other}), tmp_path / "out")
        assert str(tmp_path / "out") not in str(no.value), "a scratch folder, gone when the message is read"
    with pytest.raises(DataError, match=r"other\.zip: member 'README/a' is both a file and a folder") as no:
        extract(packed(tmp_path / "other.zip", {"README/a": "1"}), tmp_path / "out")
    assert str(tmp_path / "out") not in str(no.value)
    assert (tmp_path / "out/README").read_text() == "read me"


def test_a_zip_with_backslashes(tmp_path: Path) -> None:
    """As programs of old .NET write them, folders among its members."""
    archive = packed(tmp_path / "a.zip", {"images\\": "", "images\\a.txt": "a", "masks\\.b.txt": "b"})
    extract(archive, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in sorted((tmp_path / "out").rglob("*"))] == [
        "images",
        "images/a.txt",
    ]


def test_what_is_hidden_is_not_unpacked(tmp_path: Path) -> None:
    for number, name in enumerate((".DS_Store", "images/._a.jpg", "__MACOSX/images/a.jpg")):
        extract(packed(tmp_path / "some.zip", {name: str(number), "./images/a.jpg": "1"}), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["a.jpg"]
    with pytest.raises(DataError, match="climbs out"):
        extract(packed(tmp_path / "some.zip", {"../.DS_Store": "x"}), tmp_path / "out")


def test_a_file_where_a_folder_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as file:
        file.writestr("a", "1")
        file.writestr("a/b", "2")
    with pytest.raises(DataError, match="both a file and a folder"):
        extract(tmp_path / "some.zip", tmp_path / "out")


def test_an_encrypted_zip(tmp_path: Path) -> None:
    archive = tmp_path / "some.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a", "1")
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="'a' is encrypted"):
        extract(archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("encoding", "stored"), [("utf-8", "images/花朵.txt"), ("cp437", "images/café.txt"), ("gbk", "images/╗¿╢Σ.txt")]
)
def test_names_that_a_zip_does_not_call_utf8(
    tmp_path: Path, encoding: str, stored: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """macOS packs UTF-8 and does not say so; of any other encoding nobody knows which it is."""
    name = "images/café.txt" if encoding == "cp437" else "images/花朵.txt"
    raw = name.encode(encoding)
    archive = tmp_path / "some.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x" * len(raw), "hello")
    archive.write_bytes(archive.read_bytes().replace(b"x" * len(raw), raw))
    extract(archive, tmp_path / "out")
    assert (tmp_path / "out" / stored).read_text() == "hello"
    said = f"some.zip: 1 names are not in UTF-8 and are read in code page 437, such as {stored}"
    assert (said in capsys.readouterr().out) == (encoding != "utf-8")


@pytest.mark.parametrize("method", [9, 98], ids=["Deflate64", "PPMd"])
def test_a_method_that_python_does_not_know_is_no_damage(tmp_path: Path, method: int) -> None:
    archive = tmp_path / "some.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.txt", "hello" * 100)
    raw = archive.read_bytes()
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # the local header and the central one
        at = raw.index(mark) + place
        raw = raw[:at] + method.to_bytes(2, "little") + raw[at + 2 :]
    archive.write_bytes(raw)
    with pytest.raises(
        DataError, match=r"packed by a method that is not read here.*put the folder under download"
    ) as no:
        extract(archive, tmp_path / "out")
    assert not isinstance(no.value, DamagedArchive)
    assert "damaged" not in str(no.value)
