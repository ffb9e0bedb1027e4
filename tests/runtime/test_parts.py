"""What a killed run has done is not done again, and who did it does not show."""

import pytest

from saliency_r1.runtime import processes
from saliency_r1.runtime.parts import Parts, keep_only


def work(parts: Parts, samples: list[int], stop_after: int = 99) -> list[int]:
    """Write the missing parts of this process; returns their numbers."""
    done = []
    for number in parts.missing()[:stop_after]:
        with parts.writing(number) as folder:
            (folder / "sum").write_text(str(sum(parts.of(samples, number))))
        done.append(number)
    return done


def test_a_second_run_goes_on(tmp_path):
    samples = list(range(10))
    parts = Parts(tmp_path / "runs/a-1", len(samples), 4)
    assert list(parts.numbers) == [0, 1, 2]
    assert work(parts, samples, stop_after=1) == [0]
    assert work(Parts(tmp_path / "runs/a-1", len(samples), 4), samples) == [1, 2]
    assert parts.missing() == []
    assert [(parts.path(number) / "sum").read_text() for number in parts.numbers] == ["6", "22", "17"]


def test_a_part_that_was_not_finished_is_not_there(tmp_path):
    parts = Parts(tmp_path / "a", 2, 1)

    def interrupted() -> None:
        with parts.writing(0) as folder:
            (folder / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert parts.missing() == [0, 1]
    with parts.writing(0) as folder:
        assert not list(folder.iterdir()), "nothing of the first attempt is left"


def test_processes_share_what_is_missing(tmp_path, monkeypatch):
    parts = Parts(tmp_path / "a", 50, 10)
    with parts.writing(1):
        pass
    seen = {}
    monkeypatch.setattr(processes, "gather", lambda items: list(items))
    monkeypatch.setattr(processes, "count", lambda: 2)
    for index in (0, 1):
        monkeypatch.setattr(processes, "index", lambda index=index: index)
        seen[index] = parts.missing()
    assert seen == {0: [0, 3], 1: [2, 4]}


def test_parts_of_other_runs_are_removed(tmp_path):
    for name in ("a-1", "a-2", "b-1"):
        with Parts(tmp_path / "runs" / name, 1, 1).writing(0):
            pass
    keep_only([tmp_path / "runs/a-2", tmp_path / "runs/b-1"])
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["a-2", "b-1"]
