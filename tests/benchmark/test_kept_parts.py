"""Maps that are kept are of the same answers, cut into the same parts, by the same segmenter."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from saliency_r1 import cot
from saliency_r1.benchmark.errors import BenchmarkError
from saliency_r1.benchmark.run import Benchmark
from saliency_r1.params import load_params
from saliency_r1.rollout.environment import Environment
from saliency_r1.segmenter import Segment

ROOT = Path(__file__).parents[2]
SIZE, COUNT = 12, 6
ANSWER = cot.render("It stands out.", [cot.Expression("ins", 0, "the square")])


class Square:
    """A segmenter that finds a square at the same place of every image."""

    def __init__(self, place):
        self.place = place

    def encode(self, images):
        return list(images)

    def segment(self, encoded, phrases):
        logits = np.full((SIZE, SIZE), -5, np.float32)
        logits[:4, self.place : self.place + 4] = 5
        return [[Segment(logits, 0.9) for _ in each] for each in phrases]


@pytest.fixture
def world(tmp_path):
    """Samples with one instance each, where `Square(0)` finds it."""
    rows = []
    for number in range(COUNT):
        Image.new("RGB", (SIZE, SIZE)).save(tmp_path / f"{number}.jpg")
        ids = np.zeros((SIZE, SIZE), np.uint16)
        ids[:4, :4] = 1
        Image.fromarray(ids).save(tmp_path / f"{number}.png")
        keys = {"task": "sis", "dataset": "D", "split": "test", "group": None, "meta": "{}"}
        files = {"images": [f"{number}.jpg"], "masks": [f"{number}.png"], "names": [str(number)]}
        rows.append({"sample_id": f"D/test/{number}", **keys, **files, "height": [SIZE], "width": [SIZE]})
    pl.DataFrame(rows).write_parquet(tmp_path / "table.parquet")
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "models/segmenter").mkdir(parents=True)
    (tmp_path / "models/segmenter/weights").write_text("of the first")
    return tmp_path, rows


def precision(world, segmenter, size):
    folder, rows = world
    environment = Environment(segmenter, folder, load_params(ROOT / "params.yaml").rewards.model_dump(), 64, size)
    bench = Benchmark({"D": rows}, {"D": COUNT}, environment, {"seed": 0}, folder / "kept", folder / "out")
    return bench.score("mine", rows, [ANSWER] * COUNT)["measures"]["AP"]


@pytest.mark.parametrize("size", [2, 6])
def test_another_size_of_parts_loses_and_repeats_nothing(world, size):
    assert precision(world, Square(0), 3) == 1
    assert precision(world, Square(0), size) == 1


def test_another_segmenter_makes_maps_of_its_own(world):
    assert precision(world, Square(0), 3) == 1
    assert precision(world, Square(6), 3) == 1, "kept"
    (world[0] / "models/segmenter/weights").write_text("of the second")
    assert precision(world, Square(6), 3) == 0


def test_parts_that_lack_a_sample_are_an_error(world):
    folder, _ = world
    precision(world, Square(0), 3)
    (part, *_) = sorted((folder / "kept").glob("maps/*/part-*"))
    answers = json.loads((part / "answers.json").read_text())
    (part / "answers.json").write_text(json.dumps(answers[1:]))
    with pytest.raises(BenchmarkError, match="holds the maps of 5 answers that are not those of the 6 samples of D"):
        precision(world, Square(0), 3)
