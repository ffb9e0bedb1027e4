"""One fresh clone with the smoke profile run once, for all tests of this folder."""

import shutil
from pathlib import Path

import pytest
from clones import Clone

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The clone after its first run."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    clone = Clone.of(ROOT, tmp_path_factory.mktemp("fresh") / "clone")
    shutil.copyfile(clone.folder / "profiles" / "smoke.yaml", clone.folder / "params.yaml")
    stages = clone.repro()
    assert {"model", "report"} <= set(stages)
    assert len(stages) == 15, stages  # params, eight stages, six gates
    return clone
