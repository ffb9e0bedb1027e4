"""The gallery of a page, and the data set for other people's viewers: which images, and that names cannot break out."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from saliency_r1.cli.app import app
from saliency_r1.evaluation.results import Settings, evaluate_folders
from saliency_r1.evaluation.shown import find_pictures, gallery, material
from saliency_r1.metrics import Protocol

NAMES = [f"p{number}" for number in range(5)]


def square(left: int, wide: int = 8) -> np.ndarray:
    mask = np.zeros((24, 32), np.uint8)
    mask[6:18, left : left + wide] = 255
    return mask


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`first` is off by 0 to 4 columns, `second` the other way round; the truth is one square."""
    monkeypatch.chdir(tmp_path)
    for kind in ("gt", "first", "second", "photos"):
        (tmp_path / kind).mkdir()
    for number, name in enumerate(NAMES):
        Image.fromarray(square(10)).save(f"gt/{name}.png")
        Image.fromarray(square(10 + number)).save(f"first/{name}.png")
        Image.fromarray(square(10 + 4 - number)).save(f"second/{name}.png")
        Image.new("RGB", (32, 24), "red").save(f"photos/{name}.jpg")
    return tmp_path


def test_the_worst_come_first_and_the_most_changed(folders: Path) -> None:
    settings = Settings("sod", bootstrap=0)
    preds = [folders / "first", folders / "second"]
    results = [evaluate_folders(pred, folders / "gt", settings) for pred in preds]
    chosen = gallery(
        results, material(preds, folders / "gt", settings, find_pictures(folders / "photos", folders / "gt")), 2
    )
    assert [row.name for row in chosen.worst] == ["p4", "p3"]
    assert [row.name for row in chosen.better] == ["p4", "p3"]
    assert [row.name for row in chosen.worse] == ["p0", "p1"]
    assert [cell.title for cell in chosen.worst[0].cells] == ["picture", "ground truth", "first", "second"]
    sm = {row["name"]: row["Sm"] for row in results[1].rows}
    assert chosen.worst[0].cells[3].score == sm["p4"]
    assert chosen.worst[0].change == sm["p4"] - {row["name"]: row["Sm"] for row in results[0].rows}["p4"]


def test_instances_are_judged_by_their_agreement(tmp_path: Path) -> None:
    for kind in ("gt", "pred"):
        (tmp_path / kind).mkdir()
    ids = (square(2) > 0) + 2 * (square(20) > 0)
    for name, found in (("one", ids), ("half", ids * (ids == 1)), ("none", ids * 0)):
        Image.fromarray(ids.astype(np.uint8)).save(tmp_path / f"gt/{name}.png")
        Image.fromarray(found.astype(np.uint8)).save(tmp_path / f"pred/{name}.png")
    settings = Settings("sis", bootstrap=0)
    results = [evaluate_folders(tmp_path / "pred", tmp_path / "gt", settings)]
    rows = gallery(results, material([tmp_path / "pred"], tmp_path / "gt", settings), 9).worst
    assert [(row.name, row.cells[-1].score) for row in rows] == [
        ("none", 0),
        ("half", pytest.approx(2 / 3)),
        ("one", 1),
    ]


def test_the_page_has_pictures_and_a_name_is_only_a_name(folders: Path) -> None:
    bad = "<img src=x onerror=alert(1)>"
    for kind in ("gt", "first"):
        Image.fromarray(square(12)).save(f"{kind}/{bad}.png")
    call = [
        "evaluate",
        "--pred",
        "first",
        "--gt",
        "gt",
        "--images",
        "photos",
        "--html",
        "page.html",
        "--bootstrap",
        "0",
    ]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    page = Path("page.html").read_text()
    assert page.count("data:image/jpeg") == len(NAMES)
    assert page.count("data:image/png") == 2 * (len(NAMES) + 1)
    assert bad not in page
    assert "&lt;img src=x" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", ""), "the page needs no network"
    done = CliRunner().invoke(app, [*call, "--gallery", "0"])
    assert done.exit_code == 0
    assert "data:image" not in Path("page.html").read_text()


def test_the_coco_file_has_truth_predictions_and_measures(folders: Path) -> None:
    call = [
        "evaluate",
        "--pred",
        "first",
        "--compare",
        "second",
        "--gt",
        "gt",
        "--coco",
        "all.json",
        "--bootstrap",
        "10",
    ]
    done = CliRunner().invoke(app, [*call, "--images", "photos"])
    assert done.exit_code == 0, done.output
    read = COCO("all.json")
    assert [category["name"] for category in read.cats.values()] == ["ground truth", "first", "second"]
    assert read.imgs[1]["file_name"] == "p0.jpg"
    assert read.imgs[1]["measures"]["first"]["Sm"] > read.imgs[1]["measures"]["second"]["Sm"]
    truth, first, second = (read.annToMask(one) for one in read.imgToAnns[3])
    assert (truth == (square(10) > 0)).all()
    assert (first == (square(12) > 0)).all()
    assert (second == (square(12) > 0)).all()
    assert len(json.loads(Path("all.json").read_text())["annotations"]) == 15
    refused = CliRunner().invoke(app, [*call[:-3], "gt/p0.png", "--bootstrap", "10"])
    assert refused.exit_code == 1


