"""Rewards: hand-computed values, and that no trick beats an honest answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from saliency_r1 import cot, tasks
from saliency_r1.annotation.agreement import agreement
from saliency_r1.metrics import sm_and_iou
from saliency_r1.metrics.saliency import to_levels
from saliency_r1.segmenter import Segment
from saliency_r1.tasks.base import weighted
from saliency_r1.tasks.instances import matched_iou, pairwise_iou

SIDE = 24
WEIGHTS = {
    "sod": {"s_measure": 0.6, "iou": 0.3, "format": 0.1},
    "cosod": {"s_measure": 0.6, "iou": 0.3, "format": 0.1},
    "sis": {"matched_iou": 0.9, "format": 0.1},
}


def box(top, left, height=6, width=6):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + height, left : left + width] = True
    return mask


A, B, C = box(2, 2), box(2, 14), box(14, 8)
EMPTY, FULL = np.zeros((SIDE, SIDE), bool), np.ones((SIDE, SIDE), bool)


def segment(mask):
    return Segment(np.where(mask, 12.0, -12.0).astype(np.float32), 0.9)


def reward(task, masks, truth_masks, text=None):
    """The reward of an answer whose expressions lead to `masks`."""
    name = tasks.get(task).kind
    text = text or cot.render("because", [cot.Expression(name, 0, f"thing {i}") for i in range(len(masks))])
    parsed = cot.parse(text, task, len(truth_masks) if task == "cosod" else 1)
    if task == "sis":
        ids = np.zeros((SIDE, SIDE), np.uint16)
        for number, mask in enumerate(truth_masks, start=1):
            ids[mask] = number
        truth = tasks.get(task).truth([ids])
    else:
        truth = tasks.get(task).truth([mask.astype(np.uint8) * 255 for mask in truth_masks])
    segments = [segment(mask) for mask in masks[: len(parsed.expressions)]]
    prediction = tasks.get(task).predict(parsed, segments, truth.sizes)
    return tasks.get(task).reward(parsed, prediction, truth, WEIGHTS[task])


@pytest.mark.parametrize("weights", [(0.34, 0.55, 0.11), (0.3333334, 0.3333333, 0.3333335)])
def test_rounding_lifts_no_reward_above_one(weights):
    assert sum(weights) > 1
    names = ("s_measure", "iou", "format")
    assert weighted(dict.fromkeys(names, 1.0), dict(zip(names, weights))).value == 1


def test_a_perfect_answer_earns_one():
    assert reward("sod", [A | B], [A | B]).value == pytest.approx(1, abs=1e-4)
    assert reward("sod", [A, B], [A | B]).value == pytest.approx(1, abs=1e-4)
    assert reward("sis", [B, A], [A, B]).value == pytest.approx(1)
    assert reward("cosod", [A, B], [A, B]).value == pytest.approx(1, abs=1e-4)


def test_hand_computed_instances():
    half = box(2, 2, 6, 3)  # IoU 1/2 with A
    assert reward("sis", [half], [A]).components["matched_iou"] == pytest.approx(0.5)
    # One right, one missed: 2 * 1 / (1 + 2); one right, one surplus the same.
    assert reward("sis", [A], [A, B]).components["matched_iou"] == pytest.approx(2 / 3)
    assert reward("sis", [A, B], [A]).components["matched_iou"] == pytest.approx(2 / 3)
    assert reward("sis", [half, B], [A, B]).value == pytest.approx(0.9 * 0.75 + 0.1)


def test_cosod_is_the_mean_over_images():
    both, first = reward("cosod", [A, B], [A, B]), reward("cosod", [A, EMPTY], [A, B])
    assert first.components["iou"] == pytest.approx((both.components["iou"] + 0) / 2, abs=1e-6)


def test_matching_is_the_best_one_to_one():
    # Greedy matching would take 0.9 first and leave 0.1.
    ious = np.array([[0.9, 0.8], [0.85, 0.1]])
    assert matched_iou(ious) == pytest.approx((0.8 + 0.85) / 2)
    assert matched_iou(np.zeros((0, 3))) == 0


def test_pairwise_iou_of_empty_masks_is_zero():
    assert pairwise_iou([EMPTY], [A])[0, 0] == 0
    assert pairwise_iou([A], [A])[0, 0] == 1


@pytest.mark.parametrize("task", ["sod", "sis"])
@pytest.mark.parametrize(
    "trick",
    [
        "",
        "<answer></answer>",
        "<think></think><answer></answer>",
        "<answer><{kind}>the circle</{kind}></answer>",
        "<think></think><answer><{kind}>the circle</{kind}></answer>",
        "Find the salient objects in the image.",
        "<{kind}>the circle</{kind}>" * 10,
    ],
)
def test_what_does_not_parse_earns_nothing(task, trick):
    assert reward(task, [A], [A], trick.format(kind=tasks.get(task).kind) or " ").value == 0


@pytest.mark.parametrize("task", ["sod", "sis"])
def test_no_trick_beats_an_honest_answer(task):
    honest = reward(task, [A, B], [A, B] if task == "sis" else [A | B]).value
    truth = [A, B] if task == "sis" else [A | B]
    tricks = {
        "whole image": [FULL],
        "nothing found": [EMPTY],
        "ten copies": [A] * 10,
        "everything and the whole image": [A, B, FULL],
    }
    for name, masks in tricks.items():
        assert reward(task, masks, truth).value < honest - 0.05, name


def test_one_more_correct_instance_never_lowers_the_reward():
    rng = np.random.default_rng(0)
    truth = [A, B, C]
    for _ in range(50):
        masks = [box(*rng.integers(0, 16, 2)) for _ in range(rng.integers(0, 4))]
        found = {number for number, true in enumerate(truth) if any((mask == true).all() for mask in masks)}
        for number in {0, 1, 2} - found:
            before = reward("sis", masks, truth).value if masks else 0.0
            assert reward("sis", [*masks, truth[number]], truth).value >= before - 1e-9


def test_the_order_of_instances_does_not_matter():
    half = box(2, 2, 6, 3)
    assert reward("sis", [half, B, C], [A, B]).value == reward("sis", [C, B, half], [B, A]).value


def of_map(values, truth=A):
    """The reward of a SOD answer whose map has these values."""
    parsed = cot.parse(cot.render("because", [cot.Expression("rg", 0, "thing")]), "sod")
    prediction = tasks.Prediction(maps=(np.asarray(values, np.float32),))
    return tasks.get("sod").reward(parsed, prediction, tasks.SaliencyTruth((truth,)), WEIGHTS["sod"]), prediction


def test_a_faint_map_is_worth_no_more_than_an_empty_one():
    """The table stretches it to a perfect map; its mask is empty, and so it is to the reward."""
    faint = np.where(A, 0.004, 0).astype(np.float32)
    assert [float(score[0]) for score in sm_and_iou([faint], [A])] == pytest.approx([1, 1], abs=1e-3)
    earned, prediction = of_map(faint)
    nothing, _ = of_map(EMPTY)
    assert prediction.empty == 1
    assert earned.components["iou"] == 0
    assert earned.components["s_measure"] == pytest.approx(nothing.components["s_measure"], abs=0.02)


def test_a_saturated_map_is_worth_no_more_than_the_whole_image():
    saturated = np.where(A, 1, 0.98).astype(np.float32)
    assert [float(score[0]) for score in sm_and_iou([saturated], [A])] == pytest.approx([1, 1], abs=1e-3)
    earned, prediction = of_map(saturated)
    whole, _ = of_map(FULL)
    assert prediction.masks[0].all()
    assert earned.components["iou"] == whole.components["iou"] == A.mean()
    assert earned.components["s_measure"] == pytest.approx(whole.components["s_measure"], abs=0.05)


VALUES = st.floats(0, 1, width=32) | st.sampled_from(
    [0.0, 1.0, *(float(np.nextafter(np.float32(0.5), np.float32(side))) for side in (0, 1)), 0.5, 127 / 255, 128 / 255]
)


@given(arrays(np.float32, (4, 5), elements=VALUES), arrays(bool, (4, 5)))
def test_reward_consistency_picture_and_emptiness_speak_of_one_mask(values, truth):
    earned, prediction = of_map(values, truth)
    (mask,) = prediction.masks
    assert np.array_equal(to_levels(values) > 127, mask), "what a written map shows"
    union = (mask | truth).sum()
    assert earned.components["iou"] == pytest.approx((mask & truth).sum() / union if union else 1)
    assert prediction.empty == float(not mask.any())
    if not mask.any() and truth.any():
        assert earned.components["iou"] == 0
    found = [Probability(values)]
    said = [cot.Expression("rg", 0, "thing")]
    assert agreement("sod", [], said, found, tasks.SaliencyTruth((truth,))) == [earned.components["iou"]]


class Probability:
    """A segment known by its probabilities."""

    score = 1.0

    def __init__(self, values):
        self.probability = values
        self.mask = values > 0.5


SILENT = {"sod": "<answer></answer>", "sis": "<answer></answer>", "cosod": "<answer><rg></rg><rg></rg></answer>"}


@pytest.mark.parametrize("task", SILENT)
def test_saying_nothing_is_right_where_nothing_stands_out(task):
    text = f"<think>Nothing stands out.</think>{SILENT[task]}"
    nothing = {"sod": [EMPTY], "sis": [], "cosod": [EMPTY, EMPTY]}[task]
    earned = reward(task, [], nothing, text)
    assert earned.value == pytest.approx(1)
    assert set(earned.components.values()) == {1.0}


@pytest.mark.parametrize("task", SILENT)
@pytest.mark.parametrize("truth", [A, FULL, box(0, 0, 1, 1)])
def test_saying_nothing_of_what_stands_out_earns_the_form_alone(task, truth):
    """The S-measure of an empty map is about one half, and of a map with one true pixel nearly one."""
    text = f"<think>Nothing stands out.</think>{SILENT[task]}"
    masks = [truth, truth] if task == "cosod" else [truth]
    earned = reward(task, [], masks, text)
    assert earned.components == {**dict.fromkeys(WEIGHTS[task], 0.0), "format": 1.0}
    assert earned.value == pytest.approx(0.1)


def test_a_group_is_scored_image_by_image_where_the_object_is_not_in_all():
    text = "<think>because</think><answer><rg>thing</rg><rg></rg></answer>"
    assert reward("cosod", [A], [A, EMPTY], text).value == pytest.approx(1, abs=1e-4)
    half = reward("cosod", [A], [A, B], text).components
    assert half["iou"] == pytest.approx(0.5)
    assert half["s_measure"] == pytest.approx(0.5, abs=1e-4)


def test_what_is_found_where_nothing_stands_out_costs():
    """By the measures as they are: S is 1 - the mean of the map, IoU is 0 as soon as its mask has a pixel."""
    found = reward("sod", [A], [EMPTY]).components
    assert found["s_measure"] == pytest.approx(1 - A.mean(), abs=1e-4)
    assert found["iou"] == 0
    assert reward("sod", [FULL], [EMPTY]).value == pytest.approx(0.1, abs=1e-4)
    assert reward("sis", [A], []).value == pytest.approx(0.1)
    assert reward("sod", [EMPTY], [EMPTY]).value == pytest.approx(1, abs=1e-4), "a thing that is not there"


def test_the_objects_of_a_truth_are_what_stands_out():
    assert tasks.SaliencyTruth((A, EMPTY, B)).objects == 2
    assert tasks.InstanceTruth(np.zeros((4, 4), np.uint16)).objects == 0
    assert tasks.InstanceTruth(np.diag([1, 1, 7]).astype(np.uint16)).objects == 2


def test_weights_must_fit_the_components():
    with pytest.raises(ValueError, match="do not fit the components"):
        tasks.base.weighted({"iou": 1.0}, {"dice": 1.0})


def test_unknown_task_names_the_known_ones():
    with pytest.raises(ValueError, match="sod, sis, cosod"):
        tasks.get("cod")


def test_what_a_prediction_leaves_empty():
    parsed = cot.parse("<think>x</think><answer><ins>a</ins><ins>b</ins></answer>", "sis")
    instances = tasks.get("sis").predict(parsed, [segment(A), segment(EMPTY)], [(SIDE, SIDE)])
    assert instances.empty == 0.5
    unparsed = cot.parse("?", "sod")
    assert tasks.get("sod").predict(unparsed, [], [(SIDE, SIDE)]).empty == 1
    assert tasks.get("sis").predict(unparsed, [], [(SIDE, SIDE)]).empty == 1
