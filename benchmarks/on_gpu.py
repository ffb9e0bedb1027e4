"""All that is measured on a GPU that is there for minutes: one command, one time limit, the figures as they come.

    python benchmarks/on_gpu.py --seconds 185 --out runs/gpu
    python benchmarks/on_gpu.py --seconds 1200 --out runs/toy --toy        # few layers, to try it on a CPU

Parts come in order of their worth, each in a process of its own with a limit of its own; one that fails or is stopped
leaves what it had and does not stop the others. While one measures, the next one imports its libraries and waits.
`<out>/gpu.json` is written anew with every figure, `<out>/log.txt` has what the parts said. Random weights; nothing but
this checkout is needed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from saliency_r1.runtime.files import write_json

HERE = Path(__file__).parent
TOY = "--layers 1 --prompts 2 --tokens 3 --pixels 6272"
PAPER = "--prompts 8 --tokens 128 --micro-batch 8 --updates 2"


@dataclass(frozen=True)
class Part:
    """A benchmark's `measure` with the words of its command line, the same on a CPU, and its limit in seconds."""

    module: str
    words: str
    toy: str
    limit: float


PARTS = {
    "cgpo": Part("paper_size", f"--algorithm cgpo {PAPER}", f"--algorithm cgpo {TOY} --updates 2", 60),
    "grpo": Part("paper_size", f"--algorithm grpo {PAPER}", f"--algorithm grpo {TOY} --updates 2", 75),
    "segmenter, float32": Part(
        "segmenter",
        "--size huge --device cuda --dtype float32 --no-loop --height 480 --batch-images 4 --batch-phrases 16 "
        "--expressions 4 --repeats 2 --threads 8",
        "--size tiny --no-loop --images 2 --expressions 2 --repeats 1",
        30,
    ),
    "segmenter, bfloat16": Part(
        "segmenter",
        "--size huge --device cuda --dtype bfloat16 --no-loop --height 480 --batch-images 4 --batch-phrases 16 "
        "--expressions 4 --repeats 2 --threads 8",
        "--size tiny --dtype bfloat16 --no-loop --images 2 --expressions 2 --repeats 1",
        30,
    ),
    "decoding": Part("decoding", "--prompts 8 --tokens 128 --repeats 1", f"{TOY} --repeats 1 --ways plain static", 130),
    **{
        f"family {kind}": Part(
            "family_speed",
            f"--families {kind} --prompts 8 --tokens 64",
            f"--families {kind} --layers 1 --prompts 2 --text 6 --tokens 2",
            30,
        )
        for kind in ("qwen2_5_vl", "qwen3_vl", "smolvlm", "internvl", "gemma3")
    },
}


def rows(part: Part, words: str) -> Iterator[tuple[str, Any]]:
    """The rows of a part, named."""
    benchmark = import_module(part.module)
    for library in ("torch", "transformers", "peft", "saliency_r1.training.cgpo", "saliency_r1.policy"):
        import_module(library)
    if not sys.stdin.readline():  # "go" once the GPU is free; nothing where nobody waits any more
        return
    found = benchmark.measure(benchmark.options_of(words.split()))
    for number, row in enumerate([found] if isinstance(found, dict) else found):
        yield row if isinstance(row, tuple) else (str(number), row)


def start(name: str, toy: bool, log: Any) -> subprocess.Popen[str]:
    """A process that imports, waits for a line, and measures."""
    command = [sys.executable, str(HERE / "on_gpu.py"), "--part", name, *(["--toy"] if toy else [])]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, process_group=0
    )


def stop(process: subprocess.Popen[str]) -> None:
    """End a process with those it has started (compilers)."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended meanwhile


def follow(process: subprocess.Popen[str], limit: float, found: dict[str, Any], save: Any) -> None:
    """Let a part measure and write down each of its rows; how it ended as well."""
    begun = time.monotonic()
    timer = threading.Timer(limit, stop, [process])
    timer.start()
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write("go\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it has failed already: its exit status says so below
    for line in process.stdout:
        if line.startswith("{"):
            found["rows"] |= json.loads(line)
            save()
    code = process.wait()
    stopped = timer.finished.is_set()
    timer.cancel()
    found["ended"] = f"stopped after {limit:.0f} s" if stopped else "done" if code == 0 else f"failed: {code}"
    found["wall_seconds"] = round(time.monotonic() - begun, 1)
    save()


def main() -> None:
    """Run the parts one after the other until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=185, help="of all parts together")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--toy", action="store_true", help="few layers, on a CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        part = PARTS[arguments.part]
        for name, row in rows(part, part.toy if arguments.toy else part.words):
            print(json.dumps({name: row}), flush=True)
        return
    end = time.monotonic() + arguments.seconds
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    with (arguments.out / "log.txt").open("w") as log:
        names = list(arguments.parts)
        waiting = start(names[0], arguments.toy, log)
        for name, following in zip(names, [*names[1:], None]):
            process, part = waiting, PARTS[name]
            if following:
                waiting = start(following, arguments.toy, log)
            found[name] = {"words": part.toy if arguments.toy else part.words, "rows": {}}
            left = max(0.0, end - time.monotonic())
            limit = left if arguments.toy else min(part.limit, left)
            follow(process, limit, found[name], lambda: write_json(arguments.out / "gpu.json", found))
            print(name, json.dumps(found[name]), flush=True)


if __name__ == "__main__":
    main()
