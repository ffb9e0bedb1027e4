import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_r1.metrics import MeasureError, Pair, Protocol, Truth, iou, s_measure, sm_and_iou
from saliency_r1.metrics.saliency import to_levels
from saliency_r1.metrics.truth import DEFAULT

from .maps import KINDS, make, pysodmetrics, truth

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40)).filter(lambda size: size != (1, 1))


def check(pred, gt, protocol=DEFAULT, oracle=None):
    """Compare with PySODMetrics; return the pair."""
    expected, curves = oracle or pysodmetrics(pred, gt)
    pair = Pair(pred, Truth(gt), protocol)
    for key, value in pair.scores().items():
        if np.isnan(expected[key]):  # an empty quadrant, see test_a_quadrant_without_pixels_counts_nothing
            assert 0 <= value <= 1, key
        else:
            assert value == pytest.approx(expected[key], abs=1e-12), key
    for key, curve in curves.items():
        np.testing.assert_allclose(getattr(pair.curves, key), curve, atol=1e-12, rtol=0, err_msg=key)
    return pair


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from(KINDS), SIZES, st.integers(0, 2**32 - 1))
def test_equals_pysodmetrics(kind, gt_kind, size, seed):
    rng = np.random.default_rng(seed)
    check(make(kind, rng, *size), truth(gt_kind, rng, *size))


@pytest.mark.parametrize("kind", KINDS)
def test_equals_pysodmetrics_at_the_size_of_photos(kind):
    rng = np.random.default_rng(0)
    check(make(kind, rng, 240, 330), truth("binary", rng, 240, 330))


@pytest.mark.parametrize("kind", KINDS)
def test_without_stretching_equals_pysodmetrics_without_normalisation(kind):
    rng = np.random.default_rng(1)
    pred, gt = make(kind, rng, 50, 70), truth("blur", rng, 50, 70)
    check(pred, gt, Protocol(stretch=False), pysodmetrics(pred / 255, gt > 128, normalize=False))


def test_distant_errors_are_weighed_exactly():
    """On a wide image distances are large, and float32 must still determine them."""
    gt, pred = np.zeros((3, 3000), np.uint8), np.full((3, 3000), 128, np.uint8)
    gt[1, 5] = 255
    pred[0, 0] = 0
    check(pred, gt)


# Scores of PySODMetrics that surprise people: an empty map has F .118 (every pixel is at least 0), an empty map on an
# empty mask adaptive E 0, and stretching makes 0.4 x perfect perfect.
BLOB = np.zeros((300, 400), bool)
BLOB[100:200, 144:256] = True  # 9.33 %


@pytest.mark.parametrize(
    ("pred", "gt", "expected"),
    [
        (BLOB * 0, BLOB, {"Sm": 0.454, "MAE": 0.0933, "wFm": 0, "maxFm": 0.118, "adpFm": 0.118, "maxEm": 0.25}),
        (BLOB * 0, BLOB * 0, {"Sm": 1, "MAE": 0, "wFm": 0, "maxFm": 0, "adpFm": 0, "maxEm": 1, "adpEm": 0}),
        (BLOB * 255, BLOB, {"Sm": 1, "MAE": 0, "wFm": 1, "maxFm": 1, "adpFm": 1, "maxEm": 1, "adpEm": 1, "IoU": 1}),
        (BLOB * 102, BLOB, {"Sm": 1, "MAE": 0, "wFm": 1, "maxFm": 1, "adpFm": 1, "maxEm": 1, "adpEm": 1, "IoU": 1}),
        (BLOB * 1, BLOB, {"Sm": 1, "MAE": 0, "wFm": 1, "maxFm": 1, "adpFm": 1, "maxEm": 1, "adpEm": 1, "IoU": 1}),
    ],
)
def test_degenerate_cases(pred, gt, expected):
    scores = Pair(pred.astype(np.uint8), gt.astype(bool)).scores()
    assert {key: scores[key] for key in expected} == pytest.approx(expected, abs=1e-3)


