"""Broken inputs: a clear error with the name of the file or key, nothing half-written, earlier results intact."""

import errno
import os
import shutil
import tarfile
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saliency_r1.data.errors import DataError

from .toys import Project, mask, pairs, picture

Intact = Callable[[], None]


def refused(project: Project, *words: str, **settings: Any) -> None:
    """The stage stops, and its message has all the words."""
    with pytest.raises(DataError) as caught:
        project.run(["bad"], **settings)
    for word in words:
        assert word in str(caught.value)


def test_a_truncated_archive(project: Project, finished: Intact, tmp_path: Path) -> None:
    archive = project.add("bad", pairs(tmp_path / "bad"))
    archive.write_bytes(archive.read_bytes()[:-100])
    refused(project, archive.name, "expected", "truncated")
    finished()


def test_a_truncated_archive_of_unknown_size(project: Project, finished: Intact, tmp_path: Path) -> None:
    archive = project.add("bad", pairs(tmp_path / "bad"))
    for key in ("size", "sha256"):
        del project.datasets["bad"]["splits"]["test"][key]
    archive.write_bytes(archive.read_bytes()[:-100])
    refused(project, archive.name, "truncated or damaged")
    finished()


def test_a_wrong_hash(project: Project, finished: Intact, tmp_path: Path) -> None:
    archive = project.add("bad", pairs(tmp_path / "bad"))
    content = bytearray(archive.read_bytes())
    content[50] ^= 1
    archive.write_bytes(content)
    refused(project, archive.name, "sha256", "expected")
    finished()


@pytest.mark.parametrize("name", ["../escaped.txt", "images/../../escaped.txt", "/tmp/escaped.txt", "C:\\escaped.txt"])
def test_a_member_that_climbs(project: Project, finished: Intact, tmp_path: Path, name: str) -> None:
    source = pairs(tmp_path / "bad")
    archive = project.add("bad", source)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, "escaped")
    project.datasets["bad"]["splits"]["test"] = {"archive": f"datasets/{archive.name}"}
    refused(project, archive.name, repr(name.replace("\\", "/")))
    finished()
    assert not list(tmp_path.rglob("escaped.txt"))


def test_an_image_that_is_none(project: Project, finished: Intact, tmp_path: Path) -> None:
    source = pairs(tmp_path / "bad")
    (source / "images/0002.jpg").write_text("<html>not found</html>")
    project.add("bad", source)
    refused(project, "bad/test/0002", "0002.jpg is not a readable image", "download.allow_missing")
    finished()


