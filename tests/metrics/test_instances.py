import contextlib
import io
import json
from copy import deepcopy

import numpy as np
import pytest
from PIL import Image

from saliency_r1.evaluation.detections import read_predictions, read_truths
from saliency_r1.inputs.regions import area
from saliency_r1.metrics import MeasureError, evaluate_instances
from saliency_r1.metrics import instances as module
from saliency_r1.metrics.instances import Regions, as_regions, replicate_instances

SHAPE = (60, 80)


def disc(rng):
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    row, column, radius = rng.integers(5, 55), rng.integers(5, 75), rng.integers(4, 15)
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


def scene(seed, images=25, ties=False):
    """Discs, most of them found within three pixels, and one false one an image; the last image is empty."""
    rng = np.random.default_rng(seed)
    predictions, truths = {}, {}
    for k in range(images):
        ids, found = np.zeros(SHAPE, np.int32), []
        for number in range(rng.integers(1, 4)):
            mask = disc(rng)
            ids[mask] = number + 5
            found.append((np.roll(mask, rng.integers(-3, 4), 1), float(rng.integers(1, 4) if ties else rng.random())))
        predictions[f"{k:02}"], truths[f"{k:02}"] = [*found, (disc(rng), 0.5)], ids
    predictions["zz"], truths["zz"] = [], np.zeros(SHAPE, np.int32)
    return predictions, truths


def encoded(mask):
    from pycocotools import mask as rle

    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return code | {"counts": code["counts"].decode()}


def pycocotools(predictions, truths):
    images, annotations, results = [], [], []
    for k, (name, ids) in enumerate(sorted(truths.items()), 1):
        images.append({"id": k, "height": ids.shape[0], "width": ids.shape[1]})
        annotations += [
            annotation(len(annotations) + 1 + n, k, ids == v) for n, v in enumerate(np.unique(ids[ids > 0]))
        ]
        for mask, score in predictions[name]:
            results.append({"image_id": k, "category_id": 1, "segmentation": encoded(mask), "score": score})
    return pycocotools_of({"images": images, "annotations": annotations, "categories": [{"id": 1}]}, results)


def annotation(number, image, mask, crowd=0, category=1):
    row = {"id": number, "image_id": image, "category_id": category, "iscrowd": crowd, "segmentation": encoded(mask)}
    return row | {"area": float(mask.sum())}


