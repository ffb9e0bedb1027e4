"""The download stage as a whole: what it makes of good data."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from saliency_r1.annotation.agreement import subject_of
from saliency_r1.data import earlier
from saliency_r1.data.errors import DataError
from saliency_r1.data.samples import read_images
from saliency_r1.data.table import SCHEMA, read_samples
from saliency_r1.runtime.keys import run_key
from saliency_r1.training.checkpoints import inputs

from .toys import Project, contents, mask, pairs, picture


def test_pairs_become_samples(project: Project, tmp_path: Path) -> None:
    source = pairs(tmp_path / "source", 3)
    objects = [{"id": 1, "colour": "red", "name": "car", "salient": True}]
    (source / "attributes.json").write_text(json.dumps({"0001": objects}))
    project.add("toy", source, "train", count=3, licence="CC0")
    table = project.run()

    assert dict(table.schema) == SCHEMA
    assert table.equals(read_samples(project.out))
    row = table.row(1, named=True)
    assert row["sample_id"] == "toy/train/0001"
    assert (row["task"], row["dataset"], row["split"], row["group"]) == ("sod", "toy", "train", None)
    assert row["names"] == ["0001"]
    assert (row["height"], row["width"]) == ([30], [40])
    assert json.loads(row["meta"]) == {"objects": [objects]}
    assert json.loads(table.row(0, named=True)["meta"]) == {"objects": [[]]}
    values = np.asarray(Image.open(project.out / row["masks"][0]))
    assert values.dtype == np.uint8
    assert set(np.unique(values)) == {0, 255}
    assert Image.open(project.out / row["images"][0]).size == (40, 30)
    assert (project.out / "models/policy/config.json").is_file()
    assert project.report()["imports"]["toy/train"]["licence"] == "CC0"
    assert not [path for path in project.out.rglob("*") if path.name.startswith(".")]


def test_attributes_by_the_names_of_files(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pairs(tmp_path / "source", 2)
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        (source / folder / f"0001.{suffix}").rename(source / folder / f"Kite.{suffix}")
    (source / "attributes.json").write_text(json.dumps({"kite.JPG": [{"id": 1, "name": "kite"}], "other": []}))
    project.add("toy", source)
    meta = dict(project.run().select("sample_id", "meta").rows())
    assert json.loads(meta["toy/test/Kite"]) == {"objects": [[{"id": 1, "name": "kite"}]]}
    assert "toy/test: 1 of 2 images are not in attributes.json" in capsys.readouterr().out


def test_attributes_of_groups_whose_names_differ_in_case(project: Project, tmp_path: Path) -> None:
    for folder, made, suffix in (("image", picture(1), "jpg"), ("gt", mask(), "png")):
        for group in ("dog", "Dog"):
            (tmp_path / "own" / folder / group).mkdir(parents=True)
            made.save(tmp_path / "own" / folder / group / f"a.{suffix}")
    words = {"Dog/a": [{"name": "hound"}], "dog/A.jpg": [{"name": "poodle"}], "DOG/a": [{"name": "neither"}]}
    (tmp_path / "own/attributes.json").write_text(json.dumps(words))
    project.add("own", tmp_path / "own", task="cosod", layout="groups")
    rows = {row["group"]: json.loads(row["meta"]) for row in project.run().iter_rows(named=True)}
    assert rows["Dog"]["objects"][0][0]["name"] == "hound"
    words["dog/a"] = words.pop("dog/A.jpg")
    (tmp_path / "own/attributes.json").write_text(json.dumps(words))
    project.add("own", tmp_path / "own")
    rows = {row["group"]: json.loads(row["meta"]) for row in project.run().iter_rows(named=True)}
    assert [rows[group]["objects"][0][0]["name"] for group in ("Dog", "dog")] == ["hound", "poodle"]


def test_attributes_in_an_outer_folder_are_found(project: Project, tmp_path: Path) -> None:
    pairs(tmp_path / "source/holiday", 1)
    told = {"0000": [{"id": 1, "phrase": "the red kayak"}]}
    (tmp_path / "source/holiday/attributes.json").write_text(json.dumps(told))
    project.add("toy", tmp_path / "source")
    (row,) = project.run().to_dicts()
    assert json.loads(row["meta"]) == {"objects": [told["0000"]]}


def test_categories_stay_for_images_that_the_attributes_leave_out(project: Project, tmp_path: Path) -> None:
    source = pairs(tmp_path / "source", 2)
    images = [{"id": n, "file_name": f"{n:04d}.jpg", "height": 30, "width": 40} for n in range(2)]
    outline = [[5, 5, 20, 5, 20, 20]]
    marks = [{"id": n, "image_id": n, "category_id": 3, "segmentation": outline} for n in range(2)]
    kinds = [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}]
    (source / "truth.json").write_text(json.dumps({"images": images, "annotations": marks, "categories": kinds}))
    (source / "attributes.json").write_text(json.dumps({"0001": [{"id": 1, "phrase": "the kitten"}]}))
    project.add("toy", source, task="sis", layout="coco", annotations="truth.json")
    objects = [json.loads(meta)["objects"] for meta in project.run()["meta"]]
    assert objects == [[[{"id": 1, "name": "cat"}]], [[{"id": 1, "phrase": "the kitten"}]]]


def test_attributes_without_ids_are_numbered(project: Project, tmp_path: Path) -> None:
    source = pairs(tmp_path / "source", 1)
    told = [{"name": "kite"}, {"id": 7, "name": "tree", "salient": False}]
    (source / "attributes.json").write_text(json.dumps({"0000": told}))
    project.add("toy", source)
    (row,) = project.run().to_dicts()
    assert [one["id"] for one in json.loads(row["meta"])["objects"][0]] == [1, 7]
    subject = subject_of(row, project.out, read_images(row, project.out))
    assert [item["name"] for item in subject.objects[0]] == ["kite"]


def test_groups_are_cut_into_even_chunks(project: Project, tmp_path: Path) -> None:
    for group, count in (("cat", 4), ("dog", 2)):
        for number in range(count):
            for side, image in (("image", picture(number + 10 * count)), ("gt", mask())):
                path = tmp_path / "groups" / side / group / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    attributes = {f"cat/{number}": [{"id": 1, "number": number}] for number in range(4)}
    (tmp_path / "groups/attributes.json").write_text(json.dumps(attributes))
    project.add("together", tmp_path / "groups", task="cosod", count=6)
    table = project.run()
    assert table["sample_id"].to_list() == [f"together/test/{name}" for name in ("cat-01", "cat-02", "dog-01")]
    assert table["group"].to_list() == ["cat", "cat", "dog"]
    assert table["names"].to_list() == [["cat/0", "cat/1"], ["cat/2", "cat/3"], ["dog/0", "dog/1"]]
    assert json.loads(table["meta"][1]) == {"objects": [[{"id": 1, "number": 2}], [{"id": 1, "number": 3}]]}


def test_coco_becomes_id_maps(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "coco"
    (folder / "images").mkdir(parents=True)
    picture(1).save(folder / "images/a.jpg")
    picture(2).save(folder / "images/b.jpg")
    box = {"iscrowd": 0, "image_id": 7}
    content = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "height": 30, "width": 40},
            {"id": 8, "file_name": "b.jpg", "height": 30, "width": 40},
        ],
        "annotations": [
            box | {"id": 99, "segmentation": [[20, 20, 30, 20, 30, 28, 20, 28]]},
            box | {"id": 12, "segmentation": [[2, 2, 10, 2, 10, 10, 2, 10]]},
            box | {"id": 50, "segmentation": [[12, 2, 18, 2, 18, 8, 12, 8]], "salient": False},
        ],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    (folder / "attributes.json").write_text(json.dumps({"a": [{"id": 1}, {"id": 2, "salient": False}, {"id": 3}]}))
    project.add("things", folder, task="sis", layout="coco", annotations="instances.json", count=2)
    table = project.run()
    ids = np.asarray(Image.open(project.out / table["masks"][0][0]))
    assert ids.dtype == np.uint16
    assert set(np.unique(ids)) == {0, 1, 3}
    assert ids[5, 5] == 1
    assert ids[24, 25] == 3
    assert project.report()["imports"]["things/test"]["empty"] == ["b"]


def test_a_second_run_imports_only_what_changed(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project.add("one", pairs(tmp_path / "one", 3, seed=10))
    project.add("two", pairs(tmp_path / "two", 3, seed=20))
    first = project.run()
    picture(99).save(tmp_path / "two/images/0003.jpg")
    mask().save(tmp_path / "two/masks/0003.png")
    project.add("two", tmp_path / "two")
    capsys.readouterr()
    second = project.run()
    printed = capsys.readouterr().out
    assert "one/test: 3 images, unchanged" in printed
    assert "two/test: 3 images, unchanged" not in printed
    assert second.head(3).equals(first.head(3))
    assert len(second) == 7
    assert project.run().equals(second)
    for path in (*second["images"].explode(), *second["masks"].explode()):
        assert (project.out / path).is_file()


def test_what_was_touched_is_imported_again(project: Project, tmp_path: Path) -> None:
    project.add("one", pairs(tmp_path / "one", 3))
    path = project.out / project.run()["masks"][1][0]
    before = path.read_bytes()
    for spoil in (path.unlink, lambda: replace(path, b"scribble"), lambda: replace(project.out / "report.json", b"{")):
        spoil()
        project.run()
        assert path.read_bytes() == before


def test_what_changed_under_the_same_size_and_time_is_imported_again(project: Project, tmp_path: Path) -> None:
    folder = pairs(tmp_path / "own", 2)
    project.datasets["own"] = {"folder": str(folder)}
    path = folder / "masks/0000.png"
    mask().save(path, compress_level=0)
    project.run()
    before = path.stat()
    Image.fromarray(np.asarray(mask())[::-1]).save(path, compress_level=0)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    project.run()
    assert (project.out / "datasets/own/test/masks/0000.png").read_bytes() == path.read_bytes()


def replace(path: Path, content: bytes) -> None:
    """Give a name new content, and leave the old content to its other names."""
    path.unlink()
    path.write_bytes(content)


def test_two_runs_write_the_same_bytes(project: Project, tmp_path: Path) -> None:
    project.add("one", pairs(tmp_path / "one"))
    project.run()
    first = {path.name: path.read_bytes() for path in project.out.glob("*.*")}
    project.run()
    assert {path.name: path.read_bytes() for path in project.out.glob("*.*")} == first


def test_a_limit_spreads_over_the_split_and_keeps_no_other_image(project: Project, tmp_path: Path) -> None:
    project.add("one", pairs(tmp_path / "one", 5))
    for limit, names in ((3, ["0000", "0002", "0004"]), (None, ["0000", "0001", "0002", "0003", "0004"])):
        assert project.run(limit=limit)["names"].explode().to_list() == names
        for kind in ("images", "masks"):
            assert sorted(path.stem for path in (project.out / "datasets/one/test" / kind).iterdir()) == names


def test_a_folder_becomes_a_data_set_by_two_lines(project: Project, tmp_path: Path) -> None:
    pairs(project.root / "photographs", 2)
    project.datasets["mine"] = {"folder": "../photographs"}
    table = project.run()
    assert table["sample_id"].to_list() == ["mine/test/0000", "mine/test/0001"]
    stored = project.out / table["images"][0][0]
    assert stored.stat().st_nlink == 1, "somebody's own files are copied, never shared"


def test_single_splits_can_be_chosen(project: Project, tmp_path: Path) -> None:
    for seed, split in ((0, "train"), (50, "test")):
        project.add("toy", pairs(tmp_path / split, 2, seed), split)
    assert project.run(["toy/test"])["split"].unique().to_list() == ["test"]
    assert project.run(["toy"])["split"].unique().sort().to_list() == ["test", "train"]
    with pytest.raises(DataError, match=r"toy has the splits"):
        project.run(["toy/val"])
    with pytest.raises(DataError, match="no data set 'tyo'; it has: toy"):
        project.run(["tyo"])


def test_a_base_model_outside_of_the_project_is_copied(project: Project, tmp_path: Path) -> None:
    project.add("own", pairs(tmp_path / "own", 1))
    for folder in (tmp_path / "mine", project.root / "mine"):
        (folder / "parts").mkdir(parents=True)
        (folder / "parts/config.json").write_text("{}")
    project.run(policy=str(tmp_path / "mine"), segmenter="mine")
    (tmp_path / "mine/parts/config.json").write_text("changed")
    assert (project.out / "models/policy/parts/config.json").read_text() == "{}"
    assert (project.out / "models/segmenter/parts/config.json").samefile(project.root / "mine/parts/config.json")


def test_a_model_that_is_nowhere(project: Project, tmp_path: Path) -> None:
    project.add("one", pairs(tmp_path / "one"))
    with pytest.raises(DataError, match=r"download.policy = 'models/polizei/x': no such folder"):
        project.run(policy="models/polizei/x")
    assert not project.out.exists()


def test_the_mirror_comes_before_the_network(project: Project, tmp_path: Path) -> None:
    archive = project.add("toy", pairs(tmp_path / "source"))
    mirror = tmp_path / "disk"
    mirror.mkdir()
    archive.rename(mirror / archive.name)
    assert len(project.run(mirror=str(mirror))) == 4
    with pytest.raises(DataError, match=r"download.mirror = '/nowhere'"):
        project.run(mirror="/nowhere")


def test_an_unpacked_mirror_is_read_in_place(project: Project, tmp_path: Path) -> None:
    project.add("toy", pairs(tmp_path / "source")).unlink()
    pairs(tmp_path / "disk/toy/some/folders")
    assert len(project.run(mirror=str(tmp_path / "disk"))) == 4


def test_empty_masks_are_counted_or_dropped(project: Project, tmp_path: Path) -> None:
    source = pairs(tmp_path / "source", 3)
    mask(value=0).save(source / "masks/0001.png")
    project.add("kept", source, count=3)
    project.add("dropped", source, count=[3, 2], mask={"empty": "drop", "rule": "binary"})
    table = project.run()
    assert table["dataset"].value_counts(sort=True).rows() == [("kept", 3), ("dropped", 2)]
    report = project.report()["imports"]
    assert report["kept/test"]["empty"] == ["0001"]
    assert report["dropped/test"]["dropped_as_empty"] == ["0001"]
    assert isinstance(table, pl.DataFrame)


def fresh(project: Project, **settings: object) -> dict[str, bytes]:
    """What a run leaves that finds nothing."""
    shutil.rmtree(project.out)
    shutil.rmtree(project.root / "runs")
    project.run(**settings)
    return contents(project.out)


def layouts(root: Path) -> dict[str, dict[str, Any]]:
    """A folder of each kind, and what the catalogue says about it."""
    pairs(root / "sod", 4, seed=10)
    for number in range(4):
        for side, image in (("image", picture(number)), ("gt", mask())):
            path = root / "cosod" / side / "cat" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    pairs(root / "sis", 4, seed=20)
    for path in (root / "sis/masks").iterdir():
        mask(value=1).save(path)
    pairs(root / "coco", 2, seed=30)
    shutil.rmtree(root / "coco/masks")
    corners = [2, 2, 10, 2, 10, 10, 2, 10]
    content = {
        "images": [{"id": n, "file_name": f"{n:04d}.jpg", "height": 30, "width": 40} for n in range(2)],
        "annotations": [{"id": n + 1, "image_id": n, "iscrowd": 0, "segmentation": [corners]} for n in range(2)],
    }
    (root / "coco/instances.json").write_text(json.dumps(content))
    return {
        "sod": {},
        "cosod": {"task": "cosod"},
        "sis": {"task": "sis", "layout": "id_map", "mask": {"rule": "ids"}},
        "coco": {"task": "sis", "layout": "coco", "mask": {"rule": "ids"}},
    }


def test_one_changed_pair_is_imported_and_the_others_are_linked(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, entry in layouts(tmp_path).items():
        extra = {"annotations": "instances.json"} if name == "coco" else {}
        split = {"folder": str(tmp_path / name)} | extra
        project.datasets[name] = entry | {"splits": {"test": split}}
    project.run()
    replace(tmp_path / "sod/images/0001.jpg", (tmp_path / "sod/images/0002.jpg").read_bytes())
    replace(tmp_path / "cosod/gt/cat/3.png", (tmp_path / "sod/masks/0000.png").read_bytes() + b"x")
    (tmp_path / "sis/images/0003.jpg").unlink()
    (tmp_path / "sis/masks/0003.png").unlink()
    told = tmp_path / "coco/instances.json"
    told.write_text(told.read_text().replace("10, 10", "12, 12", 1))
    capsys.readouterr()
    project.run()
    printed = capsys.readouterr().out
    for name, taken in (("sod", "3 of 4"), ("cosod", "3 of 4"), ("sis", "3 of 3"), ("coco", "1 of 2")):
        assert f"{name}/test: {taken} pairs unchanged" in printed
    second = contents(project.out)
    assert second == fresh(project)


def test_other_rules_attributes_and_excuses_count_for_pairs_that_did_not_change(
    project: Project, tmp_path: Path
) -> None:
    source = pairs(tmp_path / "one", 3)
    two = mask()
    two.paste(200, (30, 20, 35, 25))
    two.save(source / "masks/0001.png")
    project.datasets["one"] = {"folder": str(source), "mask": {"rule": "threshold", "threshold": 100}}
    project.run()
    first = contents(project.out)
    project.datasets["one"]["mask"]["threshold"] = 220
    project.run()
    second = contents(project.out)
    name = "datasets/one/test/masks/0001.png"
    assert second[name] != first[name]
    assert second == fresh(project)
    (source / "attributes.json").write_text(json.dumps({"0001": [{"id": 1, "name": "kite"}]}))
    assert "kite" in project.run()["meta"][1]
    (source / "images/0002.jpg").write_bytes(b"no picture")
    assert len(project.run(allow_missing=["one/test/0002"])) == 2
    with pytest.raises(DataError, match="0002"):
        project.run()


def test_what_other_code_has_imported_is_imported_again(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.add("one", pairs(tmp_path / "one", 3))
    project.run()
    before = contents(project.out)
    monkeypatch.setattr(earlier, "_code", lambda: "another")
    capsys.readouterr()
    project.run()
    assert "unchanged" not in capsys.readouterr().out
    assert contents(project.out) == before


def test_results_tell_of_content_and_not_of_times(project: Project, tmp_path: Path) -> None:
    project.datasets["one"] = {"folder": str(pairs(tmp_path / "one", 3))}
    project.run()
    before = contents(project.out)
    os.utime(tmp_path / "one/images/0001.jpg", (1, 1))
    project.run()
    assert contents(project.out) == before


def test_changed_images_under_an_identical_table_are_another_training(project: Project, tmp_path: Path) -> None:
    annotations, keys = tmp_path / "annotate", []
    annotations.mkdir()
    (annotations / "table.parquet").write_bytes(b"the same")
    source = pairs(tmp_path / "one", 2)
    for name in ("0000", "0001", "0001"):
        replace(source / "images/0000.jpg", (source / f"images/{name}.jpg").read_bytes())
        os.utime(source / "images/0000.jpg", (1e9, 1e9))  # which the archive holds, and its hash with it
        project.add("one", source)
        table = project.run()
        keys.append((run_key({}, inputs(project.out, annotations)), table.rows()))
    assert keys[0][1] == keys[1][1]
    assert keys[0][0] != keys[1][0]
    assert keys[1] == keys[2]
