"""The same rules through the stage and the command line: orientation, empty sets, names in `allow_missing`, void."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from saliency_r1.cli.app import app
from saliency_r1.data.errors import DataError
from tests.data.toys import Project, mask, pairs


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.mark.parametrize(("declared", "turned"), [(None, False), ("upright", False), ("stored", True)])
def test_where_sizes_agree_the_catalogue_decides_and_it_is_said(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], declared: str | None, turned: bool
) -> None:
    source = pairs(tmp_path / "own", 1)
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(source / "images/0000.jpg") as image:
        image.save(source / "images/0000.jpg", exif=exif)
    project.add("own", source, **({"mask": {"orientation": declared}} if declared else {}))
    project.run(["own"])
    drawn = np.asarray(Image.open(source / "masks/0000.png"))
    (stored,) = (project.out / "datasets/own/test/masks").iterdir()
    assert np.array_equal(np.asarray(Image.open(stored)), drawn[::-1, ::-1] if turned else drawn)
    assert f"1 images are turned upright (EXIF); {int(turned)} of their masks" in capsys.readouterr().out


def test_a_declared_orientation_is_not_overruled_by_sizes(project: Project, tmp_path: Path) -> None:
    source = pairs(tmp_path / "own", 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(source / "images/0000.jpg") as image:
        image.save(source / "images/0000.jpg", exif=exif)
    project.add("own", source, mask={"orientation": "upright"})
    with pytest.raises(DataError, match="orientation: upright"):
        project.run(["own"])


def test_a_split_without_any_object(project: Project, tmp_path: Path) -> None:
    source = pairs(tmp_path / "own", 2)
    for path in (source / "masks").iterdir():
        mask(value=0).save(path)
    project.add("own", source)
    with pytest.raises(DataError, match=r"own/test: all 2 masks are empty.*empty: keep"):
        project.run(["own"])
    project.add("said", source, mask={"empty": "keep"})
    project.run(["said"])
    project.add("said", source)
    del project.datasets["said"]["mask"]
    with pytest.raises(DataError, match="masks are empty"):  # though not a byte of it has changed
        project.run(["said"])


def test_a_name_with_brackets_is_excused_by_itself(project: Project, tmp_path: Path) -> None:
    source = pairs(tmp_path / "own", 2)
    (source / "masks/0001.png").unlink()
    (source / "images/0001.jpg").rename(source / "images/photo [1].jpg")
    project.add("own", source)
    with pytest.raises(DataError, match=r"photo \[1\]"):
        project.run(["own"])
    project.run(["own"], allow_missing=["own/test/photo [1]"])


def test_void_and_empty_on_the_command_line(tmp_path: Path) -> None:
    values = np.zeros((12, 16), np.uint8)
    values[3:8, 3:8] = 255
    for name, there in (("pred", values), ("gt", np.where(np.arange(16) < 2, np.uint8(200), values))):
        (tmp_path / name).mkdir()
        Image.fromarray(there).save(tmp_path / name / "a.png")
    asked = ["evaluate", "--pred", str(tmp_path / "pred"), "--gt", str(tmp_path / "gt"), "--bootstrap", "0"]
    run = CliRunner().invoke
    iou = [line.split()[-1] for line in run(app, [*asked, "--void", "0xC8"]).stdout.splitlines() if "IoU" in line]
    assert iou == ["1.0000"]
    assert "IoU" in run(app, asked).stdout
    refused = run(app, [*asked, "--void", "none"])
    assert refused.exit_code == 2
    Image.fromarray(values // 255).save(tmp_path / "gt/a.png")
    assert run(app, asked).exit_code == 1
    assert run(app, [*asked, "--gt-threshold", "0"]).exit_code == 0
    assert run(app, [*asked, "--empty", "zero"]).exit_code == 0
