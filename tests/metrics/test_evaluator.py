import pickle

import numpy as np
import pytest

from saliency_r1.metrics import MeasureError, Protocol, SaliencyEvaluator

from .maps import KINDS, make, pysodmetrics, truth


def pairs(count=9, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 40, (count, 2))
    return [
        (f"{KINDS[k % len(KINDS)]}-{k}", make(KINDS[k % len(KINDS)], rng, *size), truth("binary", rng, *size))
        for k, size in enumerate(sizes)
    ]


def filled(images, group=None, **settings):
    evaluator = SaliencyEvaluator(**settings)
    for name, pred, gt in images:
        evaluator.update(pred, gt, name, group and group(name))
    return evaluator


def test_averages_are_those_of_pysodmetrics():
    """max F and E are of the mean curve, not means of maxima."""
    images = pairs()
    scores, curves = zip(*(pysodmetrics(pred, gt) for _, pred, gt in images))
    result = filled(images).compute()
    for key in ("Sm", "wFm", "MAE", "adpFm", "adpEm", "meanFm", "meanEm", "IoU", "Dice"):
        assert result[key] == pytest.approx(np.mean([s[key] for s in scores]), abs=1e-12)
    for key, curve in (("maxFm", "f"), ("maxEm", "e")):
        assert result[key] == pytest.approx(np.mean([c[curve] for c in curves], axis=0).max(), abs=1e-12)
    precision, recall = (np.mean([c[key] for c in curves], axis=0) for key in ("precision", "recall"))
    assert result["maxFm_of_PR"] == pytest.approx((1.3 * precision * recall / (0.3 * precision + recall)).max())


def test_merging_equals_scoring_together():
    images = pairs()
    together = filled(images, bootstrap=50)
    parts = [filled(images[start::3], bootstrap=50) for start in range(3)]
    merged = pickle.loads(pickle.dumps(parts[1])).merge(parts[2]).merge(parts[0])
    assert len(merged) == len(together) == len(images)
    assert merged.compute() == pytest.approx(together.compute(), abs=1e-12)
    for key, interval in together.intervals().items():
        assert merged.intervals()[key] == pytest.approx(interval, abs=1e-12)
    assert sorted(row["name"] for row in merged.rows()) == sorted(name for name, _, _ in images)
    np.testing.assert_allclose(merged.curves().F, together.curves().F, atol=1e-12)


def test_merging_refuses_what_cannot_be_one():
    images = pairs(3)
    with pytest.raises(MeasureError, match="scored twice: noise-0"):
        filled(images).merge(filled(images[:1]))
    with pytest.raises(MeasureError, match="stretch=False"):
        filled(images).merge(SaliencyEvaluator(Protocol(stretch=False)))
    with pytest.raises(MeasureError, match="scored twice"):
        filled(images[:1] * 2)
    with pytest.raises(MeasureError, match="no image"):
        SaliencyEvaluator().compute()


def test_groups_weigh_the_same_beside_images():
    images = pairs(6)
    evaluator = filled(images, group=lambda name: "first" if name == "noise-0" else "rest")
    first, *rest = (row["Sm"] for row in evaluator.rows())
    assert evaluator.compute()["Sm"] == pytest.approx(np.mean([first, *rest]))
    assert evaluator.compute("group")["Sm"] == pytest.approx((first + np.mean(rest)) / 2)
    assert evaluator.groups()["first"]["images"] == 1
    assert evaluator.groups()["rest"]["Sm"] == pytest.approx(np.mean(rest))
    curve = (evaluator._groups["first"].values + evaluator._groups["rest"].values / 5) / 2
    assert evaluator.compute("group")["maxFm"] == pytest.approx(curve[7:263].max())


def test_rows_without_weighted_f():
    evaluator = filled(pairs(2), weighted=False)
    assert "wFm" not in evaluator.compute()
    assert "wFm" not in evaluator.rows()[0]
    assert evaluator.rows()[0]["name"] == "noise-0"


def test_intervals_cover_what_the_usual_bootstrap_covers():
    rng = np.random.default_rng(5)
    images = [(str(k), make("blur", rng, 12, 12), truth("binary", rng, 12, 12)) for k in range(60)]
    evaluator = filled(images, bootstrap=2000, weighted=False)
    values = np.array([row["Sm"] for row in evaluator.rows()])
    usual = np.quantile(values[rng.integers(0, 60, (2000, 60))].mean(1), [0.025, 0.975])
    low, high = evaluator.intervals()["Sm"]
    assert (low, high) == pytest.approx(tuple(usual), abs=0.15 * (usual[1] - usual[0]))
    assert low < evaluator.compute()["Sm"] < high


def test_intervals_over_groups_are_wider_where_groups_differ():
    rng = np.random.default_rng(6)
    images = []
    for k in range(40):
        gt = truth("binary", rng, 12, 12)
        images.append((f"{k % 4}/{k}", gt if k % 4 < 2 else 255 - gt, gt))
    alone = filled(images, bootstrap=500, weighted=False).intervals()["MAE"]
    grouped = filled(images, group=lambda name: name[0], bootstrap=500, weighted=False).intervals()["MAE"]
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_one_image_or_group_is_nothing_to_draw_from():
    """Each replicate would be the same: an interval of no width, and a difference for certain."""
    images = pairs(4)
    for some, group in ((images[:1], None), (images, lambda name: "the only one")):
        one = filled(some, group=group, bootstrap=50, weighted=False)
        other = filled([(name, 255 - gt // 2, gt) for name, _, gt in some], group=group, bootstrap=50, weighted=False)
        assert one.intervals() == {}
        assert one.compare(other) == {}
    mixed = filled(images, group=lambda name: "a" if name == images[0][0] else None, bootstrap=50, weighted=False)
    assert mixed.intervals()


@pytest.mark.parametrize("count", [2, 4])
def test_few_images_make_no_certain_difference(count):
    """By chance alone all of them are better, or all worse, in 2^(1 - n) of the cases."""
    images = pairs(count)
    better = filled([(name, gt, gt) for name, _, gt in images], bootstrap=200, weighted=False)
    worse = filled([(name, 255 - gt, gt) for name, _, gt in images], bootstrap=200, weighted=False)
    assert worse.compare(better)["MAE"].p == 2.0 ** (1 - count)


def test_paired_comparison():
    images = pairs(30)
    before = filled(images, bootstrap=500)
    worse = filled([(name, 255 - gt // 2, gt) for name, _, gt in images], bootstrap=500)
    same = before.compare(filled(images[::-1], bootstrap=500))
    assert all(abs(change.value) < 1e-12 and abs(change.high) < 1e-12 for change in same.values())
    change = before.compare(worse)["Sm"]
    assert change.value == pytest.approx(worse.compute()["Sm"] - before.compute()["Sm"])
    assert change.low < change.value < change.high
    with pytest.raises(MeasureError, match="not the same images: point-8"):
        before.compare(filled([image for image in images if image[0] != "point-8"], bootstrap=500))
    with pytest.raises(MeasureError, match="bootstrap=1000"):
        filled(images[:1]).intervals()
    with pytest.raises(MeasureError, match="names"):
        SaliencyEvaluator(bootstrap=10).update(images[0][1], images[0][2])
