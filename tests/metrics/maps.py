"""Maps of every kind, and what PySODMetrics says about them."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

KINDS = ("noise", "blur", "binary", "constant", "empty", "full", "few", "blocks", "point")
PARITY = Path(__file__).parents[2].parent / "shared" / "data" / "parity"


def parity(*parts):
    """A folder of the parity data, or a skip that says why."""
    folder = PARITY.joinpath(*parts)
    if not folder.exists():
        pytest.skip(f"no parity data at ../shared/data/parity/{'/'.join(parts)}")
    return folder


def make(kind, rng, height, width):
    """A uint8 map of a kind."""
    noise = rng.integers(0, 256, (height, width), dtype=np.uint8)
    if kind == "noise":
        return noise
    if kind == "blur":
        return cv2.GaussianBlur(noise, (0, 0), max(height / 10, 0.8))
    if kind == "binary":
        return np.where(cv2.GaussianBlur(noise.astype(float), (0, 0), max(height / 10, 0.8)) > 127, 255, 0).astype(
            np.uint8
        )
    if kind == "few":
        return rng.choice(np.array([0, 51, 102, 128, 204, 255], np.uint8), (height, width))
    if kind == "blocks":
        return np.kron(noise[::4, ::4], np.ones((4, 4), np.uint8))[:height, :width].copy()
    if kind == "point":
        point = np.zeros((height, width), np.uint8)
        point[rng.integers(height), rng.integers(width)] = 255
        return point
    return np.full((height, width), {"constant": int(rng.integers(256)), "empty": 0, "full": 255}[kind], np.uint8)


def truth(kind, rng, height, width):
    """A uint8 mask of 0 and 255."""
    return np.where(make(kind, rng, height, width) > 128, 255, 0).astype(np.uint8)


def pysodmetrics(pred, gt, normalize=True):
    """Its scores and curves for one pair, thresholds rising."""
    import py_sod_metrics as oracle

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [oracle.Smeasure(), oracle.Emeasure(), oracle.Fmeasure(), oracle.MAE(), oracle.WeightedFmeasure()]
        handlers = {
            "IoU": oracle.IOUHandler(False, False, with_binary=True),
            "Dice": oracle.DICEHandler(False, False, with_binary=True),
        }
        parts.append(oracle.FmeasureV2(handlers))
        for part in parts:
            part.step(pred, gt, normalize=normalize)
        s, e, f, mae, wf, both = (part.get_results() for part in parts)
    return {
        "Sm": s["sm"],
        "MAE": mae["mae"],
        "wFm": wf["wfm"],
        "adpFm": f["fm"]["adp"],
        "adpEm": e["em"]["adp"],
        "maxFm": f["fm"]["curve"].max(),
        "meanFm": f["fm"]["curve"].mean(),
        "maxEm": e["em"]["curve"].max(),
        "meanEm": e["em"]["curve"].mean(),
        "IoU": both["IoU"]["binary"],
        "Dice": both["Dice"]["binary"],
    }, {
        "precision": f["pr"]["p"][::-1],
        "recall": f["pr"]["r"][::-1],
        "f": f["fm"]["curve"][::-1],
        "e": e["em"]["curve"][::-1],
    }