def test_an_image_cut_short(project: Project, finished: Intact, tmp_path: Path) -> None:
    source = pairs(tmp_path / "bad")
    whole = (source / "images/0001.jpg").read_bytes()
    (source / "images/0001.jpg").write_bytes(whole[: len(whole) // 2])
    project.add("bad", source)
    refused(project, "0001.jpg is not a readable image")
    finished()


def test_a_mask_of_another_size(project: Project, finished: Intact, tmp_path: Path) -> None:
    source = pairs(tmp_path / "bad")
    mask((20, 30)).save(source / "masks/0003.png")
    project.add("bad", source)
    refused(project, "bad/test/0003: the mask is 20 x 30, the image 40 x 30")
    finished()


@pytest.mark.parametrize("rule", [{"rule": "binary"}, {"rule": "threshold", "threshold": 128}])
def test_a_mask_of_zeros_and_ones(project: Project, finished: Intact, tmp_path: Path, rule: dict[str, Any]) -> None:
    source = pairs(tmp_path / "bad")
    mask(value=1).save(source / "masks/0000.png")
    project.add("bad", source, mask=rule)
    refused(project, "bad/test/0000", "values 0, 1", "threshold: 1")
    finished()


def test_a_mask_with_greys(project: Project, finished: Intact, tmp_path: Path) -> None:
    source = pairs(tmp_path / "bad")
    mask(value=200).save(source / "masks/0000.png")
    project.add("bad", source)
    refused(project, "values 200 beside 0 and 255", "rule: threshold")
    finished()


def test_images_without_masks_and_masks_without_images(project: Project, finished: Intact, tmp_path: Path) -> None:
    source = pairs(tmp_path / "bad")
    (source / "masks/0000.png").unlink()
    (source / "images/0001.jpg").unlink()
    picture(5).save(source / "images/0002.png")
    project.add("bad", source)
    refused(project, "0000.jpg has no mask", "0001.png is a mask without an image", "0002.jpg and 0002.png")
    finished()


def test_what_is_missing_can_be_excused_by_name(project: Project, finished: Intact, tmp_path: Path) -> None:
    source = pairs(tmp_path / "bad")
    (source / "masks/0000.png").unlink()
    project.add("bad", source, count=4)
    refused(project, "bad/test/0000", allow_missing=("bad/test/0001",))
    table = project.run(["bad"], allow_missing=("bad/test/000?",))
    assert table["names"].explode().to_list() == ["0001", "0002", "0003"]
    missing = project.report()["imports"]["bad/test"]["missing"]
    assert missing == [{"name": "0000", "reason": "0000.jpg has no mask"}]


@pytest.mark.parametrize("half", ["images/0001.jpg", "masks/0001.png"])
def test_a_link_that_leads_nowhere_is_a_broken_file(
    project: Project, finished: Intact, tmp_path: Path, half: str
) -> None:
    source = pairs(tmp_path / "bad")
    (source / half).unlink()
    (source / half).symlink_to(tmp_path / "gone")
    project.datasets["bad"] = {"splits": {"test": {"folder": str(source), "count": 4}}}
    refused(project, "bad/test/0001", f"{half} is a link that leads nowhere", "download.allow_missing")
    finished()
    table = project.run(["bad"], allow_missing=("bad/test/0001",))
    assert table["names"].explode().to_list() == ["0000", "0002", "0003"]


def test_fewer_images_than_expected(project: Project, finished: Intact, tmp_path: Path) -> None:
    project.add("bad", pairs(tmp_path / "bad", 3), count=[5, 4])
    refused(project, "bad/test: 3 images, the catalogue expects 5 or 4")
    finished()
    assert len(project.run(["bad"], allow_missing=("bad/test/*",))) == 3


def test_folders_that_are_elsewhere(project: Project, finished: Intact, tmp_path: Path) -> None:
    folder = pairs(tmp_path / "bad")
    (folder / "images").rename(folder / "camera")
    project.add("bad", folder, images="left")
    refused(project, "bad/test: left: expected once in the archive", "camera/, masks/")
    finished()


def test_a_catalogue_with_a_wrong_key(project: Project, finished: Intact, tmp_path: Path) -> None:
    project.add("bad", pairs(tmp_path / "bad"))
    project.datasets["bad"]["splits"]["test"]["sha265"] = "0" * 64
    refused(project, "catalogue.yaml", "datasets.bad.splits.test.sha265")
    finished()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_file_that_the_disk_does_not_give_is_listed(
    project: Project, finished: Intact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    project.datasets["bad"] = {"folder": str(pairs(tmp_path / "bad"))}
    opened = Image.open

    def kept_back(path: Any, *others: Any, **more: Any) -> Any:
        if Path(path).name in ("0001.jpg", "0002.png"):
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *others, **more)

    monkeypatch.setattr(Image, "open", kept_back)
    for name in ("0001.jpg", "0002.png"):
        refused(project, "2 images cannot be imported", f"{name} cannot be read ({os.strerror(number)})")
    project.run(["bad"], allow_missing=["bad/*"])


def test_a_folder_that_the_system_does_not_give(
    project: Project, finished: Intact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.datasets["bad"] = {"folder": str(pairs(tmp_path / "bad"))}
    scanned = os.scandir

    def kept_back(path: Any = ".") -> Any:
        if Path(path).name == "masks" and "bad" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scanned(path)

    monkeypatch.setattr(os, "scandir", kept_back)
    refused(project, "bad/test", "bad/masks cannot be read (Permission denied); check its owner")
    finished()


def test_an_archive_that_the_disk_does_not_give(
    project: Project, finished: Intact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project.add("bad", pairs(tmp_path / "bad"))

    def kept_back(path: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("saliency_r1.data.fetch.sha256", kept_back)
    refused(project, f"{path}: cannot be read (Input/output error)")
    finished()


def test_a_file_in_place_of_a_folder(project: Project, finished: Intact, tmp_path: Path) -> None:
    folder = pairs(tmp_path / "bad")
    shutil.rmtree(folder / "images")
    (folder / "images").write_text("no folder")
    project.datasets["bad"] = {"folder": str(folder)}
    refused(project, "bad/images: expected a folder of pictures, found a file")
    finished()


def test_artifacts_that_cannot_be_written(project: Project, tmp_path: Path) -> None:
    project.add("bad", pairs(tmp_path / "bad"))
    (project.root / "artifacts").write_text("a file stands where the folder should be")
    refused(project, str(project.root / "artifacts"), "cannot be written")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_artifacts_without_permission(project: Project, finished: Intact, tmp_path: Path) -> None:
    project.add("bad", pairs(tmp_path / "bad"))
    project.out.parent.chmod(0o555)
    refused(project, str(project.out.parent), "cannot be written")
    project.out.parent.chmod(0o755)
    finished()


@pytest.mark.parametrize("victim", ["saliency_r1.data.store.link", "saliency_r1.data.archives.open", "shutil.copytree"])
def test_a_disk_that_fills_up(
    project: Project, finished: Intact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    project.add("bad", pairs(tmp_path / "bad"))

    def full(path: Any, *others: Any, **more: Any) -> Any:
        if victim.endswith("open") and "r" in others[0]:
            return open(path, *others, **more)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(victim, full, raising=False)
    if victim.endswith("link"):
        monkeypatch.setattr("saliency_r1.data.splits.link", full)
    refused(project, "the disk is full", str(project.out))
    finished()


def test_a_disk_that_is_too_small(
    project: Project, finished: Intact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.add("bad", pairs(tmp_path / "bad"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    refused(project, "unpacking bad/test needs", "free")
    finished()


def test_attributes_that_do_not_fit(project: Project, finished: Intact, tmp_path: Path) -> None:
    source = pairs(tmp_path / "bad")
    (source / "attributes.json").write_text('{"0000": {"id": 1}}')
    project.add("bad", source)
    refused(project, "attributes.json", "'0000'")
    finished()


@pytest.mark.parametrize("wrong", ['"2"', "null", "[2]"])
def test_attributes_with_ids_that_are_no_numbers(
    project: Project, finished: Intact, tmp_path: Path, wrong: str
) -> None:
    source = pairs(tmp_path / "bad", 1)
    (source / "attributes.json").write_text(f'{{"0000": [{{"id": 1}}, {{"id": {wrong}}}]}}')
    project.add("bad", source, task="sis")
    said = {"null": "None", '"2"': "'2'"}.get(wrong, wrong)
    refused(project, "bad/test: attributes.json", f"'0000' has the id {said}, expected a number")
    finished()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"0000": [{"id": 1, "name": "cat \\ud83d"}]}', "'0000' has half a character"),
        ('{"0000": [], "0000.jpg": []}', "'0000' has two entries"),
        ('{"0000": [{"id": 1, "phrase": 5}]}', "'0000' has the phrase 5, expected words"),
        ('{"0000": [{"id": 1, "name": "a <rg>"}]}', "'0000' has the name 'a <rg>', expected words without < and >"),
        ('{"0000": [{"id": 1, "name": "cat", "also": "puss"}]}', "has 'puss' for also, expected a list of words"),
        ('{"0000": [{"id": 1, "phrase": " "}]}', "'0000' has the phrase ' ', expected words"),
        ('{"0000": [{"id": 1, "size": null}]}', "'0000' has the size None, expected words"),
        ('{"0000": [{"id": 1, "salient": "no"}]}', "'0000' has 'no' for salient, expected true or false"),
        ('{"0000": [{"id": [1], "name": "cat"}]}', "'0000' has the id [1], expected a number"),
        ('{"0000": [{"id": 17, "phrase": "the kayak"}]}', "'0000' has the ids [17], expected 1 for the salient region"),
    ],
)
def test_attributes_that_cannot_be_meant(
    project: Project, finished: Intact, tmp_path: Path, content: str, said: str
) -> None:
    source = pairs(tmp_path / "bad", 1)
    (source / "attributes.json").write_text(content)
    project.add("bad", source)
    refused(project, "bad/test: attributes.json", said)
    finished()


def test_attributes_that_are_named_and_not_there(project: Project, finished: Intact, tmp_path: Path) -> None:
    project.datasets["bad"] = {
        "splits": {"test": {"folder": str(pairs(tmp_path / "bad")), "attributes": "objects.json"}}
    }
    refused(project, "bad/test: objects.json: expected once")
    finished()


def test_attributes_that_disagree_with_the_map(project: Project, finished: Intact, tmp_path: Path) -> None:
    source = pairs(tmp_path / "bad", 1)
    Image.open(source / "masks/0000.png").point(lambda value: value // 85).save(source / "masks/0000.png")
    (source / "attributes.json").write_text('{"0000": [{"id": 2, "salient": true}]}')
    project.add("bad", source, task="sis")
    refused(project, "bad/test/0000: its attributes name the salient ids [2], its instance map has [3]")
    finished()


def test_an_archive_of_the_wrong_kind(project: Project, finished: Intact, tmp_path: Path) -> None:
    archive = project.add("bad", pairs(tmp_path / "bad"))
    project.datasets["bad"]["splits"]["test"] = {"archive": f"datasets/{archive.name}"}
    for content, words in (
        (b"7z\xbc\xaf\x27\x1c rest", "7z archives are not read"),
        (b"Rar!\x1a\x07 rest", "rar archives are not read"),
        (b"\x28\xb5\x2f\xfd rest", "zstd archives are not read"),
        (b"PK\x07\x08PK\x03\x04 rest", "split zip archives are not read"),
        (b"<!DOCTYPE html><title>Quota exceeded", "HTML page"),
        (b"whatever", "expected a zip or tar archive"),
    ):
        archive.write_bytes(content)
        refused(project, archive.name, words)
    finished()


def test_a_tar_with_links_and_devices(project: Project, finished: Intact, tmp_path: Path) -> None:
    archive = project.root / "data/datasets/bad.tar.gz"
    archive.parent.mkdir(exist_ok=True)
    project.datasets["bad"] = {"splits": {"test": {"archive": "datasets/bad.tar.gz"}}}
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        member = tarfile.TarInfo("images/trap")
        member.type, member.linkname = kind, "/etc/passwd"
        with tarfile.open(archive, "w:gz") as file:
            file.add(pairs(tmp_path / "bad"), ".")
            file.addfile(member)
        refused(project, "bad.tar.gz", "'images/trap'")
    finished()
