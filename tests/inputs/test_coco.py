"""COCO files as tools write them and people join them: read as pycocotools does, or refused by name."""

import json
import math
import random
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saliency_r1.data.catalogue import MaskRule, Split
from saliency_r1.data.errors import DataError
from saliency_r1.data.importers import LAYOUTS, Found
from saliency_r1.data.store import Problem, import_item
from saliency_r1.evaluation.detections import read_predictions, read_truths
from saliency_r1.inputs.coco import CocoImage, ImageNames, read_results, read_truth
from saliency_r1.inputs.errors import InputError
from saliency_r1.metrics.instances import as_regions, evaluate_instances
from saliency_r1.metrics.truth import MeasureError

SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]
SIZES = {"a": (24, 30), "b": (24, 30)}
NAMES = ImageNames({"1": "a", "2": "b"}, True, ImageNames.of(SIZES).aliases)


def image(number: Any, file_name: Any, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": file_name, "height": 24, "width": 30} | more


def annotation(number: Any, of: Any, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": of, "category_id": 1, "segmentation": SQUARE, "iscrowd": 0} | more


def content(images: list[Any], annotations: list[Any], **more: Any) -> dict[str, Any]:
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]} | more


def written(folder: Path, value: Any, name: str = "gt.json", encoding: str = "utf-8") -> Path:
    (folder / name).write_text(json.dumps(value, ensure_ascii=encoding == "utf-8"), encoding=encoding)
    return folder / name


def by_name(path: Path) -> dict[str, CocoImage]:
    return {image.name: image for image in read_truth(path).images}


TWO = content([image(1, "a.png"), image(2, "b.png")], [annotation(1, 1), annotation(2, 2)])


def changed(what: str, place: int, **more: Any) -> dict[str, Any]:
    """The two images and annotations with one entry changed."""
    value = deepcopy(TWO)
    value[what][place] |= more
    return value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    value = content([image(1, "花朵.png")], [annotation(1, 1)])
    assert list(by_name(written(tmp_path, value, encoding=encoding))) == ["花朵"]


def test_ids_may_be_text_in_one_list_and_numbers_in_the_other(tmp_path: Path) -> None:
    value = content(
        [image("1", "a.png"), image(2.0, "b.png")],
        [annotation("7", 1, category_id="1"), annotation(8, "2")],
        categories=[{"id": 1, "name": "cat"}, {"id": "2", "name": "dog"}],
    )
    images = by_name(written(tmp_path, value))
    assert [a.category for name in "ab" for a in images[name].annotations] == ["cat", "cat"]


def test_instances_are_numbered_in_the_order_of_ids(tmp_path: Path) -> None:
    annotations = [annotation("10", 1), annotation("9", 1, iscrowd=1), annotation("2", 1, salient=False)]
    (one,) = read_truth(written(tmp_path, content([image(1, "a.png")], annotations))).images
    assert [(a.id, a.number) for a in one.annotations] == [("10", 3), ("9", 2)]
    assert [a.number for a in one.instances] == [3]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "is no COCO ground truth: it needs images and annotations"),
        ({"images": []}, "is no COCO ground truth"),
        (content([], []), "lists no image"),
        (content({"a": 1}, []), "images is {'a': 1}, expected a list"),  # type: ignore[arg-type]
        (content([image(1, "a.png"), 7, None], []), "2 entries of images are no objects with an id: number 2, 3"),
        (content([image(1, "a.png")], ["x", []]), "2 entries of annotations are no objects with an id: number 1, 2"),
        (changed("images", 1, id=1), "1 ids of images stand there more than once .*: 1"),
        (changed("images", 1, id="1"), "1 ids of images stand there more than once .*: 1"),
        (changed("annotations", 1, id=1), "1 ids of annotations stand there more than once"),
        (changed("annotations", 1, id=None), "1 entries of annotations are no objects with an id: number 2"),
        (changed("annotations", 1, image_id=9), "1 annotations belong to an image_id that is not listed: id 2"),
        (changed("annotations", 1, image_id=None), "1 annotations belong to an image_id that is not listed: id 2"),
        (changed("annotations", 1, iscrowd="0"), "1 annotations have an iscrowd other than 0 and 1: id 2"),
        (changed("annotations", 1, iscrowd=math.nan), "1 annotations have an iscrowd other than 0 and 1: id 2"),
        (changed("annotations", 1, salient="false"), "1 annotations have a salient other than true and false: id 2"),
        (changed("images", 1, file_name=None), "1 images have no usable file_name: id 2"),
        (changed("images", 1, file_name=".."), "1 images have no usable file_name: id 2"),
        (changed("images", 1, file_name="b\n.png"), "1 images have no usable file_name: id 2"),
        (changed("images", 1, file_name="b\ud800.png"), "1 images have no usable file_name: id 2"),
        (changed("images", 1, file_name="A.jpg"), "2 images have the file_name of another.*: A.jpg, a.png"),
        (TWO | {"categories": ["cat"]}, "1 entries of categories are no objects"),
    ],
)
def test_ambiguous_files_are_refused(tmp_path: Path, value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=rf"gt\.json(.|\n)*{reason}"):
        read_truth(written(tmp_path, value))


