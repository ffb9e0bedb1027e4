"""What the history of a long CGPO run costs: in a checkpoint, when a run goes on, in memory.

    python benchmarks/long_history.py                     # the paper's size: 2,000 updates of 64 responses

Two ways in processes of their own: `checkpoint`, every update in memory and in every checkpoint, all curves told to
DVCLive again when the run goes on, as it was before; `file`, as it is (`training/history.py`, `training/live.py`). Rows
are those of artifacts/cgpo/, over and over, with answers as long as `--characters`. Weights and moments are left out:
they come on top in both. Memory is what the process holds when it trains on, and at most until it has written the
table, above what it held before (Linux).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
from step_memory import resident

from saliency_r1.training import checkpoints, live
from saliency_r1.training.history import History, Update

CGPO = Path("artifacts/cgpo")


def updates(count: int, size: int, characters: int) -> Iterator[Update]:
    """Updates of `size` responses like those that were made here."""
    rows = pl.read_parquet(CGPO / "table.parquet").to_dicts()
    curves = pl.read_csv(CGPO / "curves.csv", infer_schema_length=None).to_dicts()
    costs = pl.read_csv(CGPO / "costs.csv").to_dicts()
    for number in range(count):
        own = []
        for place in range(size):
            row = dict(rows[(number * size + place) % len(rows)])
            text = f"{number} {place} " + row["response"]
            row["response"] = (text * (1 + characters // len(text)))[:characters]
            own.append(row)
        yield Update(dict(curves[number % len(curves)]), own, dict(costs[number % len(costs)]))


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a piece of work."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def told(one: Update) -> dict[str, Any]:
    """What DVCLive hears of an update."""
    return one.curve | one.costs


def in_checkpoints(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """All updates in memory and in the checkpoint."""
    done = list(updates(arguments.updates, arguments.responses, arguments.characters))
    save = timed(lambda: checkpoints.save(folder, 1, {"updates": [vars(update) for update in done]}))
    done.clear()

    def resume() -> None:
        state = checkpoints.load(folder)
        assert state is not None
        done.extend(Update(**update) for update in state["updates"])

    seconds = timed(resume)
    replay = timed(lambda: list(live.follow(done, folder / "live", told)))
    held = resident("VmRSS")
    rows = [row for update in done for row in update.rollouts]
    table = timed(lambda: pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / "table.parquet"))
    return {"save": save, "resume": seconds, "live": replay, "table": table, "held_gb": held}


def in_a_file(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Updates in a file, read one at a time."""
    history = History(folder)
    for one in updates(arguments.updates, arguments.responses, arguments.characters):
        history.append(one)
    save = timed(lambda: checkpoints.save(folder, 1, {}))
    told_before = live.follow(history.read(), folder / "live", told)
    for _ in told_before:  # the run before, which was killed at its last update
        pass

    def resume() -> None:
        checkpoints.load(folder)
        history.cut(arguments.updates)
        for _ in history.read(arguments.updates):
            pass

    def replay() -> None:
        for _ in live.follow(history.read(arguments.updates), folder / "live", told):
            pass

    seconds = timed(resume)
    both = timed(replay)
    held = resident("VmRSS")
    table = timed(lambda: history.tables()[2].write_parquet(folder / "table.parquet"))
    return {"save": save, "resume": seconds, "live": both - seconds, "table": table, "held_gb": held}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One way: megabytes of the checkpoint and the file, seconds, and gigabytes at most."""
    import dvclive  # noqa: F401  # 150 MB of DVC are none of the history

    before = resident("VmRSS")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = (in_checkpoints if arguments.way == "checkpoint" else in_a_file)(arguments, folder)
        sizes = {name: sum(path.stat().st_size for path in folder.glob(pattern)) / 1e6
                 for name, pattern in (("checkpoint_mb", "step-*.pt"), ("file_mb", "*.jsonl"))}  # fmt: skip
    memory = {"held_gb": (found.pop("held_gb") - before) / 1e9, "peak_gb": (resident("VmHWM") - before) / 1e9}
    return {"way": arguments.way, **sizes, **found, **memory}


def main() -> None:
    """Measure both and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--responses", type=int, default=64)
    parser.add_argument("--characters", type=int, default=300, help="of a response")
    parser.add_argument("--way", choices=("checkpoint", "file"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments)))
        return
    for way in ("checkpoint", "file"):
        done = subprocess.run([sys.executable, *sys.argv, "--way", way], stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}))


if __name__ == "__main__":
    main()
