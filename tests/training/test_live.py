"""The curves of a running training in DVCLive's files."""

import csv
from pathlib import Path

import dvclive
import pytest

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


def logged(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((folder / "plots" / "metrics").glob("*.tsv"))}


STORY: list[dict[str, float | None]] = [
    {"loss": 3.0, "isr_loss": None},
    {"loss": float("nan"), "isr_loss": 5.0},
    {"loss": 1e-7, "isr_loss": None},
    {"loss": 0.1 + 0.2, "isr_loss": 4.0},
]


@pytest.mark.parametrize("known", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("broken", ["", "2", "2\t1e", "2\t7.5\n3\t7\n"])
def test_a_resumed_training_goes_on_where_the_files_agree(
    tmp_path: Path, known: int, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(live.follow(STORY, tmp_path / "whole", dict))
    list(live.follow(STORY[:known], tmp_path / "live", dict))
    if broken and known >= 2:  # what a killed run wrote after its last checkpoint, or while it was killed
        with open(tmp_path / "live/plots/metrics/loss.tsv", "a") as file:
            file.write(broken)
        (tmp_path / "live/metrics.json").write_text('{"lo')
    written = []
    honest = dvclive.Live.next_step
    monkeypatch.setattr(dvclive.Live, "next_step", lambda self: (written.append(self.step), honest(self)))
    list(live.follow(STORY, tmp_path / "live", dict))
    assert logged(tmp_path / "live") == logged(tmp_path / "whole")
    assert written == list(range(min(known, 2) if broken[1:] and known >= 2 else known, 4))


def test_the_files_of_another_run_are_replaced(tmp_path: Path) -> None:
    list(live.follow([{"loss": 9.0, "reward": 1.0}] * 6, tmp_path / "live", dict))
    list(live.follow(STORY, tmp_path / "live", dict))
    list(live.follow(STORY, tmp_path / "whole", dict))
    assert logged(tmp_path / "live") == logged(tmp_path / "whole")
    list(live.follow(STORY[:2], tmp_path / "live", dict))
    assert column(tmp_path / "live", "loss") == ["3.0", "nan"]
