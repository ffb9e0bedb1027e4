"""`saliency-r1 predict` on many pictures: past bad ones, in every format, from where an earlier run ended."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_predict import SIZE, Segmenter, command, listing, picture, predictor
from typer.testing import CliRunner

from saliency_r1.cli.app import app as whole_app
from saliency_r1.prediction.predictor import Answer, Failure, PredictError

__all__ = ["command"]  # a fixture


def test_a_bad_file_costs_the_others_nothing(command: Any) -> None:
    done = command("a.png", "text.png", "c.png", "b.png", "--out", "out", "--batch", "2")
    assert done.exit_code == 1
    assert "text.png is not a readable image" in done.output
    assert "2 of 4 have no result:\n  text.png\n  c.png" in done.output
    written = json.loads(Path("out/response.json").read_text())
    assert [entry["images"] for entry in written["answers"]] == [["a.png"], ["b.png"]]


def test_a_name_that_leaves_no_room_for_a_suffix_costs_the_others_nothing(command: Any, tmp_path: Path) -> None:
    long = "x" * 251
    picture().save(tmp_path / f"{long}.png")
    assert command(f"{long}.png", "--out", "short").exit_code == 0, "a name that a picture has, a map can have"
    for options in ((), ("--skip-existing",)):
        done = command(f"{long}.png", "a.png", "--out", "out", "--format", "map,labelme", *options)
        assert done.exit_code == 1
        assert "the name is too long for a file in out/labelme that ends in .json" in " ".join(done.output.split())
        assert listing(tmp_path / "out") == ["labelme/a.json", "maps/a.png", "response.json"]


def test_the_answer_to_another_picture_of_the_same_name_is_not_taken(command: Any) -> None:
    for land in ("spain", "italy"):
        Path(land).mkdir()
        picture().save(f"{land}/cat.png")
    assert command("spain", "--out", "out").exit_code == 0
    done = command("italy", "--out", "out", "--skip-existing")
    assert done.exit_code == 1
    assert "holds the answer to another picture that is called cat" in " ".join(done.output.split())
    assert command("italy", "--out", "out").exit_code == 0
    assert "1 of 1 are there" in command("italy/cat.png", "--out", "out", "--skip-existing").output


def test_sub_folders_are_mirrored_and_evaluated(command: Any, tmp_path: Path) -> None:
    for name in ("photos/x/1.png", "photos/y/1.png", "gt/x/1.png", "gt/y/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(name)
    for name in ("gt/x/1.png", "gt/y/1.png"):
        Image.new("L", SIZE[::-1], 255).save(name)
    assert command("photos", "--recursive", "--out", "out", "--format", "mask").exit_code == 0
    assert listing(tmp_path / "out") == ["masks/x/1.png", "masks/y/1.png", "response.json"]
    done = CliRunner().invoke(whole_app, ["evaluate", "--pred", "out", "--gt", "gt", "--bootstrap", "0"])
    assert done.exit_code == 0, done.output
    assert "2 images" in done.output


def test_a_folder_of_pictures_may_be_called_as_one_of_results(command: Any, tmp_path: Path) -> None:
    for name in ("photos/a.png", "photos/masks/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(name)
    for _ in range(2):
        assert command("photos", "--recursive", "--out", "photos", "--format", "mask").exit_code == 0
        written = json.loads(Path("photos/response.json").read_text())
        assert [entry["names"] for entry in written["answers"]] == [["a"], ["masks/c"]]
    done = command("photos/masks/masks", "--out", "photos")
    assert "photos/masks/masks holds results of an earlier run" in " ".join(done.output.split())


def test_a_result_without_a_place_is_told_before_a_model_is_loaded(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("photos/x.png", "photos/x.png.d/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(name)
    Path("photos/x.png").rename("photos/x.jpg")
    Path("photos/x.png.d").rename("photos/x.png")
    monkeypatch.setattr("saliency_r1.prediction.models.load", lambda _: pytest.fail("a model was loaded"))
    message = "out/maps/x.png would be the result of photos/x.jpg and the folder of those of photos/x.png/b.png"
    assert message in " ".join(command("photos", "--recursive", "--out", "out").output.split())
    assert not Path("out").exists()
    Path("out/maps/a.png").mkdir(parents=True)
    done = command("a.png", "--out", "out")
    assert done.exit_code == 1
    assert "out/maps/a.png is a folder, where a result is to be written" in " ".join(done.output.split())
    Path("out/overlays").touch()
    done = command("b.png", "--out", "out")
    assert "out/overlays is no folder, which the result of b.png needs" in " ".join(done.output.split())


def test_a_place_that_is_taken_meanwhile_costs_the_others_nothing(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saliency_r1.prediction.run.check_places", lambda *_: None)
    Path("out/maps/a.png").mkdir(parents=True)
    Path("out/maps/c").touch()
    Path("c").mkdir()
    picture().save("c/a.png")
    picture().save("b.png")
    done = command("a.png", "./*/a.png", "b.png", "--out", "out", "--format", "map")
    said = " ".join(done.output.split())
    assert done.exit_code == 1
    assert "a.png: out/maps/a.png is a folder" in said
    assert "c/a.png: out/maps/c is no folder" in said
    assert "2 of 3 have no result" in said
    assert Path("out/maps/b.png").is_file()


def test_of_large_pictures_fewer_are_answered_at_once(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    whole = Segmenter.encode
    monkeypatch.setattr(Segmenter, "encode", lambda self, images: sizes.append(len(images)) or whole(self, images))
    monkeypatch.setattr("saliency_r1.prediction.run.MOST_PIXELS", 2 * SIZE[0] * SIZE[1])
    for name in "defg":
        picture().save(f"{name}.png")
    done = command(*(f"{name}.png" for name in "abdefg"), "text.png", "--out", "out", "--batch", "3")
    assert sizes == [2, 2, 2]
    assert len(json.loads(Path("out/response.json").read_text())["answers"]) == 6
    assert "1 of 7 have no result:\n  text.png" in done.output


def test_every_format(command: Any, tmp_path: Path) -> None:
    asked = "map,mask,rgba,cutout,overlay,coco,labelme,jsonl"
    assert command("a.png", "--task", "sis", "--out", "out", "--format", asked, said="sis").exit_code == 0
    assert listing(tmp_path / "out") == [
        "answers.jsonl", "coco.json", "cutouts/a.png", "labelme/a.json", "maps/a.png", "masks/a.png", "overlays/a.png",
        "response.json", "rgba/a.png",
    ]  # fmt: skip
    assert np.array(Image.open("out/masks/a.png")).min() == 255
    assert np.array(Image.open("out/rgba/a.png"))[..., 3].min() == 255
    shapes = json.loads(Path("out/labelme/a.json").read_text())
    assert (tmp_path / "out/labelme" / shapes["imagePath"]).resolve() == tmp_path / "a.png"
    first = shapes["shapes"][0]
    assert first["points"] == [[0, 0], [31, 11]]
    assert np.array(Image.open(io.BytesIO(base64.b64decode(first["mask"])))).shape == (12, 32)
    (line,) = Path("out/answers.jsonl").read_text().splitlines()
    assert [region["text"] for region in json.loads(line)["regions"]] == ["top", "all"]


def test_a_cutout_is_the_box_of_what_stands_out(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_predict import SAID

    monkeypatch.setitem(SAID, "half", "<think>It is.</think><answer><rg>bottom</rg></answer>")
    assert command("a.png", "--out", "out", "--format", "cutout,rgba", said="half").exit_code == 0
    assert Image.open("out/cutouts/a.png").size == (32, 12)
    alpha = np.array(Image.open("out/rgba/a.png"))[..., 3]
    assert alpha[:12].max() < 5
    assert alpha[12:].min() > 250


def test_coco_is_read_by_pycocotools_and_scored_with_its_scores(command: Any, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    assert command("a.png", "b.png", "--task", "sis", "--out", "out", "--format", "coco", said="sis").exit_code == 0
    read = COCO("out/coco.json")
    assert [read.imgs[number]["file_name"] for number in read.getImgIds()] == ["a.png", "b.png"]
    assert read.annToMask(read.anns[1]).sum() == 12 * 32
    assert read.anns[2]["score"] == 0.5
    (tmp_path / "gt").mkdir()
    for name in ("a", "b"):
        truth = np.zeros(SIZE, np.uint8)
        truth[:12] = 1
        Image.fromarray(truth).save(tmp_path / "gt" / f"{name}.png")
    call = [
        "evaluate",
        "--pred",
        "out/coco.json",
        "--gt",
        "gt",
        "--task",
        "sis",
        "--bootstrap",
        "0",
        "--json",
        "n.json",
    ]
    done = CliRunner().invoke(whole_app, call)
    assert done.exit_code == 0, done.output
    (result,) = json.loads(Path("n.json").read_text())["results"]
    assert result["measures"]["AP"] == 1, "the right instance has the higher score; the ids alone would not say so"


@pytest.mark.parametrize("asked", ["map", "map,coco"])
def test_what_is_there_is_not_asked_again(command: Any, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    options = ("--out", "out", "--format", asked, "--skip-existing")
    assert command("a.png", *options).exit_code == 0
    seen: list[int] = []
    whole = Segmenter.encode
    monkeypatch.setattr(Segmenter, "encode", lambda self, images: seen.append(len(images)) or whole(self, images))
    done = command("a.png", "b.png", *options)
    assert done.exit_code == 0
    assert "1 of 2 are there" in done.output
    assert seen == [1]
    assert len(json.loads(Path("out/response.json").read_text())["answers"]) == 2
    if "coco" in asked:
        assert len(json.loads(Path("out/coco.json").read_text())["images"]) == 2
    Path("out/maps/a.png").unlink()
    command("a.png", "b.png", *options)
    assert seen == [1, 1], "a file that is gone is made again"


def test_a_picture_that_was_edited_is_asked_about_again(command: Any) -> None:
    options = ("a.png", "b.png", "--out", "out", "--skip-existing")
    assert command(*options).exit_code == 0
    picture(12, 20).save("a.png")
    assert "1 of 2 are there" in command(*options).output
    assert Image.open("out/maps/a.png").size == (20, 12)
    assert "2 of 2 are there" in command(*options).output
    record = Path("out/response.json")
    answers = json.loads(record.read_text())
    for entry in answers["answers"]:
        del entry["sha256"]  # as the last version wrote it
    record.write_text(json.dumps(answers))
    assert "2 of 2 are there" in command(*options).output


def test_a_model_is_known_by_its_weights_and_not_by_the_way_to_it(command: Any, tmp_path: Path) -> None:
    adapter = tmp_path / "artifacts/cgpo/adapter"
    (adapter / "adapter_model.safetensors").write_bytes(b"learnt")
    assert command("a.png", "--out", "out").exit_code == 0
    moved = adapter.rename(tmp_path / "moved")
    for place in (moved, "moved/"):
        done = command("a.png", "--out", "out", "--skip-existing", "--adapter", str(place))
        assert "1 of 1 are there" in done.output


def test_a_result_of_a_run_that_was_begun_anew_is_made_again(command: Any) -> None:
    """A map of SOD stays where SIS was asked for overlays alone, and is none of SIS."""
    assert command("a.png", "--out", "out", "--format", "map").exit_code == 0
    asked = ("a.png", "--out", "out", "--task", "sis", "--format")
    done = command(*asked, "overlay", said="sis")
    assert done.exit_code == 0
    assert "maps/a.png in out: of an earlier run" in " ".join(done.output.split())
    assert "0 of 1 are there" in command(*asked, "map,overlay", "--skip-existing", said="sis").output
    assert np.unique(np.array(Image.open("out/maps/a.png"))).tolist() == [1, 2]


def test_answers_of_another_task_are_not_mixed(command: Any) -> None:
    assert command("a.png", "--out", "out").exit_code == 0
    done = command("b.png", "--out", "out", "--task", "sis", "--skip-existing", said="sis")
    assert done.exit_code == 1
    assert "holds answers of" in done.output


def test_an_unknown_format_is_refused_with_the_known_ones(command: Any) -> None:
    done = command("a.png", "--format", "map,gif")
    assert done.exit_code == 1
    assert "unknown format 'gif', expected some of map, mask, rgba" in done.output


def test_without_params_yaml(command: Any) -> None:
    Path("params.yaml").unlink()
    assert command("a.png", "--out", "out").exit_code == 0


def test_a_champion_is_asked_for_before_there_is_one(command: Any) -> None:
    done = command("a.png", "--model", "champion")
    assert done.exit_code == 1
    assert "there is no champion" in done.output


def test_many_prompts_at_once_and_the_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches, in order; what the models cannot take is found out one by one."""
    asked = predictor("sod")
    sizes: list[int] = []
    generate = asked.policy.generate

    def fragile(prompts: list[Any], tokens: int, *sampled: Any) -> Any:
        sizes.append(len(prompts))
        if "bad" in prompts:
            raise RuntimeError("out of memory")
        return generate(prompts, tokens)

    monkeypatch.setattr(asked.policy, "generate", fragile)
    marked = lambda images, instruction: "bad" if images[0].size[0] == 99 else instruction  # noqa: E731
    monkeypatch.setattr(asked.policy, "prompt", marked)
    prompts = [[picture()], [picture(24, 99)], [picture()], [], [picture()]]
    outcomes = list(asked.predict_many(prompts, "sod", batch=3))
    assert [type(one) for one in outcomes] == [Answer, Failure, Answer, Failure, Answer]
    assert sizes == [3, 1, 1, 1, 1]
    assert isinstance(outcomes[1], Failure)
    assert str(outcomes[1].error) == "out of memory"
    with pytest.raises(PredictError, match="unknown task"):
        asked.predict_many(prompts, "depth")


@pytest.mark.parametrize("folder", ["artifacts/cgpo/adapter", "artifacts/download/models/segmenter"])
@pytest.mark.parametrize("size", [100, 40_000_000])
def test_other_weights_in_the_same_folder_are_another_model(command: Any, folder: str, size: int) -> None:
    weights = Path(folder, "model.safetensors")
    weights.write_bytes(bytes(size))
    assert command("a.png", "--out", "out").exit_code == 0
    assert "1 of 1 are there" in command("a.png", "--out", "out", "--skip-existing").output
    weights.write_bytes(bytes(size // 2) + b"trained" * 3000 + bytes(size // 2 - 21000 if size > 100 else 9))
    done = command("a.png", "b.png", "--out", "out", "--skip-existing")
    assert done.exit_code == 1
    assert "holds answers of artifacts/download/models/policy + artifacts/cgpo/adapter (" in done.output
