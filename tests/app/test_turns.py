"""What the page does, without Gradio: with a policy that speaks by rote and a segmenter that draws boxes."""

import contextlib
import io
import json
import os
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from app.stand_in import EVIL, SAID, Segmenter, models
from PIL import Image

from saliency_r1.app import uploads as limits
from saliency_r1.app.archive import write_archive
from saliency_r1.app.page import Page
from saliency_r1.app.uploads import Upload, read_uploads
from saliency_r1.app.view import COLOURS, complain, show, style
from saliency_r1.prediction.predictor import PredictError
from saliency_r1.segmenter import Segment

SIZE = (32, 24)  # width, height


def upload(name: str = "cat", size: tuple[int, int] = SIZE) -> Upload:
    return Upload(name, Image.new("RGB", size, "red"))


def stored(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", SIZE, "red").save(path)
    return paths


def test_every_expression_keeps_its_own_mask_and_the_map_unites_them() -> None:
    turn = models().ask("plain", [upload()], "sod")
    assert turn.phrases == ["top", "bottom"]
    assert [np.flatnonzero(one.mask.any(axis=1)).tolist() for one in turn.segments] == [
        list(range(12)),
        list(range(12, 24)),
    ]
    assert turn.answer.maps[0].min() > 0.99


def test_a_reworded_expression_is_segmented_again_and_the_reasoning_stays() -> None:
    asked = models()
    turn = asked.ask("plain", [upload()], "sod")
    again = asked.reword(turn, ["  the left   side ", "", "nothing"])
    assert again.phrases == ["the left side", "nothing"]
    assert again.edited
    assert not turn.edited
    assert again.answer.reasoning == turn.answer.reasoning
    assert (again.answer.maps[0] > 0.5)[:, :16].all()
    assert not (again.answer.maps[0] > 0.5)[:, 16:].any()


def test_an_answer_that_does_not_parse_can_be_worded_by_hand() -> None:
    asked = models()
    turn = asked.ask("base", [upload()], "sod")
    assert turn.answer.errors
    assert not (turn.answer.maps[0] > 0.5).any()
    again = asked.reword(turn, ["top"])
    assert not again.answer.errors
    assert (again.answer.maps[0] > 0.5).sum() == 12 * 32


def test_no_expression_left_is_an_answer_too() -> None:
    asked = models()
    again = asked.reword(asked.ask("ins", [upload()], "sis"), [""])
    assert again.phrases == []
    assert not again.answer.errors
    assert not again.answer.ids.any()
    assert "Nothing stands out." in show(again)


def test_a_group_has_one_line_a_picture_and_an_empty_one_where_nothing_is_shared() -> None:
    asked = models()
    group = [upload("a"), upload("b", (48, 24))]
    turn = asked.ask("half", group, "cosod")
    assert turn.phrases == ["top", ""]
    assert not (turn.answer.maps[1] > 0.5).any()
    again = asked.reword(turn, ["", "bottom"])
    assert again.phrases == ["", "bottom"]
    assert [item.image for item in again.answer.expressions] == [1]
    assert (again.answer.maps[1] > 0.5).sum() == 12 * 48
    with pytest.raises(PredictError, match="2 pictures, 1 lines"):
        asked.reword(turn, ["top"])


@pytest.mark.parametrize(
    ("phrases", "words"),
    [(["a </rg><rg> b"], "holds no < or >"), (["x" * 301], "at most 300 letters"), (["x"] * 41, "at most 40")],
)
def test_what_no_tag_can_hold_is_refused(phrases: list[str], words: str) -> None:
    asked = models()
    with pytest.raises(PredictError, match=words):
        asked.reword(asked.ask("plain", [upload()], "sod"), phrases)


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PredictError, match="unknown model 'x', expected one of plain, ins, half, base"):
        models().ask("x", [upload()], "sod")


def test_whatever_is_shown_is_escaped() -> None:
    page = show(models().ask("plain", [upload(EVIL)], "sod"))
    assert "<img" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") == 3  # reasoning, label and caption of the picture
    assert "&amp; more" in page
    assert "<script" not in complain("<script>alert(1)</script>")
    assert "I see nothing of note." in show(models().ask("base", [upload()], "sod"))


def test_every_expression_has_its_colour_and_its_mask() -> None:
    page = show(models().ask("plain", [upload()], "sod"))
    for index in range(2):
        assert f'class="said e{index}" tabindex="0" style="--c: {COLOURS[index]}"' in page
        assert f'class="mask m{index}" style="--c: {COLOURS[index]}"' in page
    assert ".sr1:has(.e39:hover, .e39:focus) .mask:not(.m39)" in style()


