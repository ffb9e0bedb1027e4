"""The folder that is handed on: where a run has no numbers for it, and where its bases are."""

import json
from pathlib import Path

import pytest

from saliency_r1.prediction import hub
from saliency_r1.prediction.models import packaged
from saliency_r1.registry.package import PackageError, base, package


def test_a_run_that_has_not_measured_the_model_is_told_what_to_add(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    for name in ("metrics", "intervals"):
        (tmp_path / "metrics" / f"{name}.json").write_text(json.dumps({"base": {"D": {"Sm": 0.5}}}))
    with pytest.raises(PackageError, match=r"no numbers of cgpo.*expected cgpo in masks\.models; add it"):
        package(tmp_path, tmp_path / "params.yaml", "a title", tmp_path / "model")


def test_a_base_lies_in_the_folder_or_is_fetched_as_any_model_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"policy": {"source": "owner/model", "revision": "abc"}, "segmenter": {"source": "models/segmenter"}}
    (tmp_path / "model.json").write_text(json.dumps(about))
    (tmp_path / "segmenter").mkdir()
    asked: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr(hub, "fetch", lambda name, files: asked.append((name, files)) or tmp_path)
    assert packaged(tmp_path, "segmenter") == tmp_path / "segmenter"
    assert packaged(tmp_path, "policy") == tmp_path
    assert asked == [("owner/model@abc", hub.MODEL_FILES)], "and no pickles"


@pytest.mark.parametrize("content", ["", "[]", '{"policy": {"revision": "abc"}}'])
def test_a_folder_that_does_not_say_where_its_bases_are_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(PackageError, match=r"model\.json does not say where the policy comes from"):
        base(tmp_path, "policy")