def test_shares_of_the_picture_are_no_pixels(tmp_path: Path) -> None:
    shares = [[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]]
    value = content([image(1, "a.png")], [annotation(1, 1, segmentation=shares)])
    with pytest.raises(InputError, match=r"gt\.json.*\n.*coordinates from 0 to 1, expected pixels"):
        read_truth(written(tmp_path, value))
    rows = [{"image_id": 1, "score": 0.5, "segmentation": shares}]
    with pytest.raises(InputError, match=r"results\.json.*coordinates from 0 to 1"):
        read_results(written(tmp_path, rows, "results.json"), SIZES, NAMES)
    value["annotations"].append(annotation(2, 1))
    read_truth(written(tmp_path, value))  # a speck in the corner, beside what is in pixels


@pytest.mark.parametrize("name", [{}, {"name": None}, {"name": " "}])
def test_a_category_without_a_name_names_nothing(tmp_path: Path, name: dict[str, Any]) -> None:
    kinds = [{"id": 1} | name, {"id": 2, "name": "dog"}]
    truth = read_truth(written(tmp_path, TWO | {"categories": kinds}))
    assert [one.category for one in truth.images[0].annotations] == [None]


def test_every_fault_is_said_at_once(tmp_path: Path) -> None:
    value = content([image(1, "a.png"), image(1, "b.png")], [annotation(1, 5), annotation(2, 1, iscrowd=3)])
    with pytest.raises(InputError) as error:
        read_truth(written(tmp_path, value))
    assert len(str(error.value).splitlines()) == 4


@pytest.mark.parametrize("size", [None, 0, -3, "24", 24.5, math.nan, True, 60_000_000])
def test_images_without_a_size_are_named(tmp_path: Path, size: Any) -> None:
    truth = read_truth(written(tmp_path, changed("images", 1, height=size, width=size)))
    assert [one.name for one in truth.images] == ["a"]
    ((name, reason),) = truth.problems
    assert name == "b"
    assert "expected its pixels" in reason
    with pytest.raises(MeasureError, match=r"b: .*expected its pixels"):
        read_truths(tmp_path / "gt.json")


@pytest.mark.parametrize(
    "file_name",
    ["a.png", "set\\a.png", "..\\set\\a.png", "../../set/a.png", "C:\\data\\a.png", "/etc/a.png", "./a.PNG", "a"],
)
def test_file_names_are_names_and_lead_nowhere(tmp_path: Path, file_name: str) -> None:
    (one,) = read_truth(written(tmp_path, content([image(1, file_name)], [annotation(1, 1)]))).images
    assert one.name == "a"
    assert not one.path.startswith("/")
    assert ".." not in one.path.split("/")


