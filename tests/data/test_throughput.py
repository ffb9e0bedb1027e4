"""Importing is fast enough for the benchmarks, and its memory does not grow with the images."""

import resource
import time
from pathlib import Path

import pytest

from .toys import Project, mask, picture

PAIRS = 2_000
SECONDS = 60 / 10_000  # a pair of 400 x 300, on two cores


@pytest.mark.slow
def test_pairs_a_second(project: Project, tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / "source" / name).mkdir(parents=True)
    picture(0, (400, 300)).save(tmp_path / "image.jpg", quality=90)
    mask((400, 300)).save(tmp_path / "mask.png")
    for number in range(PAIRS):
        (tmp_path / f"source/images/{number}.jpg").hardlink_to(tmp_path / "image.jpg")
        (tmp_path / f"source/masks/{number}.png").hardlink_to(tmp_path / "mask.png")
    project.add("many", tmp_path / "source", count=PAIRS)
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    project.run()
    # processor time, which does not depend on what else the machine is doing; two cores have twice as much of it
    assert time.process_time() - start < 2 * SECONDS * PAIRS
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert grown < 100, f"{grown:.0f} MiB; the decoded images alone would take {PAIRS * 0.34:.0f}"