def test_the_masks_of_an_answer_come_as_files(tmp_path: Path) -> None:
    turn = models().ask("ins", [upload()], "sis")
    with zipfile.ZipFile(write_archive(turn, tmp_path / "masks.zip")) as archive:
        assert sorted(archive.namelist()) == [
            "expressions/cat-1.png", "expressions/cat-2.png", "maps/cat.png", "response.json",
        ]  # fmt: skip
        ids = np.asarray(Image.open(io.BytesIO(archive.read("maps/cat.png"))))
        second = np.asarray(Image.open(io.BytesIO(archive.read("expressions/cat-2.png"))))
        said = json.loads(archive.read("response.json"))
    assert np.unique(ids[:12]).tolist() == [1], "the surer one lies on top"
    assert np.unique(ids[12:]).tolist() == [2]
    assert second.min() == 255
    assert said["expressions"][1] == {"image": "cat", "text": "all", "score": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["masks.zip"]


def test_a_map_in_the_archive_has_256_levels(tmp_path: Path) -> None:
    turn = models().ask("plain", [upload()], "sod")
    with zipfile.ZipFile(write_archive(turn, tmp_path / "masks.zip")) as archive:
        values = np.asarray(Image.open(io.BytesIO(archive.read("maps/cat.png"))))
    assert values.dtype == np.uint8
    assert np.unique(values).tolist() == [255]


def test_pictures_of_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    files = stored(tmp_path, "1/cat.png", "2/cat.png", "3/cat.png")
    assert [one.name for one in read_uploads(files, "cosod", 3)] == ["cat", "cat-2", "cat-3"]


def test_limits_of_number_bytes_and_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = stored(tmp_path, "a.png", "b.png")
    with pytest.raises(PredictError, match="drop one"):
        read_uploads([], "sod", 3)
    with pytest.raises(PredictError, match="sod takes one picture at a time, here are 2"):
        read_uploads(files, "sod", 3)
    with pytest.raises(PredictError, match="at most 1 pictures"):
        read_uploads(files, "cosod", 1)
    with pytest.raises(PredictError, match="unknown task"):
        read_uploads(files, "depth", 1)
    monkeypatch.setattr(limits, "MOST_PIXELS", 32 * 24 - 1)
    with pytest.raises(PredictError, match=r"a\.png has .* million pixels"):
        read_uploads(files[:1], "sod", 1)
    monkeypatch.setattr(limits, "MOST_BYTES", 10)
    with pytest.raises(PredictError, match=r"a\.png has .* MB"):
        read_uploads(files[:1], "sod", 1)


def test_what_is_no_picture_is_refused_by_the_name_that_was_dropped(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no picture")
    with pytest.raises(PredictError) as error:
        read_uploads([tmp_path / "notes.jpg"], "sod", 1)
    assert str(error.value).startswith("notes.jpg is not a readable image")
    assert str(tmp_path) not in str(error.value)


def test_what_is_no_number_is_said_of_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    nan = Segment(np.full(SIZE[::-1], np.nan, np.float32), 0.5)
    monkeypatch.setattr(Segmenter, "_draw", lambda *_: nan)
    with pytest.raises(PredictError, match="cat: the segmenter gives NaN or infinity"):
        models().ask("plain", [upload()], "sod")


def test_the_archive_of_a_picture_with_a_long_name_is_a_file(tmp_path: Path) -> None:
    uploaded = stored(tmp_path, f"{'ä' * 120}.png")
    asked = models()
    asked.speakers["m" * 200] = asked.speakers["plain"]
    shown = Page(asked, 3, tmp_path).ask(uploaded, "sod", "m" * 200, "nobody")
    assert Path(shown[5]["value"]).is_file()


def test_an_answer_that_does_not_parse_is_asked_for_again_as_predict_does(tmp_path: Path) -> None:
    said = iter(["I see nothing of note.", "Nor now.", SAID["plain"]])
    asked = models()
    policy = SimpleNamespace(
        prompt=lambda images, instruction: instruction,
        generate=lambda prompts, most, *sampled: [SimpleNamespace(text=next(said)) for _ in prompts],
    )
    asked.speakers["base"] = asked.speakers["base"]._replace(
        policies=SimpleNamespace(using=lambda _: contextlib.nullcontext(policy))  # type: ignore[arg-type]
    )
    turn = asked.ask("base", [upload()], "sod")
    assert (turn.phrases, turn.answer.attempts) == (["top", "bottom"], 3)
    assert "asked 3 times" in show(turn)
    with zipfile.ZipFile(write_archive(turn, tmp_path / "masks.zip")) as archive:
        assert json.loads(archive.read("response.json"))["attempts"] == 3
    assert "times" not in show(asked.reword(turn, ["top"]))


def test_an_empty_line_at_the_end_is_no_line_of_a_group(tmp_path: Path) -> None:
    asked = models()
    page = Page(asked, 3, tmp_path)
    turn = asked.ask("half", [upload("a"), upload("b")], "cosod")
    assert page.reword(turn, "top\nbottom\n \n")[1].phrases == ["top", "bottom"]
    assert page.reword(turn, "top")[1].phrases == ["top", ""]
    assert "2 pictures, 3 lines" in page.reword(turn, "top\nbottom\nall")[2]


def test_archives_are_kept_for_an_hour(tmp_path: Path) -> None:
    page = Page(models(), 3, tmp_path)
    files = stored(tmp_path, "cat.png")
    old, young = (Path(page.ask(files, "sod", "plain", "nobody")[5]["value"]) for _ in range(2))
    os.utime(old.parent, (time.time() - 3700,) * 2)
    page.ask(files, "sod", "plain", "nobody")
    assert not old.parent.exists()
    assert young.is_file()
    assert Path(files[0]).is_file()
