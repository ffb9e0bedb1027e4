"""What a person waits for: cold starts of the command line, and pictures a second in batches.

    python benchmarks/front.py --images 64 --repeat 3

Times are processor seconds (user and system, all threads), the least of the repetitions, so that other work on the
machine counts little. Cold starts are given as ratios to two imports in processes of their own: `torch, transformers`,
which reads no model's code yet, and the two classes of transformers that load any model and its processor, which nobody
who runs one comes round. Writes benchmarks/front.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "saliency_r1.cli"]
MODELS = ["--policy", "artifacts/download/models/policy", "--adapter", "artifacts/cgpo/adapter"]
BATCHES = (1, 4, 8, 16, 32)
LIBRARIES = "import torch, transformers"
CLASSES = "from transformers import AutoModelForImageTextToText, AutoProcessor"


def spent(call: Sequence[str], cwd: Path) -> float:
    """Processor seconds of a process and those it started. Raises `CalledProcessError` if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(call, cwd=cwd, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cold_starts(tree: Path, pictures: Sequence[Path], repeat: int) -> dict[str, float]:
    """Seconds of each command in a new process, and of the import that they are compared with."""
    with tempfile.TemporaryDirectory() as scratch:
        for kind in ("maps", "masks"):
            (Path(scratch) / kind).mkdir()
            for number in range(10):
                mask = np.zeros((300, 400), np.uint8)
                mask[50 : 150 + number, 80:200] = 255
                Image.fromarray(mask).save(Path(scratch) / kind / f"{number}.png")
        calls = {
            LIBRARIES: [sys.executable, "-c", LIBRARIES],
            CLASSES: [sys.executable, "-c", f"import torch; {CLASSES}"],
            "--help": [*COMMAND, "--help"],
            "evaluate, 10 images": [*COMMAND, "evaluate", "--pred", f"{scratch}/maps", "--gt", f"{scratch}/masks"],
            "predict, 1 picture": [*COMMAND, "predict", str(pictures[0]), "--out", f"{scratch}/out", *MODELS],
        }
        for call in calls.values():
            spent(call, tree)  # once for compiled modules and the disk's cache
        # In turns: what else the machine does is the same for all.
        rounds = [{name: spent(call, tree) for name, call in calls.items()} for _ in range(repeat)]
        return {name: min(one[name] for one in rounds) for name in calls}


def throughput(tree: Path, pictures: Sequence[Path], repeat: int) -> dict[str, float]:
    """Processor seconds a picture, on one thread, by the number of prompts that are answered at once."""
    from saliency_r1.params import load_params
    from saliency_r1.prediction import Answer
    from saliency_r1.prediction.models import Chosen, Settings, load

    settings = Settings.of(load_params(tree / "params.yaml"))
    models = tree / "artifacts/download/models"
    chosen = Chosen("cgpo", models / "policy", tree / "artifacts/cgpo/adapter", models / "segmenter", settings)
    predictor = load(chosen)
    prompts = [[path] for path in pictures]

    def seconds(batch: int) -> float:
        start = time.process_time()
        outcomes = list(predictor.predict_many(prompts, "sod", batch))
        spent = time.process_time() - start
        if not all(isinstance(outcome, Answer) for outcome in outcomes):
            raise RuntimeError("a picture has no answer")
        return spent / len(prompts)

    seconds(BATCHES[-1])
    return {str(batch): least(lambda batch=batch: seconds(batch), repeat) for batch in BATCHES}  # type: ignore[misc]


def least(measure: Callable[[], float], repeat: int) -> float:
    """The least of several measurements."""
    return min(measure() for _ in range(repeat))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=ROOT, help="a clone in which `dvc repro` has run")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    tree = arguments.tree.resolve()
    pictures = sorted((tree / "artifacts/download/datasets").glob("scenes-sod/test/images/*"))[: arguments.images]
    starts = cold_starts(tree, pictures, arguments.repeat)
    each = throughput(tree, pictures, arguments.repeat)
    result = {
        "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
        "cold starts": {
            name: {
                "seconds": round(value, 2),
                "ratio": round(value / starts[LIBRARIES], 2),
                "ratio to the classes": round(value / starts[CLASSES], 2),
            }
            for name, value in starts.items()
        },
        "batches": {
            batch: {"seconds a picture": round(value, 4), "times as fast as 1": round(each["1"] / value, 2)}
            for batch, value in each.items()
        },
    }
    (ROOT / "benchmarks/front.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
