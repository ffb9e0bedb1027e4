"""Rewards: hand-computed values, and that no trick beats an honest answer."""

import numpy as np
import pytest

from saliency_r1 import cot, tasks
from saliency_r1.segmenter import Segment
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
        "<think>because</think><answer></answer>",
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