def pycocotools_of(dataset, results):
    """AP of pycocotools, all categories being one."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(deepcopy(results)), "segm")
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, 2].mean(1)
    return {"AP": precision.mean(), "AP50": precision[0], "AP70": precision[4], "AP75": precision[5]}


def rectangle(rng):
    mask = np.zeros(SHAPE, bool)
    y, x = rng.integers(0, 50), rng.integers(0, 60)
    mask[y : y + rng.integers(2, 30), x : x + rng.integers(2, 40)] = True
    return mask


def coco_files(seed):
    """Ground truth and results with crowds, overlaps, equal scores and overlaps, images without anything, many rows."""
    rng = np.random.default_rng(seed)
    ties, categories = rng.random() < 0.5, int(rng.integers(1, 4))
    images, annotations, results = [], [], []
    for k in map(int, rng.permutation(rng.integers(2, 8)) + 1):
        images.append({"id": k, "file_name": f"{9 - k}.png", "height": SHAPE[0], "width": SHAPE[1]})
        found = []
        for _ in range(rng.integers(0, 5)):
            mask, crowd = rectangle(rng), int(rng.random() < 0.3)
            annotations.append(annotation(len(annotations) + 1, k, mask, crowd, int(rng.integers(1, categories + 1))))
            found += [np.roll(mask, rng.integers(-2, 3), rng.integers(0, 2)) for _ in range(rng.integers(0, 3))]
        found += [rectangle(rng) for _ in range(rng.integers(0, 3) if rng.random() < 0.9 else 130)]
        for mask in found:
            score = float(rng.integers(1, 4) if ties else rng.random())
            row = {"image_id": k, "category_id": int(rng.integers(1, categories + 1)), "segmentation": encoded(mask)}
            results.append(row | {"score": score})
    rng.shuffle(results)
    annotations.append(annotation(len(annotations) + 1, images[0]["id"], rectangle(rng)))
    results.append(
        {"image_id": images[0]["id"], "category_id": 1, "segmentation": encoded(rectangle(rng)), "score": 2.0}
    )
    kinds = [{"id": k, "name": f"kind {k}"} for k in range(1, categories + 1)]
    return {"images": images, "annotations": annotations, "categories": kinds}, results


@pytest.mark.parametrize("seed", range(40))
def test_coco_files_score_as_in_pycocotools(seed, tmp_path, monkeypatch):
    """From the files to the numbers, and the bootstrap's own matching likewise."""
    monkeypatch.setattr(module, "draw", lambda seed, name, replicates: np.ones(replicates, np.uint8))
    dataset, results = coco_files(seed)
    (tmp_path / "gt.json").write_text(json.dumps(dataset))
    (tmp_path / "pred.json").write_text(json.dumps(results))
    truths, names = read_truths(tmp_path / "gt.json")
    predictions = read_predictions(tmp_path / "pred.json", truths, names)
    scores = evaluate_instances(predictions, truths)
    expected = pycocotools_of(dataset, results)
    assert {key: scores[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    replicates = replicate_instances(predictions, truths, 1)
    assert {key: values[0] for key, values in replicates.items()} == pytest.approx(expected, abs=1e-12)
    constant = pycocotools_of(dataset, [row | {"score": 1.0} for row in results])
    assert {key: scores[f"{key}_constant"] for key in constant} == pytest.approx(constant, abs=1e-12)
    assert scores["instances"] == sum(not row["iscrowd"] for row in dataset["annotations"])


def test_crowds_and_overlaps_by_hand():
    """What lies on a crowd costs nothing, and an instance behind another is asked for whole."""
    large, small, crowd, beside = (np.zeros((10, 20), bool) for _ in range(4))
    large[:, :10], small[2:4, 2:4], crowd[:, 14:], beside[4:6, 11:13] = True, True, True, True
    on_crowd = np.zeros((10, 20), bool)
    on_crowd[:5, 15:18] = True
    truth = {"a": Regions((10, 20), (encoded(small), encoded(large)), (encoded(crowd),))}
    both = [(large, 0.9), (small, 0.8)]
    scores = evaluate_instances({"a": [(on_crowd, 1.0), *both]}, truth)
    assert (scores["AP"], scores["APr90"], scores["instances"]) == (pytest.approx(1), 1, 2)
    # The same false detection off the crowd stands before both: precision 2/3 at every recall.
    assert evaluate_instances({"a": [(beside, 1.0), *both]}, truth)["AP"] == pytest.approx(2 / 3)
    nothing = {"a": Regions((10, 20), (), (encoded(crowd),))}
    assert np.isnan(evaluate_instances({"a": both}, nothing)["AP"])
    assert replicate_instances({"a": both}, nothing) == {}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools(seed, ties):
    predictions, truths = scene(seed, ties=ties)
    scores = evaluate_instances(predictions, truths)
    expected = pycocotools(predictions, truths)
    assert {key: scores[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    constant = pycocotools({name: [(mask, 1.0) for mask, _ in found] for name, found in predictions.items()}, truths)
    assert {key: scores[f"{key}_constant"] for key in constant} == pytest.approx(constant, abs=1e-12)


def test_replicates_are_about_the_same_number(monkeypatch):
    """Counting every image once, the bootstrap's own precision is COCO's."""
    monkeypatch.setattr(module, "draw", lambda seed, name, replicates: np.ones(replicates, np.uint8))
    predictions, truths = scene(4, ties=True)
    replicates = replicate_instances(predictions, truths, 1)
    expected = pycocotools(predictions, truths)
    assert {key: values[0] for key, values in replicates.items()} == pytest.approx(expected, abs=1e-12)


def test_intervals_hold_the_value():
    predictions, truths = scene(5)
    replicates = replicate_instances(predictions, truths, 300)
    low, high = np.quantile(replicates["AP50"], [0.025, 0.975])
    assert low < evaluate_instances(predictions, truths)["AP50"] < high


def test_replicates_that_are_all_empty():
    truth = np.zeros((8, 8), np.uint8)
    truth[:4] = 1
    assert replicate_instances({"img2": [(truth > 0, 1.0)]}, {"img2": truth}, 1) == {}


def test_by_hand():
    """One of two instances is found at IoU .6, beside a false detection with a higher score."""
    ids = np.zeros((10, 20), np.int32)
    ids[:, :10], ids[:5, 15:] = 1, 2
    found = np.zeros((10, 20), bool)
    found[:6, :10] = True
    false = np.zeros((10, 20), bool)
    false[8:, 12:] = True
    scores = evaluate_instances({"a": [(found, 0.4), (false, 0.9)]}, {"a": ids}, score_source="segmenter")
    # Precision 1/2 up to recall 1/2: 51 of 101 points, at the thresholds .5, .55 and .6.
    assert scores["AP50"] == pytest.approx(0.5 * 51 / 101)
    assert scores["AP"] == pytest.approx(3 * 0.5 * 51 / 101 / 10)
    assert scores["AP70"] == 0
    # With equal scores the order of the list decides, and the true one comes first.
    assert scores["AP50_constant"] == pytest.approx(51 / 101)
    # The published protocol asks for more than the threshold, and false positives cost nothing.
    assert (scores["APr50"], scores["APr60"]) == (0.5, 0)
    assert (scores["images"], scores["instances"], scores["detections"]) == (1, 2, 2)
    assert scores["score_source"] == "segmenter"


def test_degenerate_cases():
    ids = np.ones((4, 4), np.int32)
    assert evaluate_instances({"a": []}, {"a": ids})["AP"] == 0
    assert np.isnan(evaluate_instances({"a": []}, {"a": ids * 0})["AP50"])
    full = np.ones((4, 4), bool)
    assert evaluate_instances({"a": [(full, 0.5)]}, {"a": ids})["AP"] == pytest.approx(1)
    assert replicate_instances({"a": []}, {"a": ids}, 20)["AP"].max() == 0


def test_completeness():
    truths = {"a": np.ones((4, 4), np.int32), "b": np.ones((4, 4), np.int32)}
    with pytest.raises(MeasureError, match="1 missing: b"):
        evaluate_instances({"a": []}, truths)
    assert evaluate_instances({"a": [(np.ones((4, 4), bool), 1)]}, truths, missing="zero")["missing"] == 1
    with pytest.raises(MeasureError, match="1 surplus: c"):
        evaluate_instances({"a": [], "b": [], "c": []}, truths)
    with pytest.raises(MeasureError, match="another size than the ground truth: a"):
        evaluate_instances({"a": [(np.ones((4, 5), bool), 1)], "b": []}, truths)
    with pytest.raises(MeasureError, match="score_source"):
        evaluate_instances({"a": [], "b": []}, truths, score_source="luck")


def test_files(tmp_path):
    """A COCO file and a folder of id maps say the same."""
    predictions, truths = scene(6, images=5)
    images, annotations, rows = [], [], []
    for k, (name, ids) in enumerate(truths.items()):
        for folder, values in (("gt", ids), ("pred", ids)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(values.astype(np.uint16)).save(tmp_path / folder / f"{name}.png")
        images.append({"id": k, "file_name": f"{name}.jpg", "height": SHAPE[0], "width": SHAPE[1]})
        for value in np.unique(ids[ids > 0]):
            annotations.append({"id": len(annotations), "image_id": k, "segmentation": encoded(ids == value)})
        for mask, score in predictions[name]:
            rows.append({"image_id": name, "category_id": 1, "segmentation": encoded(mask), "score": score})
    (tmp_path / "gt.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    (tmp_path / "pred.json").write_text(json.dumps(rows))

    (from_file, names), (from_folder, _) = read_truths(tmp_path / "gt.json"), read_truths(tmp_path / "gt")
    assert from_file == from_folder == {name: as_regions(ids) for name, ids in truths.items()}
    read = read_predictions(tmp_path / "pred.json", truths, names)
    assert evaluate_instances(read, from_file) == evaluate_instances(predictions, truths)
    perfect = read_predictions(tmp_path / "pred", truths)
    assert evaluate_instances(perfect, truths)["AP"] == pytest.approx(1)
    (tmp_path / "pred" / "00.png").unlink()
    with pytest.raises(MeasureError, match="1 missing: 00"):
        evaluate_instances(read_predictions(tmp_path / "pred", truths), truths)
    (tmp_path / "pred.json").write_text("[")
    with pytest.raises(MeasureError, match="not valid JSON"):
        read_predictions(tmp_path / "pred.json", truths)


def test_polygons(tmp_path):
    square = {"id": 1, "image_id": 7, "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]}
    image = {"id": 7, "file_name": "x.jpg", "height": 20, "width": 20}
    (tmp_path / "gt.json").write_text(json.dumps({"images": [image], "annotations": [square]}))
    truths, _ = read_truths(tmp_path)
    assert area(truths["x"].instances[0]) == 100
