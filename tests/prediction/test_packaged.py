"""How the model of a package is run: whatever version has written its parameters; what is spoilt is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from saliency_r1.params import ParamsError, load_params
from saliency_r1.prediction.models import Settings
from saliency_r1.prediction.packaged import load_packaged

ROOT = Path(__file__).parents[2]
SIZES = {"min_pixels": 3136, "max_pixels": 12544, "max_new_tokens": 77}


def written(folder: Path, **content: Any) -> Path:
    path = folder / "params.yaml"
    path.write_text(json.dumps(content))
    return path


def test_a_package_of_this_version_is_run_as_the_project_is() -> None:
    path = ROOT / "params.yaml"
    assert Settings.of(load_packaged(path)) == Settings.of(load_params(path))
    assert load_packaged(path).deciding == load_params(path).result_settings("policy")


def test_a_package_that_says_the_sizes_alone_is_run(tmp_path: Path) -> None:
    """A key that is new in these sections needs a value for the packages that were made before."""
    settings = Settings.of(load_packaged(written(tmp_path, policy=SIZES)))
    assert settings.max_new_tokens == 77
    assert settings.loading == {
        "min_pixels": 3136, "max_pixels": 12544,
        "attention": "sdpa", "autocast": False, "gradient_checkpointing": False,
    }  # fmt: skip


def test_sections_and_keys_of_another_version_are_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, policy=SIZES | {"gone": 1}, gone={"since": 2}, cgpo=3, segmenter={"gone": 4})
    assert Settings.of(load_packaged(path)).batches == {"batch_images": 16, "batch_phrases": 64}


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"min_pixels": 1, "max_pixels": 2}, "params.yaml: missing parameter policy.max_new_tokens, expected int"),
        (SIZES | {"max_pixels": "large"}, "params.yaml: policy.max_pixels = 'large', expected int"),
        (SIZES | {"max_pixels": 1}, "params.yaml: policy: min_pixels 3136 is larger than max_pixels 1"),
        ([], r"params.yaml: policy = \(\), expected a section with min_pixels"),
    ],
)
def test_a_size_that_is_spoilt_is_named(policy: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=words):
        load_packaged(written(tmp_path, policy=policy))
