"""The curves of a running training in DVCLive's files."""

import csv
from pathlib import Path

from saliency_r1.training import live


def column(path: Path, name: str) -> list[str]:
    with open(path / "plots" / "metrics" / f"{name}.tsv", encoding="utf-8") as file:
        return [row[name] for row in csv.DictReader(file, delimiter="\t")]


def test_curves_can_be_read_while_the_training_runs(tmp_path: Path) -> None:
    rows = [{"loss": 3.0, "isr_loss": None}, {"loss": 2.0, "isr_loss": 5.0}]
    for number, row in enumerate(live.follow(rows, tmp_path / "live", dict), 1):
        assert row is rows[number - 1]
        assert column(tmp_path / "live", "loss") == ["3.0", "2.0"][:number]
    assert column(tmp_path / "live", "isr_loss") == ["5.0"]


def test_a_resumed_training_tells_its_whole_story_once(tmp_path: Path) -> None:
    for length in (2, 3):
        list(live.follow([{"loss": 1.0}] * length, tmp_path / "live", dict))
    assert column(tmp_path / "live", "loss") == ["1.0"] * 3
