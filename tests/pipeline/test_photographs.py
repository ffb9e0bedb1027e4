"""The embedded model, trained as shipped, answers photographs in form: no training has seen one."""

import json
import sys
from pathlib import Path

import pytest
from clones import Clone

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "real"
PHOTOGRAPHS = [REAL / "ecssd_60", REAL / "coco_instances_24/images", REAL / "voc_coseg_32/img"]


@pytest.mark.slow
def test_photographs_get_answers_that_parse(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip(f"no photographs in {REAL}")
    clone = Clone.of(ROOT, tmp_path / "clone")
    clone.repro("cgpo")
    clone.environment["PYTHONPATH"] = str(clone.folder / "src")
    printed = clone.run(sys.executable, "benchmarks/photographs.py", *map(str, PHOTOGRAPHS))
    found = json.loads(printed.splitlines()[-1])
    assert found["photographs"] > 50
    # .966 as committed, .940 before CGPO. Another processor trains another model from the same seed: this is the bar
    # for every one of them, below the spread of seeds. (The models before answered 6 % in form.)
    assert found["parsed"] >= 0.85, printed
