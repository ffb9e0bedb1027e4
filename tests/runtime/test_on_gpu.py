"""A part of the measurements that fails or takes too long leaves what it had, and says how it ended."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.on_gpu import PARTS, follow

ROOT = Path(__file__).parents[2]
BEGIN = "import sys, time; assert sys.stdin.readline() == 'go\\n'; print('{\"one\": 1}', flush=True); "


def followed(code: str, limit: float) -> tuple[dict, list[int]]:
    """What is found of a part whose process runs the code, and how many rows there were at each saving."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    )
    found, saved = {"rows": {}}, []
    follow(process, limit, found, lambda: saved.append(len(found["rows"])))
    return found, saved


def test_a_part_that_ends_has_all_its_rows_saved_as_they_come():
    found, saved = followed(BEGIN + "print('a word'); print('{\"two\": 2}')", 60)
    assert (found["rows"], found["ended"], saved) == ({"one": 1, "two": 2}, "done", [1, 2, 2])


def test_a_part_that_fails_keeps_its_rows():
    found, _ = followed(BEGIN + "sys.exit(3)", 60)
    assert (found["rows"], found["ended"]) == ({"one": 1}, "failed: 3")


def test_a_part_that_failed_before_its_turn_says_so():
    found, _ = followed("raise SystemExit(4)", 60)
    assert (found["rows"], found["ended"]) == ({}, "failed: 4")


def test_a_part_is_stopped_at_its_limit_and_keeps_its_rows():
    found, _ = followed(BEGIN + "time.sleep(600)", 5)
    assert (found["rows"], found["ended"]) == ({"one": 1}, "stopped after 5 s")
    assert found["wall_seconds"] < 60


@pytest.mark.slow
def test_the_command_goes_on_after_a_part(tmp_path):
    names = ["segmenter, float32", "segmenter, bfloat16"]
    command = [sys.executable, ROOT / "benchmarks/on_gpu.py", "--toy", "--parts", *names, "--out", tmp_path,
               "--seconds", "500"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found) == names
    assert all(part["ended"] == "done" and part["rows"]["0"]["expressions_per_second"] > 0 for part in found.values())
    assert set(names) < set(PARTS)
