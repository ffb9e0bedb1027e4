"""Scores that others published for maps that are there to be scored again."""

import json
import re

import numpy as np
import pytest

from saliency_r1.evaluation.folders import find_maps, read_map, score_folders
from saliency_r1.metrics import Protocol

from .maps import parity, pysodmetrics


def test_soc_toolbox():
    """ICON on SOC-AC, all nine published scores to their three digits."""
    folder = parity("soc_toolbox")
    scores = score_folders(folder / "Prediction/ICON/SOC/SOC-AC", folder / "GT/SOC/SOC-AC/mask", expected=[79])
    published = {
        "Sm": 0.832,
        "wFm": 0.767,
        "MAE": 0.066,
        "adpEm": 0.872,
        "meanEm": 0.885,
        "maxEm": 0.895,
        "adpFm": 0.782,
        "meanFm": 0.793,
        "maxFm": 0.814,
    }
    computed = scores.evaluator.compute()
    assert {key: round(computed[key], 3) for key in published} == published


def test_pysodmetrics_examples():
    """Every measure of the released version, one of three ground truths being empty."""
    folder = parity("pysodmetrics")
    computed = score_folders(folder / "test_data/preds", folder / "test_data/masks").evaluator.compute()
    published = json.loads((folder / "version_performance.json").read_text())["v1_4_0"]
    names = {"Sm": "Smeasure", "wFm": "wFmeasure", "IoU": "sample_biiou", "Dice": "sample_bidice"}
    for key in computed.keys() - {"maxFm_of_PR"}:
        assert computed[key] == pytest.approx(published[names.get(key, key)], abs=1e-12), key


@pytest.mark.parametrize("dataset", ["Dataset_1", "Dataset_2"])
@pytest.mark.parametrize("method", ["Method_1", "Method_2"])
def test_zyj_metrics(method, dataset):
    """Without stretching and with 255 thresholds, seven of nine published scores to their four digits.

    Its S does without the shifted centroid and its weighted F with another filter; there PySODMetrics, too, differs.
    """
    folder = parity("zyj_metrics")
    lines = (folder / "score/result.txt").read_text().splitlines()
    line = next(line for line in lines if dataset in line and method in line)
    published = {key: float(value) for value, key in re.findall(r"\[([\d.]+) ([\w-]+)\]", line)}
    pred, gt = folder / "pred_maps" / method / dataset, folder / "gt" / dataset
    computed = score_folders(pred, gt, protocol=Protocol(stretch=False, thresholds=255)).evaluator.compute()
    exact = {
        "mae": "MAE",
        "max-fmeasure": "maxFm",
        "mean-fmeasure": "meanFm",
        "adp-fmeasure": "adpFm",
        "max-Emeasure": "maxEm",
        "mean-Emeasure": "meanEm",
        "adp-Emeasure": "adpEm",
    }
    assert {key: round(computed[ours], 4) for key, ours in exact.items()} == {key: published[key] for key in exact}
    assert computed["Sm"] == pytest.approx(published["S-measure_alpha05"], abs=5e-4)


@pytest.mark.parametrize(
    ("pred", "gt"),
    [
        ("smeasure_demo/demo2/FG", "smeasure_demo/demo2/GT"),
        ("zyj_metrics/pred_maps/Method_1/Dataset_2", "zyj_metrics/gt/Dataset_2"),
    ],
)
def test_real_maps_equal_pysodmetrics_image_by_image(pred, gt):
    preds, gts = find_maps(parity(pred)), find_maps(parity(gt))
    rows = {row["name"]: row for row in score_folders(parity(pred), parity(gt)).evaluator.rows()}
    assert rows.keys() == gts.keys()
    for name, path in list(gts.items())[:8]:
        expected, _ = pysodmetrics(read_map(preds[name]), np.where(read_map(path) > 128, 255, 0).astype(np.uint8))
        for key, value in expected.items():
            assert rows[name][key] == pytest.approx(value, abs=1e-12), (name, key)
