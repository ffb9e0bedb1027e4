import numpy as np
import pytest
from PIL import Image

from saliency_r1.evaluation.detections import read_truths
from saliency_r1.evaluation.folders import Unreadable, find_maps, match, read_ids, read_map, read_truth, score_folders
from saliency_r1.evaluation.outputs import check_outputs
from saliency_r1.metrics import MeasureError, Pair, Truth

RAMP = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4)


def save(path, values, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.fixture
def folders(tmp_path):
    """Three ground truths and perfect predictions."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        mask = np.where(rng.random((20, 30)) > 0.5, 255, 0).astype(np.uint8)
        save(tmp_path / "gt" / f"{name}.png", mask)
        save(tmp_path / "pred" / f"{name}.png", mask)
    return tmp_path / "pred", tmp_path / "gt"


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_grey_in_any_dress(tmp_path, mode):
    assert (read_map(save(tmp_path / "x.png", RAMP, mode)) == RAMP).all()


def test_palettes_mean_their_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 255, 255, 128, 128, 128])
    image.save(tmp_path / "x.png")
    assert read_map(tmp_path / "x.png").tolist() == [[0, 255, 128]]
    assert read_ids(tmp_path / "x.png").tolist() == [[0, 1, 2]]


def test_sixteen_and_one_bit(tmp_path):
    assert (read_map(save(tmp_path / "x.png", RAMP.astype(np.uint16) * 257 + 100)) == RAMP).all()
    assert read_map(save(tmp_path / "y.png", RAMP > 100)).tolist() == np.where(RAMP > 100, 255, 0).tolist()


def test_alpha_that_contradicts_the_colours_is_refused(tmp_path):
    values = np.dstack([RAMP, RAMP, RAMP, 255 - RAMP])
    with pytest.raises(Unreadable, match="another one in its alpha channel"):
        read_map(save(tmp_path / "x.png", values))


def test_other_formats_and_names(tmp_path):
    assert (read_map(save(tmp_path / "Bäume" / "ü.bmp", RAMP)) == RAMP).all()
    flat = np.full((8, 8), 200, np.uint8)
    assert (read_map(save(tmp_path / "x.jpg", flat)) == flat).all()


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n half of one"])
def test_unreadable(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    for read in (read_map, read_ids, read_truth):
        with pytest.raises(Unreadable, match=r"x\.png is not a readable image"):
            read(tmp_path / "x.png")


def test_dark_colours_are_no_sixteen_bits(tmp_path):
    dark = np.dstack([RAMP * 0, RAMP * 0, RAMP])
    assert read_map(save(tmp_path / "x.png", dark), stretch=False).max() == 25


def test_maps_stored_as_zero_and_one(tmp_path):
    """As a prediction stretching makes them what they mean; as a ground truth they would be silently empty."""
    mask = (RAMP > 100).astype(np.uint8)
    path = save(tmp_path / "x.png", mask)
    assert Pair(read_map(path), Truth(mask > 0)).s_measure == pytest.approx(1)
    with pytest.raises(MeasureError, match=r"x\.png: values 0, 1, none of them above 128: --gt-threshold 0"):
        read_truth(path)


def test_instance_colours(tmp_path):
    colours = np.array([[[0, 0, 0], [9, 0, 0]], [[0, 7, 0], [9, 0, 0]]], np.uint8)
    ids = read_ids(save(tmp_path / "x.png", colours))
    assert ids[0, 0] == 0
    assert ids[0, 1] == ids[1, 1] != ids[1, 0] != 0
    assert read_ids(save(tmp_path / "y.png", np.array([[0, 300]], np.uint16))).tolist() == [[0, 300]]


def test_names(tmp_path):
    """Extension and case do not matter, a mask beats the photo beside it, and affixes can be taken off."""
    for name in ("img/A.1.png", "img/A.1.jpg", "img/b.PNG", ".hidden.png"):
        save(tmp_path / name, RAMP)
    assert list(find_maps(tmp_path)) == ["img/A.1", "img/b"]
    assert find_maps(tmp_path)["img/A.1"].suffix == ".png"
    truths = dict.fromkeys(["img/a.1", "img/b", "img/c"])
    matched, problems = match(find_maps(tmp_path), truths)
    assert set(matched) == {"img/a.1", "img/b"}
    assert (problems.missing, problems.surplus) == (["img/c"], [])
    save(tmp_path / "sal" / "m_x_out.png", RAMP)
    assert list(find_maps(tmp_path / "sal", "m_", "_out")) == ["x"]
    with pytest.raises(MeasureError, match="no image"):
        find_maps(tmp_path / "sal", "other_")
    with pytest.raises(MeasureError, match="not a folder"):
        find_maps(tmp_path / "nowhere")
    save(tmp_path / "sal" / "m_x_out.bmp", RAMP)
    with pytest.raises(MeasureError, match="two maps"):
        find_maps(tmp_path / "sal")


def test_two_jpegs_of_a_name(tmp_path):
    for name in ("a.jpeg", "a.jpg"):
        save(tmp_path / name, RAMP)
    with pytest.raises(MeasureError, match=r"two maps of the name a: .*a\.jpeg and .*a\.jpg"):
        find_maps(tmp_path)
    save(tmp_path / "a.png", RAMP)
    assert find_maps(tmp_path)["a"].suffix == ".png"


def test_ambiguous_case_does_not_match():
    _, problems = match(dict.fromkeys(["X", "x "]), dict.fromkeys(["x", "x "]))
    assert not problems.missing
    matched, problems = match(dict.fromkeys(["AB", "aB"]), dict.fromkeys(["ab"]))
    assert not matched
    assert problems.surplus == ["AB", "aB"]


def test_whole_folders(folders):
    seen = []
    score = score_folders(*folders, expected=[3], bootstrap=20, progress=lambda done, total: seen.append((done, total)))
    assert score.evaluator.compute()["Sm"] == pytest.approx(1)
    assert (len(score.evaluator), score.scored_as_empty, seen[-1]) == (3, 0, (3, 3))
    with pytest.raises(MeasureError, match="holds 3 ground truths, the data set has 4 or 5"):
        score_folders(*folders, expected=[4, 5])


def spoil(pred):
    (pred / "a.png").unlink()
    (pred / "b.png").write_bytes(b"nothing")
    save(pred / "c.png", np.zeros((20, 31), np.uint8))
    save(pred / "d.png", RAMP)


def test_every_problem_is_named(folders):
    spoil(folders[0])
    with pytest.raises(MeasureError, match=r"(?s)1 missing: a.*1 surplus: d"):
        score_folders(*folders)
    save(folders[0] / "a.png", np.zeros((20, 30), np.uint8))
    (folders[0] / "d.png").unlink()
    with pytest.raises(MeasureError, match=r"(?s)1 unreadable: b.*1 of another size.*: c"):
        score_folders(*folders)


def test_what_is_missing_scores_as_an_empty_map(folders):
    spoil(folders[0])
    score = score_folders(*folders, missing="zero")
    assert score.scored_as_empty == 3
    assert score.problems.surplus == ["d"]
    rows = {row["name"]: row for row in score.evaluator.rows()}
    truth = read_truth(folders[1] / "a.png")
    assert rows["a"]["Sm"] == Pair(np.zeros((20, 30), np.uint8), truth).s_measure
    assert [rows[name]["IoU"] for name in "abc"] == [0, 0, 0]


def test_one_pixel_too_many(folders):
    save(folders[0] / "c.png", np.zeros((20, 31), np.uint8))
    with pytest.raises(MeasureError, match="--resize"):
        score_folders(*folders)
    score = score_folders(*folders, resize=True)
    assert score.problems.resized == ["c"]
    assert len(score.evaluator) == 3


def test_groups_are_folders(folders):
    pred, gt = folders
    with pytest.raises(MeasureError, match="outside of one: a, b, c"):
        score_folders(pred, gt, grouped=True)
    for folder in folders:
        for name, group in (("a", "one"), ("b", "two"), ("c", "two")):
            (folder / group).mkdir(exist_ok=True)
            (folder / f"{name}.png").rename(folder / group / f"{name}.png")
    assert set(score_folders(pred, gt, grouped=True).evaluator.groups()) == {"one", "two"}


@pytest.mark.slow
def test_processes_agree_with_one(tmp_path):
    rng = np.random.default_rng(1)
    for k in range(130):
        save(tmp_path / "pred" / f"{k}.png", rng.integers(0, 256, (9, 9), dtype=np.uint8))
        save(tmp_path / "gt" / f"{k}.png", np.where(rng.random((9, 9)) > 0.5, 255, 0).astype(np.uint8))
    one, two = (score_folders(tmp_path / "pred", tmp_path / "gt", workers=workers, bootstrap=10) for workers in (1, 2))
    assert one.evaluator.compute() == two.evaluator.compute()
    assert one.evaluator.rows() == two.evaluator.rows()


@pytest.mark.slow
def test_a_folder_of_twenty_thousand_maps(tmp_path):
    """Nothing grows with the folder but the table, nothing is left out: four images, five thousand times."""
    rng = np.random.default_rng(2)
    first = []
    for k in range(4):
        first.append(save(tmp_path / "few/pred" / f"{k}.png", rng.integers(0, 256, (20, 30), dtype=np.uint8)))
        mask = np.where(rng.random((20, 30)) > 0.5, 255, 0).astype(np.uint8)
        first.append(save(tmp_path / "few/gt" / f"{k}.png", mask))
    for path in first:
        folder = tmp_path / "many" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(5_000):
            (folder / f"{path.stem}-{k:04}.png").hardlink_to(path)
    few, many = (score_folders(tmp_path / kind / "pred", tmp_path / kind / "gt") for kind in ("few", "many"))
    assert len(many.evaluator.rows()) == 20_000
    assert many.evaluator.compute() == pytest.approx(few.evaluator.compute(), abs=1e-12)


def test_one_replicate_that_is_empty_gives_no_interval(folders, tmp_path):
    """Of the name `img2` the one replicate draws none."""
    for folder in folders:
        save(tmp_path / "one" / folder.name / "img2.png", np.asarray(Image.open(folder / "a.png")))
    score = score_folders(tmp_path / "one/pred", tmp_path / "one/gt", bootstrap=1)
    assert score.evaluator.intervals() == {}
    assert score.evaluator.compare(score.evaluator) == {}


def test_numbers_are_not_written_between_id_maps(folders, tmp_path):
    """A folder with a JSON file in it is read as COCO results."""
    pred, gt = folders
    with pytest.raises(MeasureError, match="between the inputs"):
        check_outputs([pred / "scores.json"], [pred, gt])
    (pred / "deeper").mkdir()
    check_outputs([pred / "deeper/scores.json", tmp_path / "scores.json"], [pred, gt])


@pytest.fixture
def beside(folders):
    """The folders with a photo beside every map and mask, as `Imgs` of MSRA10K."""
    photo = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for folder in folders:
        for name in "abc":
            save(folder / f"{name}.jpg", photo)
    return folders


def test_a_photo_without_its_map_is_a_missing_prediction(beside):
    pred, gt = beside
    assert score_folders(pred, gt).evaluator.compute()["Sm"] == pytest.approx(1)
    (pred / "b.png").unlink()
    with pytest.raises(MeasureError, match="1 missing: b"):
        score_folders(pred, gt)
    assert score_folders(pred, gt, missing="zero").scored_as_empty == 1


@pytest.mark.parametrize("missing", ["error", "zero"])
def test_a_photo_without_its_mask_is_no_ground_truth(beside, missing):
    pred, gt = beside
    (gt / "b.png").unlink()
    with pytest.raises(MeasureError, match=r"gt: 1 photos without a mask.*: b\. Add"):
        score_folders(pred, gt, missing=missing)
    with pytest.raises(MeasureError, match="1 photos without a mask"):
        read_truths(gt)


def test_maps_of_which_some_are_jpegs_stay_maps(folders):
    pred, gt = folders
    save(pred / "b.jpg", np.asarray(Image.open(pred / "b.png")))
    (pred / "b.png").unlink()
    assert len(score_folders(pred, gt).evaluator) == 3
