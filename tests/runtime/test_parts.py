"""What a killed run has done is not done again, and who did it does not show."""

import importlib
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import polars as pl
import pytest

from saliency_r1.params import Asked, Params, load_params
from saliency_r1.runtime import processes
from saliency_r1.runtime.parts import Parts, keep_only, share

ROOT = Path(__file__).parents[2]


def work(parts: Parts, samples: list[int], stop_after: int = 99) -> list[int]:
    """Write the missing parts of this process; returns their numbers."""
    done = []
    for number in share(parts.missing())[:stop_after]:
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
        assert parts.missing() == [0, 2, 3, 4], "the same everywhere: who has no share must know it as well"
        seen[index] = share(parts.missing())
    assert seen == {0: [0, 3], 1: [2, 4]}
    assert share([7]) == [], "fewer parts than processes"


def test_a_batch_is_dealt_out_from_the_fewest_images_to_the_most(monkeypatch):
    rows = [{"images": ["x"] * count} for count in (4, 1, 1, 4, 1)]
    monkeypatch.setattr(processes, "count", lambda: 2)
    shares = []
    for index in (0, 1):
        monkeypatch.setattr(processes, "index", lambda index=index: index)
        shares.append(processes.shard_indices(rows))
    assert shares == [[1, 3, 4], [0, 2]], "a group each, and every row once"


SHIPPED = load_params(ROOT / "params.yaml")


def in_masks(monkeypatch, folder: Path, params: Params = SHIPPED) -> list[Path]:
    """Run the stage masks in `folder`, with one part that is missing of its last model; what was written."""
    monkeypatch.syspath_prepend(ROOT / "stages")
    monkeypatch.chdir(folder)
    stage = importlib.import_module("stages.masks")
    written = []
    stand_ins = {
        "prepare_torch": lambda *_: (None, None),
        "runs": lambda _, entry: folder / "runs/masks" / f"{getattr(entry, 'name', entry)}-1",
        "answering": lambda *_: nullcontext(lambda rows: rows),
        "write_part": lambda part, *_: written.append(part),
        "assemble": lambda *_: [{"model": "base"}],
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(stage, name, stand_in)
    monkeypatch.setattr(stage.Environment, "load", lambda *_: None)
    monkeypatch.setattr(stage, "Policies", lambda *_, **__: None)
    stage.main(params)
    return written


@pytest.fixture
def killed(tmp_path):
    """A folder in which a run of the stage masks was killed before the only part of its last model."""
    (tmp_path / "artifacts/download").mkdir(parents=True)
    rows = [{"sample_id": "x/test/0", "task": "sod", "split": "test"}]
    pl.DataFrame(rows).write_parquet(tmp_path / "artifacts/download/table.parquet")
    for name in ("base", "sft"):
        (tmp_path / "runs/masks" / f"{name}-1/part-000000").mkdir(parents=True)
    return tmp_path


def test_a_process_without_a_share_waits_for_the_others(killed, monkeypatch, capsys):
    """Else they stand in the barrier until it gives up."""
    waited = []
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "index", lambda: 1)
    monkeypatch.setattr(processes, "gather", list)
    monkeypatch.setattr(processes, "wait", lambda: waited.append(True))
    assert in_masks(monkeypatch, killed) == []
    assert waited == [True]
    said = capsys.readouterr().out
    assert "masks of sft: as they were" in said
    assert "masks of cgpo: as they were" not in said


@pytest.mark.parametrize(("served", "written"), [(True, [4, 0]), (False, [2, 2])])
def test_a_server_is_asked_by_one_process_alone(killed, monkeypatch, served, written):
    """Its budget is that of a run: two processes that ask would spend it twice."""
    endpoint = SHIPPED.annotate.endpoint if served else None
    asked = Asked(name="big", model="big", shots=0, endpoint=endpoint)
    masks = SHIPPED.masks.model_copy(update={"models": (asked,), "batch_size": 1})
    params = SHIPPED.model_copy(update={"masks": masks})
    rows = [{"sample_id": f"x/test/{number}", "task": "sod", "split": "test"} for number in range(4)]
    pl.DataFrame(rows).write_parquet(killed / "artifacts/download/table.parquet")
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "gather", list)
    waited: list[int] = []
    made = []
    for index in (1, 0):
        monkeypatch.setattr(processes, "index", lambda index=index: index)
        monkeypatch.setattr(processes, "wait", lambda index=index: waited.append(index))
        made.append(len(in_masks(monkeypatch, killed, params)))
        for part in (killed / "runs/masks/big-1").glob("part-*"):
            part.rmdir()
    assert made[::-1] == written
    assert waited == [1, 0], "who asks nothing waits"


PROCESS = """
import datetime, os, pathlib, sys
import pytest, torch.distributed
sys.path[:0] = [{tests!r}, {root!r}]
from runtime.test_parts import in_masks
torch.distributed.init_process_group(
    "gloo", init_method="file://" + sys.argv[1] + "/meet", timeout=datetime.timedelta(seconds=120),
    rank=int(os.environ["RANK"]), world_size=2,
)
with pytest.MonkeyPatch.context() as patch:
    print("wrote", len(in_masks(patch, pathlib.Path(sys.argv[1]))))
"""


@pytest.mark.slow
def test_two_processes_end_a_run_that_lacks_one_part(killed):
    code = PROCESS.format(tests=str(ROOT / "tests"), root=str(ROOT))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(killed)],
            env=os.environ | {"WORLD_SIZE": "2", "RANK": str(index)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in (0, 1)
    ]  # fmt: skip
    ended = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    assert [out.splitlines()[-1] for out, _ in ended] == ["wrote 1", "wrote 0"]
    assert (killed / "artifacts/masks/table.parquet").exists()


def test_parts_of_other_runs_are_removed(tmp_path):
    for name in ("a-1", "a-2", "b-1"):
        with Parts(tmp_path / "runs" / name, 1, 1).writing(0):
            pass
    keep_only([tmp_path / "runs/a-2", tmp_path / "runs/b-1"])
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["a-2", "b-1"]