def test_by_hand():
    """Two pixels of four are right, one is missed: TP 1, FP 0, FN 1 at every threshold above 0."""
    pair = Pair(np.array([[255, 0], [0, 0]], np.uint8), np.array([[True, True], [False, False]]))
    assert pair.mae == 0.25
    assert pair.overlap == (0.5, 2 / 3)
    assert pair.curves.precision[1:].tolist() == [1] * 255
    assert pair.curves.recall.tolist() == [1] + [0.5] * 255
    assert pair.curves.f[1:] == pytest.approx(1.3 * 0.5 / 0.8)
    assert pair.curves.precision[0] == 0.5


def test_a_map_of_one_pixel_has_scores():
    one = np.ones((1, 1), bool)
    scores = Pair(one, one).scores()
    assert scores.pop("MAE") == 0
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))
    assert Pair(~one, ~one).s_measure == 1
    assert Pair(one, ~one).s_measure == 0


def test_a_quadrant_without_pixels_counts_nothing():
    """The centroid lies in the last row; PySODMetrics returns nan."""
    gt = np.zeros((6, 6), bool)
    gt[5] = True
    assert Pair(gt, gt).s_measure == pytest.approx(1)


@pytest.mark.parametrize("empty", ["zero", "agree"])
def test_rule_for_an_empty_truth(empty):
    nothing = np.zeros((4, 5), bool)
    scores = Pair(nothing, nothing, Protocol(empty=empty)).scores()
    for key in ("wFm", "maxFm", "adpFm", "IoU", "Dice"):
        assert scores[key] == (empty == "agree")
    something = nothing.copy()
    something[0, 0] = True
    scores = Pair(something, nothing, Protocol(empty=empty)).scores()
    assert [scores[key] for key in ("wFm", "adpFm", "IoU", "Dice")] == [0, 0, 0, 0]


def test_thresholds_of_the_cosod_evaluators():
    """By the definition: map >= linspace(0, 1 - 1e-10, 255)."""
    rng = np.random.default_rng(2)
    pred, gt = make("blur", rng, 30, 40), truth("binary", rng, 30, 40) > 128
    curves = Pair(pred, gt, Protocol(thresholds=255, stretch=False)).curves
    for k, threshold in enumerate(np.linspace(0, 1 - 1e-10, 255)):
        selected = pred / 255 >= threshold
        hits = np.count_nonzero(selected & gt)
        assert curves.precision[k] == hits / max(np.count_nonzero(selected), 1)
        assert curves.recall[k] == hits / np.count_nonzero(gt)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), SIZES, st.integers(0, 2**32 - 1))
def test_flipping_and_transposing(kind, size, seed):
    """All measures but Sm (whose centroid is shifted by one pixel) and wF (ties between pixels) are symmetric."""
    rng = np.random.default_rng(seed)
    pred, gt = make(kind, rng, *size), truth("binary", rng, *size)
    scores = Pair(pred, gt).scores()
    for turned in (np.flipud, np.fliplr, np.transpose):
        other = Pair(turned(pred), turned(gt)).scores()
        for key in scores.keys() - {"Sm", "wFm"}:
            assert other[key] == pytest.approx(scores[key], abs=1e-12)
    assert Pair(pred.T, gt.T).s_measure == pytest.approx(scores["Sm"], abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_worse_maps_score_worse(seed):
    """Turning right pixels of a perfect map wrong, in stages."""
    rng = np.random.default_rng(seed)
    gt = truth("binary", rng, 40, 50) > 128
    order = rng.permutation(gt.size)
    before = None
    for wrong in (0, 20, 200, 600):
        pred = gt.copy()
        pred.ravel()[order[:wrong]] ^= True
        scores = Pair(pred, gt).scores()
        if before:
            assert scores["MAE"] > before["MAE"]
            assert all(scores[key] < before[key] for key in ("wFm", "IoU", "Dice", "adpFm", "adpEm"))
        before = scores


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from(KINDS), SIZES, st.integers(0, 2**32 - 1))
def test_measures_stay_in_bounds(kind, gt_kind, size, seed):
    rng = np.random.default_rng(seed)
    scores = Pair(make(kind, rng, *size), truth(gt_kind, rng, *size)).scores()
    # E is normalised by one pixel less than there are, as published.
    spare = size[0] * size[1] / (size[0] * size[1] - 1)
    for key, value in scores.items():
        assert 0 <= value <= (spare if "Em" in key else 1) + 1e-12, key


