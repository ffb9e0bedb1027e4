"""The embedded model, after SFT as shipped, answers photographs in form: no training has seen one.

After CGPO it does so more often (`benchmarks/photographs.py`); a training of five minutes more would show little more.
"""

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
    clone.repro("sft")
    clone.environment["PYTHONPATH"] = str(clone.folder / "src")
    command = ["benchmarks/photographs.py", *map(str, PHOTOGRAPHS), "--adapter", "artifacts/sft/adapter"]
    printed = clone.run(sys.executable, *command)
    found = json.loads(printed.splitlines()[-1])
    assert found["photographs"] > 50
    # Greedily .948, .991 where `predict` asks again. Another processor trains another model from the same seed: these
    # are bars for every one of them, below the spread of seeds.
    assert found["at_once"] >= 0.85, printed
    assert found["parsed"] >= 0.95, printed
