"""A project with a toy catalogue, empty or with results to be kept intact."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .toys import Project, contents, pairs


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def finished(project: Project, tmp_path: Path) -> Callable[[], None]:
    """A project with results; call it afterwards to assert that they are still what they were."""
    project.add("good", pairs(tmp_path / "good", 2, seed=100), count=2)
    project.run(["good"])
    before = contents(project.root / "artifacts")

    def unchanged() -> None:
        assert contents(project.root / "artifacts") == before

    return unchanged
