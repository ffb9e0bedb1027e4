"""What would end a run hours later ends it at the stage `params`, in one line each."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def checked(folder: Path, catalogue: str = "data/catalogue.yaml", **changes: Any) -> subprocess.CompletedProcess[str]:
    """`stages/check.py params` in a folder with the shipped catalogue; `changes` are `section__key=value`."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["download"]["catalogue"] = catalogue
    for name, value in changes.items():
        section, _, key = name.partition("__")
        params[section][key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    if not (folder / "data").exists():
        (folder / "data").symlink_to(ROOT / "embedded")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HOME": str(folder / "hub")}
    command = [sys.executable, str(ROOT / "stages/check.py"), "params"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def refused(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of a refusal; nothing was written."""
    assert ended.returncode == 1, ended.stdout
    assert "Traceback" not in ended.stderr
    return ended.stderr.strip().splitlines()


def test_what_is_there_passes(tmp_path: Path) -> None:
    ended = checked(tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "artifacts/checks/params.json").is_file()


def test_everything_that_is_missing_is_one_line(tmp_path: Path) -> None:
    only = ["scenes-sod/train", "scenes-sis/test"]
    lines = refused(
        checked(tmp_path, download__datasets=only, download__policy="owner/model", annotate__splits=["val"])
    )
    assert len(lines) == 3
    assert "annotate.splits = ['val']: SFT learns from the annotations of train" in lines[0]
    assert "has a split val (judging SFT) in data/catalogue.yaml" in lines[1]
    assert "download.policy: owner/model: not to be had from the Hugging Face hub" in lines[2]
    assert not (tmp_path / "artifacts").exists()


ENDPOINT = yaml.safe_load((ROOT / "params.yaml").read_text())["annotate"]["endpoint"]
LORA = yaml.safe_load((ROOT / "params.yaml").read_text())["sft"]["lora"]


def test_what_training_and_other_models_would_end_with_is_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    asked = [
        {"name": "gone", "model": "/no/such/folder", "shots": 0, "endpoint": None},
        {"name": "hollow", "model": "empty", "shots": 0, "endpoint": None},
        {"name": "big", "model": "m", "shots": 0, "endpoint": ENDPOINT | {"url": "nonsense"}},
        {"name": "hub", "model": "owner/model", "shots": 0, "endpoint": None},
    ]
    lines = refused(
        checked(
            tmp_path, runtime__dtype="bfloat16", sft__lora=None, masks__models=["cgpo", *asked],
            annotate__annotator="openai", annotate__endpoint=ENDPOINT | {"url": "ftp://me:SECRET@x"},
        )
    )  # fmt: skip
    assert len(lines) == 5
    assert "sft.lora = null trains weights of the policy itself" in lines[0]
    assert "set runtime.dtype: float32 and policy.autocast: true" in lines[0]
    assert "masks.models, gone: model = '/no/such/folder': no such folder, and not a name on the hub" in lines[1]
    assert "masks.models, hollow: model = 'empty': the folder has no config.json" in lines[2]
    assert "masks.models, big: endpoint.url = 'nonsense', expected http:// or https://" in lines[3]
    assert "annotate.endpoint.url = 'ftp://x', expected http:// or https://" in lines[4]


def test_a_policy_without_a_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/weights").touch()
    (line,) = refused(checked(tmp_path, download__policy="own"))
    assert f"download.policy: {tmp_path}/own: the folder has no config.json" in line


def test_a_model_that_is_in_place_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "artifacts/download").mkdir(parents=True)
    had = {"models": {"policy": {"source": "owner/model", "revision": "abc"}}}
    (tmp_path / "artifacts/download/report.json").write_text(json.dumps(had))
    assert checked(tmp_path, download__policy="owner/model").returncode == 0
    assert "owner/model@other" in refused(checked(tmp_path, download__policy="owner/model@other"))[0]


def test_a_catalogue_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("datasets: [", encoding="utf-16")
    (line,) = refused(checked(tmp_path, catalogue="mine.yaml"))
    assert "mine.yaml is not UTF-8" in line


@pytest.mark.slow
def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    (line,) = refused(checked(tmp_path, runtime__device="cuda"))
    assert "runtime.device = 'cuda', and torch" in line
