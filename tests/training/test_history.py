"""What updates leave behind in a file: the numbers that went in, and none that are newer than the checkpoint."""

import math
import os
from pathlib import Path

import polars as pl
import pytest
from handful import CGPO, run_cgpo
from polars.testing import assert_frame_equal

from saliency_r1.training import history
from saliency_r1.training.errors import TrainingError
from saliency_r1.training.history import History, Update


def update(number: int, **more: float | None) -> Update:
    """With what a row can hold: fractions, nothing, nan, a text with both kinds of line breaks and half a pair."""
    row = {"rollout_id": number, "reward": number / 3, "response": "\u4e00\u2028\n\udc80", "parsed": number % 2 == 0}
    return Update({"update": number + 1, "kl": None, "lr": 1e-5 / 3}, [{**row, **more}], {"generate": 0.1 + 0.2})


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    written = [update(number, reward_iou=[None, 1.5, math.inf][number]) for number in range(3)]
    for one in written:
        History(tmp_path).append(one)
    assert list(History(tmp_path).read()) == written
    assert list(History(tmp_path).read(2)) == written[:2]
    assert list(History(tmp_path / "other").read()) == []


def test_the_tables_are_those_of_all_rows_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns that begin late, that are empty in a whole part, and that are whole numbers at first."""
    more = [{"a": None}, {"a": 1}, {"b": 0.5}, {"a": None}, {"a": 2.5, "c": True}]
    written = [Update({"update": n}, [{"rollout_id": n, **own}], {"isr": 0.0}) for n, own in enumerate(more)]
    for one in written:
        History(tmp_path).append(one)
    whole = pl.DataFrame([row for one in written for row in one.rollouts], infer_schema_length=None)
    for together in (1, 2, 100):
        monkeypatch.setattr(history, "TOGETHER", together)
        curves, costs, table = History(tmp_path).tables()
        assert_frame_equal(table, whole)
        assert curves["update"].to_list() == [0, 1, 2, 3, 4]
        assert costs["isr"].to_list() == [0.0] * 5


@pytest.mark.parametrize("torn", [b"", b'{"curve": {"upd'])
def test_what_the_checkpoint_does_not_know_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    log = History(tmp_path)
    for number in range(3):
        log.append(update(number))
    with log.path.open("ab") as stream:
        stream.write(torn)
    log.cut(2)
    log.append(update(2))
    assert [one.curve["update"] for one in log.read()] == [1, 2, 3]
    log.cut(0)
    assert list(log.read()) == []


@pytest.mark.parametrize("size", [0, 10, 0.75])
def test_fewer_updates_than_the_checkpoint_counts_are_refused(tmp_path: Path, size: float) -> None:
    log = History(tmp_path)
    for number in range(2):
        log.append(update(number))
    whole = log.path.stat().st_size
    os.truncate(log.path, size if size >= 1 else int(size * whole))
    with pytest.raises(TrainingError, match=r"updates\.jsonl holds . updates and the checkpoint beside it 2; delete"):
        log.cut(2)


def test_a_damaged_update_is_named(tmp_path: Path) -> None:
    log = History(tmp_path)
    log.append(update(0))
    with log.path.open("ab") as stream:
        stream.write(b"\0\0\0\n")
    with pytest.raises(TrainingError, match=r"update 2 in .*updates\.jsonl cannot be read"):
        list(log.read())


def test_a_killed_run_ends_with_the_table_of_an_undisturbed_one(environment, examples, tmp_path):
    """Its checkpoint is older than its last updates, which it makes again."""
    options = CGPO.model_copy(update={"checkpoint_every": 2})
    for name, stops in (("whole", (None,)), ("killed", (1, 3, None))):
        for stop in stops:
            run_cgpo(environment, examples, tmp_path / name, stop, options)
    assert [path.name for path in (tmp_path / "killed").glob("*0004.pt")] == ["step-0000004.pt"]
    curves, _, table = History(tmp_path / "whole").tables()
    again, _, rollouts = History(tmp_path / "killed").tables()
    assert_frame_equal(table, rollouts, check_exact=True)
    assert_frame_equal(curves, again, check_exact=True)
    assert len(table) == options.updates * options.batch_size


def test_a_checkpoint_does_not_grow_with_the_updates(environment, examples, tmp_path):
    run_cgpo(environment, examples, tmp_path)
    first, last = (path.stat().st_size for path in sorted(tmp_path.glob("step-*.pt")))
    assert last <= first + 100