def test_names_keep_their_folders_where_they_need_them(tmp_path: Path) -> None:
    value = content([image(1, "x/a.png"), image(2, "y\\a.png"), image(3, "y/v1.2")], [annotation(1, 1)])
    assert list(by_name(written(tmp_path, value))) == ["x/a", "y/a", "v1.2"]


# The importer


def found(folder: Path, value: Any, pictures: tuple[str, ...] = ("a.png", "b.png")) -> Found:
    (folder / "images").mkdir()
    for name in pictures:
        Image.new("RGB", (30, 24)).save(folder / "images" / name)
    written(folder, value)
    return LAYOUTS["coco"].find(folder, Split.model_validate({"folder": ".", "annotations": "gt.json"}))


def test_a_set_of_crowds_alone_is_refused_with_the_remedy(tmp_path: Path) -> None:
    value = content([image(1, "a.png"), image(2, "b.png")], [annotation(1, 1, iscrowd=1), annotation(2, 2, iscrowd=1)])
    with pytest.raises(DataError, match=r'all 2 annotations are crowds .*CVAT.*write "iscrowd": 0'):
        found(tmp_path, value)
    with pytest.raises(MeasureError, match="all 2 annotations are crowds"):
        read_truths(tmp_path / "gt.json")


def test_an_image_of_crowds_alone_is_no_image_of_nothing(tmp_path: Path) -> None:
    result = found(tmp_path, changed("annotations", 1, iscrowd=1))
    assert [item.name for item in result.items] == ["a"]
    assert [(problem.name, "are crowds" in problem.reason) for problem in result.problems] == [("b", True)]
    assert result.crowds == 1


def test_a_declared_size_is_compared_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = found(tmp_path, content([image(1, "a.png", height=40_000, width=50_000)], [annotation(1, 1)]))
    (item,) = result.items
    monkeypatch.setattr(type(LAYOUTS["coco"]), "mask", lambda *_: pytest.fail("it was drawn"))
    problem = import_item(item, LAYOUTS["coco"], MaskRule(rule="ids"), tmp_path / "out")
    assert isinstance(problem, Problem)
    assert "50000 x 40000, the image 30 x 24" in problem.reason


def test_names_from_elsewhere_are_found(tmp_path: Path) -> None:
    names = ("..\\images\\a.png", "images/my%20photo.png", "cafe\u0301.png")
    value = content([image(k, name) for k, name in enumerate(names, 1)], [annotation(k, k) for k in (1, 2, 3)])
    result = found(tmp_path, value, ("A.png", "my photo.png", "caf\u00e9.png"))
    assert not result.problems
    assert {item.image.name for item in result.items} == {"A.png", "my photo.png", "caf\u00e9.png"}


# Results


def row(image_id: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "segmentation": SQUARE, "score": 0.5} | more


