"""What a record keeps: of which pictures, past killed runs, and past runs that were asked for less."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from saliency_r1.cot import Expression
from saliency_r1.prediction.formats import COCO, LINES
from saliency_r1.prediction.predictor import Answer, PredictError
from saliency_r1.prediction.record import Record
from saliency_r1.prediction.run import alone
from saliency_r1.prediction.work import Picture, Prompt
from saliency_r1.prediction.written import JOURNAL, RESPONSE, written


def answer(count: int = 1, text: str = "a cat") -> Answer:
    maps = tuple(np.ones((4, 5), np.float32) for _ in range(count))
    return Answer(text, "", (Expression("rg", 0, text),), (), maps, (), tuple((4, 5) for _ in range(count)))


def prompt(*names: str, folder: Path | str = "photos") -> Prompt:
    return tuple(Picture(Path(folder, f"{name}.jpg"), name) for name in names)


def kept(out: Path) -> list[str]:
    return [entry["response"] for entry in Record(out, "sod", "m", keep=True).entries.values()]


def test_a_picture_is_known_by_its_place_and_not_by_its_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("spain", "italy"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "spain")
    record = Record(Path("../out"), "cosod", "m")
    record.out.mkdir()
    record.add(answer(2), prompt("cat", "dog", folder="."))
    record.finish()

    monkeypatch.chdir(tmp_path / "italy")
    again = Record(Path("../out"), "cosod", "m", keep=True)
    for names in (("cat", "dog"), ("dog",)):
        with pytest.raises(PredictError, match=r"another picture that is called .*/spain/.*another folder \(--out\)"):
            again.has(prompt(*names, folder="."))
    assert not again.has(prompt("bird", folder="."))

    monkeypatch.chdir(tmp_path)
    Path("linked").symlink_to("spain")
    for folder in ("spain", tmp_path / "spain", "linked"):
        assert Record(Path("out"), "cosod", "m", keep=True).has(prompt("cat", "dog", folder=folder))


def test_answers_without_regions_are_passed_over_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Record(tmp_path, "sod", "m")
    for name in ("a", "b"):
        first.add(answer(), prompt(name))
    first.finish()
    second = Record(tmp_path, "sod", "m", ("coco", "jsonl"), keep=True)
    second.add(answer(), prompt("a"))
    second.finish()
    assert "not in coco.json and answers.jsonl: b, answered by an earlier run" in capsys.readouterr().err
    assert [one["file_name"] for one in json.loads((tmp_path / COCO).read_text())["images"]] == ["a.jpg"]
    assert len((tmp_path / LINES).read_text().splitlines()) == 1
    assert kept(tmp_path) == ["a cat"] * 2


@pytest.mark.parametrize("killed", [False, True])
def test_of_a_group_that_has_grown_the_later_answer_counts(tmp_path: Path, killed: bool) -> None:
    together = ("coco", "jsonl")
    first = Record(tmp_path, "cosod", "m", together)
    first.add(answer(3), prompt("g/1", "g/2", "g/3"))
    first.add(answer(2), prompt("g/4", "g/5"))
    first.finish()
    second = Record(tmp_path, "cosod", "m", together, keep=True)
    second.add(answer(3), prompt("g/4", "g/5", "g/6"))
    if killed:
        second = Record(tmp_path, "cosod", "m", together, keep=True)
    second.finish()
    images = json.loads((tmp_path / COCO).read_text())["images"]
    assert [one["file_name"] for one in images] == [f"g/{number}.jpg" for number in range(1, 7)]
    assert len((tmp_path / LINES).read_text().splitlines()) == 6


def test_line_ends_that_are_none_in_json_lose_no_answer(tmp_path: Path) -> None:
    said = ["one\u2028two", "one\x85two", "one\ntwo"]
    record = Record(tmp_path, "sod", "m")
    for number, text in enumerate(said):
        record.add(answer(text=text), prompt(str(number)))
    assert kept(tmp_path) == said


def test_a_run_may_be_killed_in_a_letter_and_again(tmp_path: Path) -> None:
    record = Record(tmp_path, "sod", "m")
    record.add(answer(text="猫"), prompt("a"))
    line = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(line + line[: line.index("猫".encode()) + 1])
    assert kept(tmp_path) == ["猫"]

    again = Record(tmp_path, "sod", "m", keep=True)
    again.add(answer(text="first"), prompt("b"))
    again.add(answer(text="second"), prompt("c"))
    assert kept(tmp_path) == ["猫", "first", "second"]


def test_a_line_that_lacks_nothing_but_its_end_counts(tmp_path: Path) -> None:
    Record(tmp_path, "sod", "m").add(answer(), prompt("a"))
    (tmp_path / JOURNAL).write_bytes((tmp_path / JOURNAL).read_bytes().rstrip(b"\n"))
    Record(tmp_path, "sod", "m", keep=True).add(answer(text="a dog"), prompt("b"))
    assert kept(tmp_path) == ["a cat", "a dog"]


def test_a_picture_in_coco_is_called_as_its_file_is(tmp_path: Path) -> None:
    """macOS writes accents apart: a name of composed letters would open no file."""
    apart = unicodedata.normalize("NFD", "café")
    record = Record(tmp_path, "sod", "m", ("coco",))
    record.add(answer(), (Picture(Path("photos", apart, f"{apart}.jpg"), "café/café"),))
    record.finish()
    (image,) = json.loads((tmp_path / COCO).read_text())["images"]
    assert image["file_name"] == f"{apart}/{apart}.jpg"


def test_two_runs_do_not_write_into_one_folder_at_once(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(PredictError, match=r"another run is writing into .*--out"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("saliency_r1.prediction.run.FileLock.acquire", refuse)
    with monkeypatch.context() as closed:
        closed.setattr("saliency_r1.prediction.run.os.access", lambda *_: False)
        with pytest.raises(PredictError, match=r"nothing can be written into .*--out"), alone(tmp_path):
            pytest.fail("models would be loaded here")


def test_a_file_system_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("saliency_r1.prediction.run.FileLock.acquire", refuse)
    with alone(tmp_path):
        (tmp_path / "written").touch()


def test_a_run_that_begins_anew_and_is_killed_is_gone_on_with(tmp_path: Path) -> None:
    """What the earlier record says is of files that are being replaced."""
    first = Record(tmp_path, "sod", "m")
    for name in ("a", "b"):
        first.add(answer(), prompt(name))
    first.finish()
    killed = Record(tmp_path, "sis", "m", ("map",))
    killed.begin(prompt("a"))
    killed.add(answer(text="a dog"), prompt("a"))
    assert not (tmp_path / RESPONSE).exists()
    again = Record(tmp_path, "sis", "m", ("map",), keep=True)
    assert again.has(prompt("a"))
    assert not again.has(prompt("b"))


def test_files_of_an_earlier_run_are_known_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(name: str, *asked: str, keep: bool = False, killed: bool = False) -> str:
        record = Record(tmp_path, "sod", "m", asked, keep)
        record.begin(prompt(name))
        for one in asked:
            (tmp_path / f"{one}s").mkdir(exist_ok=True)
            (tmp_path / f"{one}s/{name}.png").touch()
        record.add(answer(), prompt(name))
        if not killed:
            record.finish()
        return capsys.readouterr().err

    assert run("a", "map", "mask") == ""
    assert run("b", "map", keep=True) == ""
    assert written(tmp_path).files == {RESPONSE, "maps/a.png", "masks/a.png", "maps/b.png"}
    run("b", "map", killed=True)
    assert written(tmp_path).left == {RESPONSE, "maps/a.png", "masks/a.png"}
    told = f"maps/a.png and 1 more in {tmp_path}: of an earlier run, whose answers response.json no longer holds"
    assert run("b", "map").strip() == told
    known = written(tmp_path)
    assert (known.files, known.left) == ({RESPONSE, "maps/b.png"}, {"maps/a.png", "masks/a.png"})
    (tmp_path / "masks/a.png").unlink()
    assert "and" not in run("a", "map")
    assert written(tmp_path).left == {"maps/b.png"}