def test_reward_functions_agree_with_the_evaluation():
    rng = np.random.default_rng(3)
    preds = [make(kind, rng, 40, 50) for kind in ("noise", "binary", "empty")]
    gt = truth("binary", rng, 40, 50) > 128
    pairs = [Pair(pred, gt) for pred in preds]
    sm, overlap = sm_and_iou(preds, gt)
    assert sm.tolist() == [pair.s_measure for pair in pairs] == s_measure(np.stack(preds), gt).tolist()
    assert overlap.tolist() == [pair.overlap[0] for pair in pairs] == iou(preds, [gt] * 3).tolist()
    assert s_measure(preds[0], gt) == sm[0]
    assert iou(preds[0], gt) == overlap[0]
    assert s_measure(preds[1] > 0, gt) == sm[1]
    assert s_measure((preds[0] / 255).astype(np.float32), Truth(gt)) == sm[0]
    assert [len(scores) for scores in sm_and_iou([], gt)] == [0, 0]
    with pytest.raises(ValueError, match="shorter"):
        sm_and_iou(preds, [gt, gt])


def test_types_of_maps():
    assert to_levels(np.array([[0, 257, 65535]], np.uint16)).tolist() == [[0, 1, 255]]
    assert to_levels(np.array([[0, 0.5, 1]], np.float32)).tolist() == [[0, 127, 255]], "one half is not above it"
    assert to_levels(np.nextafter(np.array([[0.5]], np.float32), np.float32(1))).tolist() == [[128]]
    assert to_levels(np.array([[True, False]])).tolist() == [[255, 0]]
    with pytest.raises(TypeError, match="int64"):
        to_levels(np.zeros((2, 2), np.int64))
    for wrong in (1.1, -0.1, np.nan):
        with pytest.raises(MeasureError, match=r"\[0, 1\]"):
            to_levels(np.full((2, 2), wrong))


def test_refusals():
    with pytest.raises(MeasureError, match="values up to 1, none above 128"):
        Truth(np.eye(3, dtype=np.uint8))
    for wrong in (np.nan, -1.0, np.inf):
        gt = np.eye(3) * 255
        gt[0, 1] = wrong
        with pytest.raises(MeasureError, match="expected 0 to 255 or bool: pass the mask"):
            Truth(gt)
    with pytest.raises(MeasureError, match="values from -1 to 0"):
        Truth(-np.eye(3, dtype=np.int8))
    with pytest.raises(MeasureError, match="height and width"):
        Truth(np.zeros((2, 2, 3), bool))
    with pytest.raises(MeasureError, match=r"\(2, 3\).*\(3, 2\)"):
        Pair(np.zeros((2, 3), bool), np.zeros((3, 2), bool))


def test_a_truth_can_be_kept_for_many_predictions():
    """The kept terms hold for predictions with a larger reach than the first."""
    rng = np.random.default_rng(4)
    gt = np.zeros((60, 80), np.uint8)
    gt[20:30, 20:40] = 255
    kept = Truth(gt)
    small = np.zeros_like(gt)
    small[22:35, 22:50] = 200
    for pred in (small, make("noise", rng, 60, 80), small, make("empty", rng, 60, 80)):
        assert Pair(pred, kept).weighted_f == pytest.approx(pysodmetrics(pred, gt)[0]["wFm"], abs=1e-12)


def test_protocols_carry_their_name():
    assert Protocol().name == "pysodmetrics"
    assert Protocol(stretch=False, thresholds=255).name == "pysodmetrics stretch=False thresholds=255"