@pytest.mark.parametrize("ids", [(1, 2), ("1", "2"), ("a", "b"), ("a.png", "b.png"), ("x\\a.png", "B")])
def test_results_say_ids_or_names(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    results = read_results(written(tmp_path, [row(one) for one in ids]), SIZES, NAMES)
    assert [len(results[name]) for name in "ab"] == [1, 1]


def test_ids_that_are_also_names_of_others(tmp_path: Path) -> None:
    """Numbers are ids, texts are names; where ids are texts as well it cannot be known."""
    truth = content([image(1, "2.png"), image(2, "1.png")], [annotation(1, 1), annotation(2, 2)])
    truths, names = read_truths(written(tmp_path, truth))
    for one, name in ((1, "2"), ("1", "1")):
        results = read_predictions(written(tmp_path, [row(one)], "pred.json"), truths, names)
        assert [key for key, detections in results.items() if detections] == [name]
    truth["images"] = [image("1", "2.png"), image("2", "1.png")]
    truths, names = read_truths(written(tmp_path, truth))
    with pytest.raises(MeasureError, match="may be the id of one image and the name of another"):
        read_predictions(written(tmp_path, [row("1")], "pred.json"), truths, names)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"results": []}, "expected a list of rows"),
        (content([], [row(1)]), "is a COCO data set, expected results"),
        ([row(1), "x"], "row 2 is 'x', expected an object"),
        ([row(None)], "row 1 has no image_id"),
        ([row([1])], "row 1 has no image_id"),
        ([{key: value for key, value in row(1).items() if key != "score"}], "row 1 has no score"),
        ([row(1, score="0.9")], "row 1 has the score '0.9', expected a finite number"),
        ([row(1, score=True)], "row 1 has the score True"),
        ([row(1, score=None)], "row 1 has the score None"),
        ([row(1, score=math.nan)], "row 1 has the score nan"),
        ([row(1, score=math.inf)], "row 1 has the score inf"),
        ([row(1, score=10**400)], "row 1 has the score 1"),
        ([row(1, segmentation=None, bbox=[1, 1, 5, 5])], "row 1 has no segmentation; boxes are not scored"),
        ([row(1), row(2, segmentation={"size": [9, 9], "counts": [81]})], r"row 2 \(b\) .*size \[9, 9\]"),
    ],
)
def test_results_that_cannot_be_used(tmp_path: Path, value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=rf"gt\.json(.|\n)*{reason}"):
        read_results(written(tmp_path, value), SIZES, NAMES)


def data_set(*images: tuple[Any, str], rows: Any = ()) -> dict[str, Any]:
    """Predictions as `saliency-r1 predict --format coco` writes them."""
    return content([{"id": one, "file_name": name} for one, name in images], list(rows))


def test_a_data_set_of_predictions_says_which_images_were_looked_at(tmp_path: Path) -> None:
    """Its ids are its own; an image that it lists and finds nothing in is no missing one."""
    truths, names = read_truths(written(tmp_path, content([image(1, "a.png"), image(2, "b.png")], [annotation(1, 1)])))

    def scored(missing: str, *images: tuple[Any, str]) -> dict[str, Any]:
        path = written(tmp_path, data_set(*images, rows=[row(images[0][0])]), "pred.json")
        return evaluate_instances(read_predictions(path, truths, names), truths, missing=missing)

    assert scored("error", (2, "x/a.jpg"), (1.0, "b.png"))["AP"] == 1
    with pytest.raises(MeasureError, match="1 missing: b"):
        scored("error", (7, "a.png"))
    assert scored("zero", (7, "a.png"))["missing"] == 1
    with pytest.raises(MeasureError, match="1 surplus: c"):
        scored("zero", (7, "a.png"), (8, "c.png"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (data_set((1, "a.png"), (1, "b.png"), rows=[row(1)]), "1 ids of images stand there more than once .*: 1"),
        (data_set((1, "x/a.png"), (2, "A.jpg")), "2 images are the same as another one: A, x/a"),
        (data_set((1, "c.png"), (2, "c.jpg")), "2 images are the same as another one: c, c"),
        (data_set((None, "a.png")), "1 entries of images are no objects with an id: number 1"),
        (data_set((1, "..")), "1 images have no usable file_name: id 1"),
        (data_set((1, "a.png"), rows=[row(1), row(2)]), "row 2 has the image_id 2, which the file does not list"),
    ],
)
def test_a_data_set_of_predictions_that_is_ambiguous(tmp_path: Path, value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=rf"gt\.json(.|\n)*{reason}"):
        read_results(written(tmp_path, value), SIZES, NAMES)


def test_results_of_unknown_images_are_surplus(tmp_path: Path) -> None:
    results = read_results(written(tmp_path, [row(1), row(77), row("zz\x1b")]), SIZES, NAMES)
    assert {name: len(found) for name, found in results.items()} == {"a": 1, "b": 0, "77": 0, r"zz\x1b": 0}


