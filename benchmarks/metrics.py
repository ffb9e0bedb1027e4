"""Milliseconds an image of the saliency measures beside PySODMetrics, on the same maps in one run and thread.

Five measures (S, E, F, weighted F, MAE) with a ground truth never seen before and with one that is kept, four without
weighted F, S and IoU on a batch for the reward, reading the files, two processes, and memory by number of images. The
two sides take turns and the fastest turn of each counts, in CPU time, so that other work on the machine disturbs
little; the load is printed beside the figures.

    python benchmarks/metrics.py
    python benchmarks/metrics.py --sizes 400x300 --repeats 5 --json out.json
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported: one thread means one, for both sides

import argparse
import json
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from saliency_r1.evaluation.folders import read_map, read_truth, score_folders
from saliency_r1.metrics import Pair, SaliencyEvaluator, Truth, sm_and_iou

Array = np.ndarray
BATCH = 8


def maps(width: int, height: int) -> tuple[Array, dict[str, Array]]:
    """A ground truth of a few blobs (bool) and a blurred, a noisy and a binary map (uint8)."""
    rng = np.random.default_rng(0)
    field = cv2.GaussianBlur(rng.random((height, width)), (0, 0), height / 12)
    gt = field > np.quantile(field, 0.85)
    soft = cv2.GaussianBlur(np.roll(gt, width // 80, 1).astype(float), (0, 0), height / 50)
    return gt, {
        "blurred": np.rint(255 * soft).astype(np.uint8),
        "noise": rng.integers(0, 256, (height, width), dtype=np.uint8),
        "binary": np.where(np.roll(gt, width // 80, 1), 255, 0).astype(np.uint8),
    }


def pysodmetrics(pred: Array, gt: Array, weighted: bool) -> None:
    """The five measures, or four, as its users compute them."""
    import py_sod_metrics as reference

    parts = [reference.Smeasure(), reference.Emeasure(), reference.MAE()]
    parts.append(reference.FmeasureV2({"f": reference.FmeasureHandler(with_dynamic=True, with_adaptive=True)}))
    parts += [reference.WeightedFmeasure()] * weighted
    for part in parts:
        part.step(pred, gt)


def ours(pred: Array, gt: Array | Truth, weighted: bool) -> None:
    """The same, of a ground truth that is new or kept."""
    Pair(pred, Truth.of(gt)).scores(weighted)


def pysodmetrics_reward(preds: list[Array], gt: Array) -> None:
    """S and IoU of a batch."""
    import py_sod_metrics as reference

    for pred in preds:
        reference.Smeasure().step(pred, gt)
        reference.FmeasureV2({"iou": reference.IOUHandler(False, False, with_binary=True)}).step(pred, gt)


def race(repeats: int, *contestants: Callable[[], Any]) -> list[float]:
    """CPU milliseconds of each contestant's fastest turn; they take turns."""
    best = [float("inf")] * len(contestants)
    for _ in range(repeats):
        for k, contestant in enumerate(contestants):
            start = time.process_time()
            contestant()
            best[k] = min(best[k], 1000 * (time.process_time() - start))
    return best


def measure_kernels(width: int, height: int, repeats: int) -> list[dict[str, Any]]:
    """One row a kind of map."""
    gt, kinds = maps(width, height)
    stored = np.where(gt, 255, 0).astype(np.uint8)
    rows = []
    for kind, pred in kinds.items():
        kept = Truth(gt)
        Pair(pred, kept).scores()
        batch = [np.roll(pred, k, 0) for k in range(BATCH)]
        times = race(
            repeats,
            partial(pysodmetrics, pred, stored, weighted=True),
            partial(ours, pred, gt, weighted=True),
            partial(ours, pred, kept, weighted=True),
            partial(pysodmetrics, pred, stored, weighted=False),
            partial(ours, pred, gt, weighted=False),
            partial(pysodmetrics_reward, batch, stored),
            partial(sm_and_iou, batch, gt),
        )
        five, new, again, four, new_four, reward, new_reward = times
        rows.append(
            {
                "size": f"{width}x{height}",
                "map": kind,
                "five: PySODMetrics": five,
                "no cache": new,
                "x no cache": five / new,
                "kept truth": again,
                "x kept": five / again,
                "four: PySODMetrics": four,
                "ours": new_four,
                "x four": four / new_four,
                "reward: PySODMetrics": reward / BATCH,
                "batch": new_reward / BATCH,
                "x reward": reward / new_reward,
            }
        )
    return rows


def measure_files(images: int, workers: int) -> dict[str, float]:
    """Milliseconds an image (wall clock) of whole folders with one and several processes, and of decoding alone."""
    gt, kinds = maps(400, 300)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in ("pred", "gt"):
            (root / part).mkdir()
        for k in range(images):
            cv2.imwrite(str(root / "pred" / f"{k}.png"), np.roll(kinds["blurred"], k, 1))
            cv2.imwrite(str(root / "gt" / f"{k}.png"), np.where(np.roll(gt, k, 1), 255, 0).astype(np.uint8))

        def timed(work: Callable[[], Any]) -> float:
            start = time.perf_counter()
            work()
            return 1000 * (time.perf_counter() - start) / images

        names = [f"{k}.png" for k in range(images)]
        decode = timed(lambda: [(read_map(root / "pred" / n), read_truth(root / "gt" / n)) for n in names])
        one = timed(lambda: score_folders(root / "pred", root / "gt"))
        bare = timed(lambda: score_folders(root / "pred", root / "gt", weighted=False))
        several = timed(lambda: score_folders(root / "pred", root / "gt", workers=workers))
    return {
        "decoding": decode,
        "one process": one,
        "without weighted F": bare,
        f"{workers} processes (with their start)": several,
    }


def measure_memory(images: int) -> list[float]:
    """Peak resident MiB of an evaluator with 1000 replicates after a tenth of the images, and after all."""
    gt, kinds = maps(80, 60)
    evaluator, truth, peaks = SaliencyEvaluator(bootstrap=1000, weighted=False), Truth(gt), []
    for k in range(images):
        evaluator.update(kinds["noise"], truth, str(k))
        if k + 1 in (images // 10, images):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return peaks


def main() -> None:
    """Print the tables, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["400x300", "1024x768"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--images", type=int, default=300, help="files for the folders' part")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)

    load = os.getloadavg()[0]
    print(f"load before the run {load:.1f} on {os.cpu_count()} cores; milliseconds an image, CPU time")
    kernels = []
    for size in options.sizes:
        width, height = (int(number) for number in size.split("x"))
        kernels += measure_kernels(width, height, options.repeats)
    print(" | ".join(kernels[0]))
    for row in kernels:
        print(" | ".join(value if isinstance(value, str) else f"{value:.2f}" for value in row.values()))
    files = measure_files(options.images, options.workers)
    print("folders of 400x300, milliseconds an image, wall clock:", {k: round(v, 2) for k, v in files.items()})
    memory = measure_memory(10 * options.images)
    print(
        f"peak memory after {options.images} and {10 * options.images} images: {memory[0]:.0f} and {memory[1]:.0f} MiB"
    )
    if options.json:
        content = {"load": load, "kernels": kernels, "files": files, "memory_mib": memory}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
