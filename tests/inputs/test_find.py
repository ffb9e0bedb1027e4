"""Folders as systems leave them: hidden things, links, pipes, and names in several spellings."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_r1.data.catalogue import MaskRule, Split
from saliency_r1.data.importers import LAYOUTS, Item, Problem
from saliency_r1.data.store import import_item
from saliency_r1.evaluation.folders import find_maps, score_folders
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import pictures_among, pictures_below, pictures_in, require_file
from saliency_r1.inputs.masks import read_levels
from saliency_r1.inputs.pictures import read_picture
from saliency_r1.metrics import MeasureError

NFC, NFD = (unicodedata.normalize(form, "Größe café") for form in ("NFC", "NFD"))


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((8, 9), np.uint8)
    values[2:5, 3:6] = 255
    Image.fromarray(values).save(path)
    return path


def test_hidden_things_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "x/a.png")
    for name in (
        ".a.png",
        "._a.png",
        ".thumbnails/a.png",
        "x/.ipynb_checkpoints/a.png",
        "__MACOSX/a.png",
        "@eaDir/a.png",
    ):
        save(tmp_path / name)
    assert pictures_below(tmp_path) == [tmp_path / "x/a.png"]
    assert list(find_maps(tmp_path)) == ["x/a"]
    assert pictures_in(tmp_path) == []


def test_a_picture_that_cannot_be_read_is_found_where_it_stands_alone(tmp_path: Path) -> None:
    for name in (
        "a.jpg",
        "a.HEIC",
        "b.heic",
        "c.jfif",
        "d.txt",
        ".e.heic",
        "f.jpe",
        "f.npy",
        "g.tga",
        "h.svg",
        "i.npy",
    ):
        save(tmp_path / "x.png").rename(tmp_path / name)
    found = [tmp_path / name for name in ("a.jpg", "b.heic", "c.jfif", "f.jpe", "g.tga", "h.svg", "i.npy")]
    assert pictures_in(tmp_path) == pictures_below(tmp_path) == pictures_among(tmp_path.iterdir()) == found


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    save(tmp_path / "store/g/a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/linked").symlink_to(tmp_path / "store/g")
    (tmp_path / "set/b.png").symlink_to(tmp_path / "store/g/a.png")
    (tmp_path / "store/g/up").symlink_to(tmp_path / "set")
    (tmp_path / "set/self").symlink_to(".")
    assert list(find_maps(tmp_path / "set")) == ["b", "linked/a"]


def test_names_meet_however_they_are_spelt(tmp_path: Path) -> None:
    save(tmp_path / "images" / f"{NFD}.png")
    save(tmp_path / "masks" / f"{NFC}.PNG")
    assert NFC != NFD
    found = LAYOUTS["pairs"].find(tmp_path, Split(folder="x"))
    assert [item.name for item in found.items] == [NFC]
    assert not found.problems
    assert len(score_folders(tmp_path / "images", tmp_path / "masks").evaluator) == 1
    save(tmp_path / "masks" / f"{NFD}.png")
    assert "have the same name" in LAYOUTS["pairs"].find(tmp_path, Split(folder="x")).problems[0].reason
    for side in ("image", "gt"):
        save(tmp_path / "groups" / side / (NFC if side == "gt" else NFD) / "a.png")
    groups = LAYOUTS["groups"].find(tmp_path / "groups", Split(folder="x", images="image", masks="gt"))
    assert [item.name for item in groups.items] == [f"{NFC}/a"]


def special(folder: Path, kind: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "a.png"
    match kind:
        case "a named pipe":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "a folder":
            path.mkdir()
        case "a link that leads nowhere":
            path.symlink_to("gone.png")
        case "cannot be reached":
            path.symlink_to(path)
    return path


@pytest.mark.parametrize(
    "kind", ["a named pipe", "a device", "a folder", "a link that leads nowhere", "cannot be reached"]
)
def test_what_is_no_file_is_said_and_never_opened(tmp_path: Path, kind: str) -> None:
    path = special(tmp_path / "images", kind)
    for read in (read_picture, read_levels, require_file):
        with pytest.raises(InputError, match=kind):
            read(path)
    mask = save(tmp_path / "masks/a.png")
    result = import_item(Item("a", path, mask), LAYOUTS["pairs"], MaskRule(), tmp_path / "out")
    assert isinstance(result, Problem)
    assert kind in result.reason
    if kind != "a folder":
        with pytest.raises(MeasureError, match=kind):
            score_folders(tmp_path / "images", tmp_path / "masks")
        with pytest.raises(MeasureError, match=kind):
            score_folders(tmp_path / "masks", tmp_path / "images")


def test_an_address_is_told_from_a_file_that_is_missing() -> None:
    for address in ("https://example.org/a.jpg", "http://example.org/a.jpg"):
        with pytest.raises(InputError, match=r"example\.org/a\.jpg is an address, .* save the file"):
            read_picture(Path(address))
    with pytest.raises(InputError, match="is missing"):
        read_picture(Path("gone/a.jpg"))


def test_a_name_that_is_not_utf8_is_refused_in_letters_that_can_be_printed(tmp_path: Path) -> None:
    for side in ("images", "masks"):
        save(tmp_path / side / "b.png")
        os.rename(os.fsencode(tmp_path / side / "b.png"), os.fsencode(tmp_path / side) + b"/caf\xe9.png")
    (item,) = LAYOUTS["pairs"].find(tmp_path, Split(folder="x")).items
    result = import_item(item, LAYOUTS["pairs"], MaskRule(), tmp_path / "out")
    assert isinstance(result, Problem)
    assert result.name == r"caf\xe9"
    assert result.reason.encode()
    assert r"caf\xe9.png: the name is not UTF-8" in result.reason
    with pytest.raises(MeasureError, match="the name is not UTF-8") as refusal:
        score_folders(tmp_path / "images", tmp_path / "masks")
    assert str(refusal.value).encode()