def test_maps_are_found_by_the_names_of_the_file(tmp_path: Path) -> None:
    truths, names = read_truths(written(tmp_path, content([image(1, "x\\a.png")], [annotation(1, 1)])))
    (tmp_path / "pred/x").mkdir(parents=True)
    Image.new("L", (30, 24), 1).save(tmp_path / "pred/x/a.png")
    assert set(read_predictions(tmp_path / "pred", truths, names)) == {"a"}
    Image.new("L", (30, 24), 1).save(tmp_path / "pred/a.png")
    with pytest.raises(MeasureError, match="two maps of the image a"):
        read_predictions(tmp_path / "pred", truths, names)


ODD = [None, True, -1, 0, 1, 2**40, 10**30, 1e300, math.nan, math.inf, "", "1", "a.png", "\x00", "\ud800", [], [[]], {}]


def broken(rng: random.Random, value: Any) -> Any:
    """The value with something odd in one place of it."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        value = deepcopy(value)
        place = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        if isinstance(value, dict) and rng.random() < 0.1:
            del value[place]
        elif isinstance(value, list) and rng.random() < 0.1:
            value.insert(place, deepcopy(value[place]))
        else:
            value[place] = broken(rng, value[place])
        return value
    return rng.choice(ODD)


def evaluated(folder: Path) -> bool:
    """Whether the evaluator takes the two files; if not, it says why in text that can be written."""
    try:
        truths, names = read_truths(folder / "gt.json")
        scores = evaluate_instances(read_predictions(folder / "pred.json", truths, names), truths)
    except MeasureError as error:
        return not str(error).encode()
    return bool(math.isnan(scores["AP"]) or 0 <= scores["AP"] <= 1)


def imported(folder: Path) -> bool:
    """The same of the importer, all images or none."""
    try:
        result = LAYOUTS["coco"].find(folder, Split.model_validate({"folder": ".", "annotations": "gt.json"}))
    except DataError as error:
        return not str(error).encode()
    stored = [
        import_item(item, LAYOUTS["coco"], MaskRule(rule="ids"), folder / "out", shutil.copyfile)
        for item in result.items
    ]
    problems = result.problems + [one for one in stored if isinstance(one, Problem)]
    return not [f"{problem.name} {problem.reason}".encode() for problem in problems]


@pytest.mark.parametrize("seed", range(3))
def test_broken_files_end_in_a_sentence(tmp_path: Path, seed: int) -> None:
    """Importer and evaluator take a file or say what is wrong with it; nothing else comes out of either."""
    rng = random.Random(seed)
    runs = {"size": [24, 30], "counts": [100, 50, 570]}
    whole = content(
        [image(1, "a.png"), image(2, "b.png")],
        [annotation(1, 1), annotation(2, 2, segmentation=runs), annotation(3, 2, iscrowd=1, segmentation=runs)],
    )
    results = [row(1), row("b", segmentation=runs)]
    found(tmp_path, whole)
    written(tmp_path, results, "pred.json")
    assert evaluated(tmp_path)
    assert imported(tmp_path)
    taken = []
    for _ in range(100):
        (tmp_path / "gt.json").write_text(json.dumps(broken(rng, whole)))
        taken.append((evaluated(tmp_path), imported(tmp_path)))
    written(tmp_path, whole)
    for _ in range(100):
        (tmp_path / "pred.json").write_text(json.dumps(broken(rng, results)))
        taken.append((evaluated(tmp_path), True))
    assert 20 < sum(scored for scored, _ in taken) < 180


def test_a_map_and_its_file_are_the_same_truth(tmp_path: Path) -> None:
    Image.new("L", (30, 24)).save(tmp_path / "a.png")
    pixels = Image.new("L", (30, 24))
    pixels.paste(3, (2, 2, 12, 12))
    pixels.save(tmp_path / "b.png")
    truths, _ = read_truths(tmp_path)
    from_file, _ = read_truths(written(tmp_path, content([image(1, "a.png"), image(2, "b.png")], [annotation(1, 2)])))
    assert truths == from_file
    assert as_regions(truths["b"]) is truths["b"]
