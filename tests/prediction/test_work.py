"""What files, folders and patterns amount to, and what a record keeps."""

import json
from pathlib import Path

import pytest
from PIL import Image

from saliency_r1.prediction.predictor import PredictError
from saliency_r1.prediction.work import collect, prompts


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/: a.jpg, cats/b.png, cats/old/c.png, dogs/b.png, and what is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "cats/b.png", "cats/old/c.png", "dogs/b.png", ".hidden/d.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / name)
    (tmp_path / "photos/notes.txt").write_text("none")
    return tmp_path


def names(*given: str, task: str = "sod", **options) -> list[list[str]]:
    return [[picture.name for picture in prompt] for prompt in prompts(collect(list(given), task, **options), task, 2)]


def test_a_folder_is_its_pictures_and_sub_folders_are_mirrored(photos: Path) -> None:
    assert names("photos") == [["a"]]
    assert names("photos", recursive=True) == [["a"], ["cats/b"], ["cats/old/c"], ["dogs/b"]]
    assert names("photos/a.jpg", "photos/cats") == [["a"], ["b"]]


def test_what_cannot_be_read_is_asked_for_and_not_left_out(photos: Path) -> None:
    for name in ("e.heic", "a.HEIC", "f.jfif"):
        (photos / "photos" / name).write_bytes(b"")
    assert names("photos") == names("photos/*.*") == [["a"], ["e"], ["f"]]


def test_patterns_keep_what_follows_their_fixed_part(photos: Path) -> None:
    assert names("photos/*.jpg") == [["a"]]
    assert names("photos/**/*.png") == [["cats/b"], ["cats/old/c"], ["dogs/b"]]
    assert names("photos/c*") == [["cats/b"]]
    with pytest.raises(PredictError, match=r"photos/\*\.gif: no picture fits"):
        names("photos/*.gif")


def test_for_cosod_a_folder_is_a_group(photos: Path) -> None:
    for name in ("x", "y", "z"):
        Image.new("RGB", (4, 4)).save(photos / f"photos/cats/{name}.png")
    (photos / "photos/a.jpg").rename(photos / "a.jpg")
    assert names("photos", task="cosod") == [["cats/b", "cats/x"], ["cats/y", "cats/z"], ["dogs/b"]]
    assert names("photos/cats", task="cosod") == [["cats/b", "cats/x"], ["cats/y", "cats/z"]]
    assert names("photos/cats", "photos/dogs", task="cosod")[-1] == ["dogs/b"]
    assert ["cats/old/c"] in names("photos", task="cosod", recursive=True)
    assert names("a.jpg", "photos/dogs/b.png", task="cosod") == [["a", "b"]]


def test_what_was_written_into_a_folder_of_pictures_is_none_of_them(photos: Path) -> None:
    Image.new("RGB", (4, 4)).save(photos / "photos/dogs/found.png")
    written = [Path("photos/dogs/found.png")]
    assert names("photos", recursive=True, written=written) == [["a"], ["cats/b"], ["cats/old/c"], ["dogs/b"]]
    assert names("photos/dogs", written=written) == [["b"]]
    written.append(photos / "photos/dogs/b.png")
    with pytest.raises(PredictError, match="photos/dogs holds results of an earlier run, which are passed over"):
        names("photos/dogs", written=written)


def test_what_is_found_twice_is_one_picture(photos: Path) -> None:
    everything = [["a"], ["cats/b"], ["cats/old/c"], ["dogs/b"]]
    for pattern in ("photos/**", "photos/**/*"):
        for recursive in (False, True):
            assert sorted(names(pattern, recursive=recursive)) == everything
    assert names("photos/a.jpg", "photos/../photos/a.jpg", "photos") == [["a"]]
    asked = names("photos/**", task="cosod")
    assert len([name for prompt in asked for name in prompt]) == 4, (
        "once, though the name of a group's picture begins with the group"
    )


