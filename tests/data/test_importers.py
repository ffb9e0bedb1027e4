"""Layouts and the reading of pictures and masks, on data made on the fly."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from saliency_r1.data.catalogue import MaskRule, Split
from saliency_r1.data.errors import DataError
from saliency_r1.data.images import turned
from saliency_r1.data.importers import LAYOUTS, Found, Item, keep_listed, locate
from saliency_r1.data.store import Imported, Problem, import_item
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.pictures import open_whole

from .toys import mask, pairs, picture

BINARY = MaskRule()


def split(**keys: str) -> Split:
    return Split.model_validate({"folder": "."} | keys)


def imported(folder: Path, layout: str, rule: MaskRule = BINARY, **keys: str) -> dict[str, Imported]:
    """Everything that a layout finds, imported into `folder/out`, by name."""
    found = LAYOUTS[layout].find(folder, split(**keys))
    assert not found.problems
    results = [import_item(item, LAYOUTS[layout], rule, folder / "out") for item in found.items]
    assert all(isinstance(result, Imported) for result in results), results
    return {result.name: result for result in results if isinstance(result, Imported)}


def stored_mask(folder: Path, result: Imported) -> np.ndarray:
    return np.asarray(Image.open(folder / "out" / result.mask))


def test_pairs_across_extensions_and_case(tmp_path: Path) -> None:
    for folder in ("img", "gt"):
        (tmp_path / "Set" / folder).mkdir(parents=True)
    picture(1).save(tmp_path / "Set/img/Cat.JPG")
    picture(2).save(tmp_path / "Set/img/dog.bmp")
    mask().save(tmp_path / "Set/gt/cat.PNG")
    mask().save(tmp_path / "Set/gt/Dog.bmp")
    (tmp_path / "Set/img/Thumbs.db").write_text("not a picture, and not meant to be one")
    results = imported(tmp_path, "pairs", images="img", masks="gt")
    assert results["Cat"].image == "images/Cat.jpg"
    assert results["dog"].image == "images/dog.png"
    assert results["Cat"].mask == "masks/Cat.png"


def test_images_and_masks_in_one_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(1).save(tmp_path / f"{name}.jpg")
        mask().save(tmp_path / f"{name}.png")
    assert set(imported(tmp_path, "pairs", images="*.jpg", masks="*.png")) == {"a", "b"}


def test_names_with_points_stay_whole(tmp_path: Path) -> None:
    source = pairs(tmp_path, 1)
    (source / "images/0000.jpg").rename(source / "images/photo v1.2.jpg")
    (source / "masks/0000.png").rename(source / "masks/photo v1.2.png")
    results = imported(tmp_path, "pairs")
    assert results["photo v1.2"].mask == "masks/photo v1.2.png"


def test_a_list_chooses_a_part(tmp_path: Path) -> None:
    found = LAYOUTS["pairs"].find(pairs(tmp_path, 4), split())
    kept = keep_listed(found, ["0001.png", "0003", "0009", ""])
    assert [item.name for item in kept.items] == ["0001", "0003"]
    assert [problem.name for problem in kept.problems] == ["0009"]
    assert kept.unlisted == 2


def test_a_list_may_say_the_folder(tmp_path: Path) -> None:
    found = LAYOUTS["pairs"].find(pairs(tmp_path, 4), split())
    kept = keep_listed(found, ["images/0001.jpg", ".\\masks\\0002.png", "/elsewhere/images/0003.jpg", "other/0000.jpg"])
    assert [item.name for item in kept.items] == ["0001", "0002", "0003"]
    assert [problem.name for problem in kept.problems] == ["other/0000"]


def test_pairs_in_folders_in_folders_are_not_left_out(tmp_path: Path) -> None:
    pairs(tmp_path, 1)
    (tmp_path / "images/thumbnails").mkdir()
    picture(1).save(tmp_path / "images/thumbnails/0000.jpg")
    assert len(LAYOUTS["pairs"].find(tmp_path, split()).items) == 1
    (tmp_path / "masks/thumbnails").mkdir()
    mask().save(tmp_path / "masks/thumbnails/0000.png")
    with pytest.raises(DataError, match=r"images/thumbnails and masks/thumbnails hold pictures, where this layout"):
        LAYOUTS["pairs"].find(tmp_path, split())


@pytest.mark.parametrize(("ours", "theirs"), [("Night", "night"), ("set1-img", "set1-gt"), ("a", "b/c")])
def test_pairs_in_folders_of_other_names_are_not_left_out(tmp_path: Path, ours: str, theirs: str) -> None:
    pairs(tmp_path, 1)
    for folder, made in ((f"images/{ours}", picture(1)), (f"masks/{theirs}", mask())):
        (tmp_path / folder).mkdir(parents=True)
        made.save(tmp_path / folder / "0001.png")
    with pytest.raises(DataError, match=rf"images/{ours} and masks/{theirs} hold pictures, where this layout"):
        LAYOUTS["pairs"].find(tmp_path, split())


def test_what_lies_around_a_pair_is_no_other_pair(tmp_path: Path) -> None:
    pairs(tmp_path, 1)
    for folder, made in (("images/thumbnails", picture(1)), ("masks/edges", mask())):
        (tmp_path / folder).mkdir(parents=True)
        made.save(tmp_path / folder / "0000.png")
    assert len(LAYOUTS["pairs"].find(tmp_path, split()).items) == 1


@pytest.mark.parametrize("inner", ["", "cats/more"])
def test_pairs_beside_groups_are_not_left_out(tmp_path: Path, inner: str) -> None:
    for place in ("cats", inner):
        for folder, made, suffix in (("image", picture(1), "jpg"), ("gt", mask(), "png")):
            (tmp_path / folder / place).mkdir(parents=True, exist_ok=True)
            made.save(tmp_path / folder / place / f"a.{suffix}")
    with pytest.raises(DataError, match="hold pictures, where this layout does not look"):
        LAYOUTS["groups"].find(tmp_path, split(images="image", masks="gt"))


def test_groups_whose_names_differ_in_case_are_the_same(tmp_path: Path) -> None:
    for folder, groups, made, suffix in (("image", ("Cat", "dog", "Dog", "owl"), picture(1), "jpg"),
                                         ("gt", ("cat", "dog", "Dog", "Owl", "OWL"), mask(), "png")):  # fmt: skip
        for group in groups:
            (tmp_path / folder / group).mkdir(parents=True)
            made.save(tmp_path / folder / group / f"a.{suffix}")
    found = LAYOUTS["groups"].find(tmp_path, split(images="image", masks="gt"))
    pairs_of = {item.name: Path(item.truth).parent.name for item in found.items}  # type: ignore[arg-type]
    assert pairs_of == {"Cat/a": "cat", "Dog/a": "Dog", "dog/a": "dog"}
    assert {problem.name.casefold() for problem in found.problems} == {"owl/a"}, "which one is meant?"


def test_groups_of_the_same_letters_are_refused(tmp_path: Path) -> None:
    for folder, made, suffix in (("image", picture(1), "jpg"), ("gt", mask(), "png")):
        for group in ("caf\u00e9", "cafe\u0301"):
            (tmp_path / folder / group).mkdir(parents=True)
            made.save(tmp_path / folder / group / f"a.{suffix}")
    with pytest.raises(DataError, match=r"image has two folders 'caf\u00e9'.*cafe\\u0301.*caf\\xe9"):
        LAYOUTS["groups"].find(tmp_path, split(images="image", masks="gt"))


def test_indexed_colours_are_ids(tmp_path: Path) -> None:
    source = pairs(tmp_path, 1)
    ids = np.zeros((30, 40), np.uint8)
    ids[:5], ids[10:12] = 1, 7
    image = Image.fromarray(ids)
    image = image.convert("P")
    image.putpalette([255, 255, 255] * 256)
    image.putdata(ids.ravel().tolist())
    image.save(source / "masks/0000.png")
    result = imported(tmp_path, "id_map", MaskRule(rule="ids"))["0000"]
    assert result.ids == (1, 7)
    assert result.instances == 2
    stored = stored_mask(tmp_path, result)
    assert stored.dtype == np.uint16
    assert (stored == ids).all()


def test_an_id_map_in_full_colour_is_refused(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "map.png")
    with pytest.raises(InputError, match="use layout colour_map"):
        LAYOUTS["id_map"].mask(tmp_path / "map.png", MaskRule(rule="ids"))


def test_colours_are_numbered(tmp_path: Path) -> None:
    source = pairs(tmp_path, 1)
    colours = np.zeros((30, 40, 3), np.uint8)
    colours[:5], colours[10:12] = (0, 0, 200), (90, 0, 0)
    Image.fromarray(colours).save(source / "masks/0000.png")
    result = imported(tmp_path, "colour_map", MaskRule(rule="ids"))["0000"]
    stored = stored_mask(tmp_path, result)
    assert (stored[0, 0], stored[10, 0], stored[20, 0]) == (1, 2, 0)
    picture(3, (400, 300)).save(tmp_path / "photo.png")
    with pytest.raises(InputError, match="colours, expected one an instance"):
        LAYOUTS["colour_map"].mask(tmp_path / "photo.png", MaskRule(rule="ids"))


def coco(
    folder: Path,
    annotations: list[dict[str, object]],
    categories: list[dict[str, object]] | None = None,
    **image: object,
) -> Found:
    picture(1).save(folder / "a.jpg")
    entry = {"id": 1, "file_name": "sub/a.jpg", "height": 30, "width": 40} | image
    content = {"images": [entry], "annotations": [{"id": n, "image_id": 1} | a for n, a in enumerate(annotations)]}
    content["categories"] = categories or []
    (folder / "train.json").write_text(json.dumps(content))
    return LAYOUTS["coco"].find(folder, split(images=".", annotations="train.json"))


def test_coco_polygons_and_run_lengths(tmp_path: Path) -> None:
    runs = [0, 30 * 10, 30 * 30]  # the first ten columns
    annotations: list[dict[str, object]] = [
        {"segmentation": {"counts": runs, "size": [30, 40]}},
        {"segmentation": [[2, 2, 6, 2, 6, 6, 2, 6], [20, 20, 25, 20, 25, 25, 20, 25]]},
        {"segmentation": {"counts": [0, 1200], "size": [30, 40]}, "iscrowd": 1},
    ]
    found = coco(tmp_path, annotations)
    ids = LAYOUTS["coco"].mask(found.items[0].truth, MaskRule(rule="ids"))
    assert (ids[0, 9], ids[0, 10]) == (1, 0)
    assert (ids[4, 4], ids[22, 22]) == (2, 2), "the smaller one is in front"


def test_coco_names_its_instances_where_there_are_several_categories(tmp_path: Path) -> None:
    square = [[0, 0, 4, 0, 4, 4, 0, 4]]
    annotations: list[dict[str, object]] = [
        {"segmentation": square, "category_id": 7},
        {"segmentation": square, "category_id": 9, "iscrowd": 1},
        {"segmentation": square, "category_id": 9},
    ]
    kinds: list[dict[str, object]] = [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}]
    assert coco(tmp_path, annotations, kinds).objects == {"a": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]}
    assert coco(tmp_path, annotations, kinds[:1]).objects == {}, "one category alone says nothing"
    kinds[0]["name"], kinds[1]["name"] = "sign <stop>", "<>"
    names = [one["name"] for one in coco(tmp_path, annotations, kinds).objects["a"]]
    assert names == ["sign stop", "region"], "an answer has no tags in its words"


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"counts": [0, 6], "size": [2, 3]}, r"size \[2, 3\], expected its image's: \[30, 40\]"),
        (None, "annotation 0 of sub/a.jpg has no segmentation"),
        ([["a"]], "expected a list of numbers"),
        ({"counts": [1200], "size": [30, 40]}, r"annotation 0 encloses no pixel: take it out"),
    ],
)
def test_coco_that_is_wrong(tmp_path: Path, segmentation: object, message: str) -> None:
    found = coco(tmp_path, [{"segmentation": segmentation}])
    with pytest.raises(InputError, match=message):
        LAYOUTS["coco"].mask(found.items[0].truth, MaskRule(rule="ids"))


def test_coco_names_the_annotation_that_others_hide(tmp_path: Path) -> None:
    halves = [{"segmentation": {"counts": [start, 600, 600 - start], "size": [30, 40]}} for start in (0, 600)]
    found = coco(tmp_path, [{"segmentation": {"counts": [0, 1200], "size": [30, 40]}}, *halves])
    with pytest.raises(InputError, match='annotation 0 is hidden behind smaller ones: mark it "salient": false'):
        LAYOUTS["coco"].mask(found.items[0].truth, MaskRule(rule="ids"))


def test_coco_takes_the_exact_name_before_one_in_another_case(tmp_path: Path) -> None:
    for name in ("A.jpg", "B.jpg"):
        picture(2).save(tmp_path / name)  # beside a.jpg
    for listed, taken in (("A.jpg", "A.jpg"), ("a.jpg", "a.jpg"), ("b.jpg", "B.jpg"), ("%61.jpg", "a.jpg")):
        assert [item.image.name for item in coco(tmp_path, [], file_name=listed).items] == [taken]


def test_coco_takes_no_picture_twice_and_none_of_two(tmp_path: Path) -> None:
    picture(2).save(tmp_path / "a b.jpg")
    sides = {"height": 30, "width": 40}
    images = [{"id": number, "file_name": name} | sides for number, name in enumerate(["a b.jpg", "a%20b.jpg"], 1)]
    (tmp_path / "train.json").write_text(json.dumps({"images": images, "annotations": []}))
    found = LAYOUTS["coco"].find(tmp_path, split(images=".", annotations="train.json"))
    assert len(found.items) == 1
    assert "both listed and mean a b.jpg" in found.problems[0].reason
    for name in ("C.jpg", "c.jpg"):
        picture(2).save(tmp_path / name)
    assert not coco(tmp_path, [], file_name="C.JPG").items


def test_coco_images_that_are_not_there(tmp_path: Path) -> None:
    found = coco(tmp_path, [], file_name="b.jpg")
    assert [problem.name for problem in found.problems] == ["b"]
    assert found.unlisted == 1
    (tmp_path / "train.json").write_text("[1, 2")
    with pytest.raises(DataError, match=r"train\.json: not valid JSON"):
        LAYOUTS["coco"].find(tmp_path, split(images=".", annotations="train.json"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("on", ["stored pixels", "upright image"])
@pytest.mark.parametrize("name", ["0000.jpg", "0000.tif"])
def test_orientation_is_applied_to_both(tmp_path: Path, orientation: int, on: str, name: str) -> None:
    source = pairs(tmp_path, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.open(source / "masks/0000.png").convert("RGB")
    (source / "images/0000.jpg").unlink()
    stored.save(source / "images" / name, exif=exif, quality=95)
    with Image.open(source / "images" / name) as opened:
        opened.load()  # which turns a TIFF
        upright = ImageOps.exif_transpose(opened)
    swaps = orientation > 4
    if on == "upright image":
        upright.convert("L").point(lambda value: 255 * (value > 128)).save(source / "masks/0000.png")
    declared = on == "stored pixels" and not swaps  # where sizes agree, nothing in the files says it
    rule = MaskRule(orientation="stored") if declared else BINARY
    result = imported(tmp_path, "pairs", rule)["0000"]
    image = Image.open(tmp_path / "out" / result.image)
    assert image.getexif().get(0x0112, 1) == 1
    assert image.size == (result.width, result.height) == ((30, 40) if swaps else (40, 30))
    assert result.oriented == (orientation > 1)
    assert result.turned == (orientation > 1 and on == "stored pixels")
    # the picture shows the mask, so both must still agree
    assert ((np.asarray(image.convert("L")) > 128) == (stored_mask(tmp_path, result) > 128)).mean() > 0.98


@pytest.mark.parametrize("orientation", range(1, 9))
def test_arrays_turn_as_pictures_do(orientation: int) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(values)
    image.getexif()[0x0112] = orientation
    assert (turned(values, orientation) == np.asarray(ImageOps.exif_transpose(image))).all()


def test_fine_files_are_linked_and_others_written(tmp_path: Path) -> None:
    source = pairs(tmp_path, 1)
    result = imported(tmp_path, "pairs")["0000"]
    assert (tmp_path / "out" / result.image).samefile(source / "images/0000.jpg")
    assert (tmp_path / "out" / result.mask).samefile(source / "masks/0000.png")
    (tmp_path / "out").rename(tmp_path / "before")
    again = imported(tmp_path, "pairs", MaskRule(rule="threshold"))["0000"]
    assert not (tmp_path / "out" / again.mask).samefile(source / "masks/0000.png")
    assert (stored_mask(tmp_path, again) == np.asarray(mask())).all()


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_masks_of_every_mode(tmp_path: Path, mode: str) -> None:
    plain = mask()
    sixteen = Image.fromarray(np.asarray(plain).astype(np.uint16) * 257)
    image = sixteen if mode == "I;16" else plain.convert(mode)
    image.save(tmp_path / "mask.png")
    assert (LAYOUTS["pairs"].mask(tmp_path / "mask.png", BINARY) == np.asarray(plain)).all()


def test_grey_values_are_cut_where_the_rule_says(tmp_path: Path) -> None:
    def cut(values: list[int], threshold: int) -> list[int]:
        Image.fromarray(np.array([values], np.uint8)).save(tmp_path / "mask.png")
        rule = MaskRule(rule="threshold", threshold=threshold)
        return LAYOUTS["pairs"].mask(tmp_path / "mask.png", rule)[0].tolist()

    assert cut([0, 127, 128, 255], 128) == [0, 0, 255, 255]
    assert cut([0, 1], 1) == [0, 255]


def test_pictures_that_are_none(tmp_path: Path) -> None:
    for name, content in (("empty.jpg", b""), ("text.png", b"hello"), ("head.png", b"\x89PNG\r\n\x1a\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is not a readable image"):
            open_whole(tmp_path / name)
    with pytest.raises(InputError, match=r"gone\.png is missing"):
        open_whole(tmp_path / "gone.png")
    item = Item("text", tmp_path / "text.png", tmp_path / "text.png")
    assert isinstance(import_item(item, LAYOUTS["pairs"], BINARY, tmp_path), Problem)


def test_places_are_found_when_they_are_unique(tmp_path: Path) -> None:
    (tmp_path / "Outer/DUTS-TR-Image").mkdir(parents=True)
    (tmp_path / "__MACOSX/Outer/DUTS-TR-Image").mkdir(parents=True)
    assert locate(tmp_path, "duts-tr-image").name == "DUTS-TR-Image"
    (tmp_path / "Other/DUTS-TR-Image").mkdir(parents=True)
    with pytest.raises(DataError, match="found 2 times"):
        locate(tmp_path, "DUTS-TR-Image")
