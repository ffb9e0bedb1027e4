"""The folder that is handed on, where a run has no numbers for it."""

import json
from pathlib import Path

import pytest

from saliency_r1.registry.package import PackageError, package


def test_a_run_that_has_not_measured_the_model_is_told_what_to_add(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    for name in ("metrics", "intervals"):
        (tmp_path / "metrics" / f"{name}.json").write_text(json.dumps({"base": {"D": {"Sm": 0.5}}}))
    with pytest.raises(PackageError, match=r"no numbers of cgpo.*expected cgpo in masks\.models; add it"):
        package(tmp_path, tmp_path / "params.yaml", "a title", tmp_path / "model")