def test_a_pattern_finds_no_results_of_an_earlier_run(photos: Path) -> None:
    (photos / "photos/out/maps").mkdir(parents=True)
    Image.new("L", (4, 4)).save(photos / "photos/out/maps/b.png")
    written = [Path("photos/out/maps/b.png")]
    for pattern in ("photos/**/*.png", "photos/*/*.png", "photos/**"):
        assert not [name for prompt in names(pattern, written=written) for name in prompt if "out" in name]
    with pytest.raises(PredictError, match="no picture fits this pattern but results of an earlier run"):
        names("photos/out/maps/*.png", written=written)
    Path("photos/circle.png").symlink_to("circle.png")
    assert ["circle"] in names("photos/*.png", written=written), "told as a bad file when it is read"


def test_patterns_do_not_go_round_in_circles(photos: Path) -> None:
    """With two links to the folder they lie in, `glob` finds 2**40 ways to every picture."""
    for name in ("here", "again"):
        (photos / "photos/cats" / name).symlink_to(".")
    everything = [["a"], ["cats/b"], ["cats/old/c"], ["dogs/b"]]
    for pattern in ("photos/**", "photos/**/", "photos/**/**", "ph*/**"):
        assert sorted(names(pattern)) == (
            [[f"photos/{name}"] for [name] in everything] if "ph*" in pattern else everything
        )
    assert names("photos/**/*.png") == everything[1:]
    assert names("photos/**/old/*") == [["cats/old/c"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("photos/cats/b.png", "photos/dogs/b.png"), "two pictures are called b"),
        (("photos/cats", "photos/dogs"), "two pictures are called b"),
        (("empty",), "empty holds no picture"),
    ],
)
def test_what_cannot_be_told_apart_or_is_not_there_is_refused(photos: Path, given: tuple, message: str) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(PredictError, match=message):
        names(*given)


def test_the_docstring_of_the_predictor_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import doctest

    from test_predict import picture, predictor

    import saliency_r1.prediction.predictor as module

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("cat", "dog"):
        picture().save(tmp_path / f"photos/{name}.png")
    found = doctest.DocTestFinder(recurse=False).find(module, globs={**vars(module), "predictor": predictor("sod")})
    (example,) = found
    assert len(example.examples) == 5
    report: list[str] = []
    assert doctest.DocTestRunner().run(example, out=report.append).failed == 0, "".join(report)


def test_json_of_a_record_is_what_was_kept(tmp_path: Path) -> None:
    """A line that a killed run has cut off is passed over; the lines before it count."""
    from test_predict import picture, predictor

    from saliency_r1.prediction.record import Record
    from saliency_r1.prediction.work import Picture

    answer = predictor("sis").predict([picture()], "sis")
    record = Record(tmp_path, "sis", "m", ("coco",))
    record.add(answer, (Picture(Path("a.jpg"), "a"),))
    with (tmp_path / ".answers.jsonl").open("a") as journal:
        journal.write('{"task": "sis", "mod')
    again = Record(tmp_path, "sis", "m", ("coco",), keep=True)
    assert again.has((Picture(Path("a.jpg"), "a"),))
    again.finish()
    content = json.loads((tmp_path / "coco.json").read_text())
    assert [one["area"] for one in content["annotations"]] == [12 * 32, 24 * 32]
    assert content["annotations"][0]["bbox"] == [0, 0, 32, 12]
    assert not (tmp_path / ".answers.jsonl").exists()
    with pytest.raises(PredictError, match="holds answers of m to sis, not of other to sis"):
        Record(tmp_path, "sis", "other", keep=True)


def test_brackets_in_the_name_of_a_folder_are_letters(photos: Path) -> None:
    (photos / "photos/cats").rename(photos / "photos/trip [2023]")
    assert names("photos/trip [2023]/*.png") == [["b"]]
    assert names("photos/trip [2023]/**/*.png") == [["b"], ["old/c"]]
    assert names("photos/[dt]*/*.png") == [["dogs/b"], ["trip [2023]/b"]]
    assert names(f"{photos}/photos/trip [2023]/o*/") == [["old/c"]]