def test_what_is_scored_as_missing_is_shown_as_missing(folders: Path) -> None:
    Path("first/p1.png").write_bytes(b"no image")
    Image.fromarray(square(10)[:20]).save("first/p2.png")
    call = ["evaluate", "--pred", "first", "--gt", "gt", "--missing", "zero", "--bootstrap", "0"]
    done = CliRunner().invoke(app, [*call, "--html", "page.html", "--coco", "all.json"])
    assert done.exit_code == 0, done.output
    assert Path("page.html").is_file()
    read = COCO("all.json")
    assert [len(read.imgToAnns[image]) for image in (1, 2, 3)] == [2, 1, 1]
    done = CliRunner().invoke(app, [*call, "--coco", "all.json", "--resize"])
    assert done.exit_code == 0, done.output
    read = COCO("all.json")
    assert [len(read.imgToAnns[image]) for image in (1, 2, 3)] == [2, 1, 2]


def test_maps_of_zeros_and_ones_are_shown_as_they_are_scored(folders: Path) -> None:
    """Stretching makes them what they mean; unstretched, as scored with --no-stretch, they show nothing."""
    for name in NAMES:
        path = folders / f"first/{name}.png"
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    for stretch, area in ((True, 96), (False, 0)):
        settings = Settings("sod", Protocol(stretch=stretch))
        found = material([folders / "first"], folders / "gt", settings).predicted[0]("p2")
        assert found is not None
        ((mask, score),) = found.masks
        assert (mask.sum(), score) == (area, float(stretch))
        assert found.look.max() == (255 if stretch else 1)


def test_void_is_shown_as_it_is_scored(folders: Path) -> None:
    truth, found = square(10), square(10) // 2
    truth[:, :4], found[:, :4] = 77, 255  # where it is brightest nothing is scored
    for name in NAMES:
        Image.fromarray(truth).save(f"gt/{name}.png")
        Image.fromarray(found).save(f"first/{name}.png")
    settings = Settings("sod", Protocol(void=77), bootstrap=0)
    rows = evaluate_folders(folders / "first", folders / "gt", settings).rows
    shown = material([folders / "first"], folders / "gt", settings)
    predicted = shown.predicted[0]("p0")
    assert predicted is not None
    assert rows[0]["IoU"] == 1
    for side in (shown.truth("p0"), predicted):
        assert (side.masks[0][0] == (square(10) > 0)).all()


def test_a_mask_beside_its_photo_is_not_shown_as_the_picture(folders: Path) -> None:
    for name in NAMES:
        Path(f"photos/{name}.jpg").rename(f"gt/{name}.jpg")
    shown = material(
        [folders / "first"], folders / "gt", Settings("sod"), find_pictures(folders / "gt", folders / "gt")
    )
    assert {path.suffix for path in shown.images.values()} == {".jpg"}
    assert len(shown.images) == len(NAMES)


def test_pictures_cost_no_evaluation(folders: Path) -> None:
    """A wrong folder is told before anything is scored, a broken picture is left out, and numbers come before files."""
    call = ["evaluate", "--pred", "first", "--gt", "gt", "--bootstrap", "0", "--html", "page.html", "--images"]
    Path("first/p0.png").write_bytes(b"no image")
    wrong = CliRunner().invoke(app, [*call, "nowhere"])
    assert "nowhere is not a folder" in wrong.output, "and not that a map cannot be read"
    Image.fromarray(square(10)).save("first/p0.png")
    Path("photos/p1.jpg").write_bytes(b"no image")
    done = CliRunner().invoke(app, [*call, "photos"])
    assert done.exit_code == 0, done.output
    assert "not shown: photos/p1.jpg is not a readable image" in done.stderr
    assert Path("page.html").read_text().count("data:image/jpeg") == len(NAMES) - 1


def test_the_numbers_are_printed_before_files_are_written(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("saliency_r1.evaluation.results.write_json", full)
    done = CliRunner().invoke(app, ["evaluate", "--pred", "first", "--gt", "gt", "--json", "n.json"])
    assert done.exit_code == 1
    assert "maxFm" in done.stdout
