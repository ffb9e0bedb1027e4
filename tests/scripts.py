"""The scripts of stages/, imported: what is in them can be called without a run."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@contextmanager
def imported(stage: str) -> Iterator[Any]:
    """The module `stages/<stage>.py`, which imports its neighbours by their names."""
    path = ROOT / f"stages/{stage}.py"
    spec = importlib.util.spec_from_file_location(f"{stage}_stage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(path.parent))
        sys.modules.pop("own_tree", None)
