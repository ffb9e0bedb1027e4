"""A dress rehearsal: the paper's profile through `dvc repro` in a clone of its own, with everything but the weights.

    python -m benchmarks.rehearsal.run --photographs <folder> --ranks <qwen.tiktoken>       # or `make rehearse`

Real: the tokenizer, the chat template, the image settings, the widths of Qwen2.5-VL-3B and of EVF-SAM, bfloat16,
gradient checkpointing, photographs in the public layouts. Stand-ins: few layers, random weights that were taught the
form of answers, BEiT-3's sentencepiece model, and the offline annotator, whose consistency says nothing under such a
segmenter. It ends with the report and with what was seen; with exit code 1 where that is not what a rehearsal is for.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import torch
import yaml

from benchmarks.rehearsal import models, photographs, tokenizer
from saliency_r1.runtime.files import write_json
from saliency_r1.runtime.stage import imitates_bfloat16
from saliency_r1.yaml_loader import load_yaml

ROOT = Path(__file__).resolve().parents[2]
SEED = 7
MINUTES, GIGABYTES = 20, 12  # that a rehearsal may take on two cores
# The profile's own type, but on a CPU that would need hours with it; what was computed in is among the facts.
TYPE = "float32" if imitates_bfloat16() else "bfloat16"
# What a rehearsal changes of the profile. Sizes of images, answers, adapters and networks stay.
CHANGES: dict[str, Any] = {
    "runtime": {"device": "cpu", "threads": os.cpu_count()},
    "policy": {"max_new_tokens": 128, "batch_size": 4},
    "segmenter": {"batch_images": 1, "batch_phrases": 4},
    # Nothing that a segmenter of random weights finds is consistent.
    "annotate": {"annotator": "offline", "threshold": 0.0, "attempts": 1},
    "sft": {"steps": 4, "batch_size": 4, "micro_batch": 2, "warmup": 1, "checkpoint_every": 2, "evaluate_samples": 4},
    "cgpo": {
        "updates": 3, "batch_size": 4, "micro_batch": 2, "drift_every": 2, "warmup": 1, "checkpoint_every": 2,
        "isr": {"every": 2, "batch_size": 2},
    },
    "masks": {"batch_size": 4},
    "metrics": {"workers": 1},
    "report": {"examples": 2},
    # What a few lessons taught breaks now and then: `complaints` judges it, when everything has been seen.
    "checks": {
        "consistency": 0.0, "consistency_share": 0.0, "kept_share": 0.0,
        "sft_parse_failures": 1.0, "cgpo_parse_failures": 1.0, "masks_parse_failures": 1.0,
    },
}  # fmt: skip


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with some of them changed, section by section. Raises `KeyError` for one that is not there."""
    result = dict(settings)
    for key, value in changes.items():
        result[key] = merged(settings[key], value) if isinstance(settings[key], dict) else value
    return result


def prepare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the stand-ins and the archives, those of an interrupted rehearsal excepted; returns their parameters."""
    if not (folder / "photographs").is_dir():
        new = folder / ".photographs"
        shutil.rmtree(new, ignore_errors=True)
        photographs.pack(ROOT / "embedded/catalogue.yaml", photographs.Photographs(arguments.photographs), new)
        new.rename(folder / "photographs")
    policy_of = folder / f"policy-{_settings(arguments)}"
    if not policy_of.is_dir():
        pictures = sorted(arguments.photographs.glob("voc_coseg_32/img/*/*"))
        vocabulary = tokenizer.build(tokenizer.read_ranks(arguments.ranks))
        policy = models.untaught(vocabulary, models.shape(arguments.layers), SEED, getattr(torch, arguments.dtype))
        for step, loss in models.teach(policy, pictures, arguments.steps, 4, arguments.lr, SEED):
            if step % 20 == 0 or step == arguments.steps:
                print(f"lesson {step}/{arguments.steps}, loss {loss:.3f}", flush=True)
        models.save(policy, folder / ".policy")
        (folder / ".policy").rename(policy_of)
    segmenter = folder / f"segmenter-{arguments.layers}"
    if not segmenter.is_dir():
        pieces = ROOT / "embedded/models/segmenter/sentencepiece.bpe.model"
        models.segmenter(arguments.layers, pieces, folder / ".segmenter", SEED)
        (folder / ".segmenter").rename(segmenter)
    return {
        "catalogue": str(folder / "photographs/catalogue.yaml"),
        "policy": str(policy_of),
        "segmenter": str(segmenter),
    }


def _settings(arguments: argparse.Namespace) -> str:
    """What decides a taught policy, as a name."""
    chosen = (arguments.layers, arguments.steps, arguments.lr, arguments.dtype)
    return hashlib.sha256(Path(models.__file__).read_bytes() + repr(chosen).encode()).hexdigest()[:8]


def clone(folder: Path, changes: dict[str, Any]) -> None:
    """What is committed, with the profile's parameters and the changes to them; results of an earlier run stay."""
    if not (folder / ".git").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    for command in (["fetch", "--quiet", "origin", "HEAD"], ["reset", "--quiet", "--hard", "FETCH_HEAD"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    profile = load_yaml(ROOT / "profiles/paper-3b.yaml")
    content = merged(merged(profile, CHANGES), changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def seen(folder: Path) -> dict[str, Any]:
    """What the tables of a rehearsed pipeline say."""
    rollouts = pl.read_parquet(folder / "cgpo/table.parquet")
    answers = pl.read_parquet(folder / "masks/table.parquet")
    parsed = answers.group_by("model").agg(pl.mean("parsed")).sort("model")
    return {
        "samples": pl.read_parquet(folder / "download/table.parquet").group_by("split").len().sort("split").rows(),
        "tasks sampled": sorted(rollouts["task"].unique().to_list()),
        "sampled answers that parse": rollouts["parsed"].mean(),
        "their mean reward": rollouts["reward"].mean(),
        "tasks with a reward above what the form earns": sorted(
            rollouts.filter(pl.col("reward") > 0.1 + 1e-6)["task"].unique().to_list()
        ),
        "largest sampling gap": rollouts["sampling_gap"].max(),
        "answers that parse": dict(parsed.rows()),
    }


def complaints(facts: dict[str, Any]) -> list[str]:
    """Why a rehearsal showed nothing, if it did not."""
    if "sampled answers that parse" not in facts:
        return ["the pipeline was stopped before its report"]
    found = []
    if facts["sampled answers that parse"] < 0.5 or facts["answers that parse"]["cgpo"] < 0.5:
        found.append("most of the answers do not parse: teach the stand-in longer (--steps)")
    if not facts["tasks with a reward above what the form earns"]:
        found.append("no mask earned anything, so that no reward was above that of the form")
    if missing := {"sod", "sis", "cosod"} - set(facts["tasks sampled"]):
        found.append(f"no prompt of {', '.join(sorted(missing))} was sampled")
    minutes = (facts["seconds of preparation"] + facts["seconds of the pipeline"]) / 60
    if minutes > MINUTES and facts["computed in"] == "bfloat16":  # a CPU without it is several times slower
        found.append(f"it took {minutes:.1f} minutes, {MINUTES} are meant to do on two cores")
    if facts["most memory of a process, GB"] > GIGABYTES:
        found.append(f"a process took {facts['most memory of a process, GB']:.1f} GB, {GIGABYTES} are meant to do")
    return found


def main() -> None:
    """Rehearse, print the report's results and what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, default=os.environ.get("PHOTOGRAPHS"), help="or PHOTOGRAPHS")
    parser.add_argument("--ranks", type=Path, default=Path("runs/rehearsal/ranks/dashscope/resources/qwen.tiktoken"))
    parser.add_argument("--folder", type=Path, default=Path("runs/rehearsal"))
    parser.add_argument("--layers", type=int, default=2, help="of text, of vision, of BEiT-3 and of SAM")
    parser.add_argument("--steps", type=int, default=200, help="of teaching the form")
    parser.add_argument("--lr", type=float, default=1e-3, help="of teaching the form")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=TYPE, help="to compute in")
    arguments = parser.parse_args()
    for what, path in (("photographs", arguments.photographs), ("ranks", arguments.ranks)):
        if path is None or not path.exists():
            sys.exit(f"not rehearsed: there are no {what} ({path}); see docs/gpu.md, Figures of a rehearsal")
    torch.set_num_threads(os.cpu_count() or 1)
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"computed in": arguments.dtype}
    with timed(facts, "seconds of preparation"):
        download = prepare(arguments, folder)
    clone(folder / "clone", {"download": download, "runtime": {"dtype": arguments.dtype}})
    with timed(facts, "seconds of the pipeline"):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
        ended = subprocess.run(["dvc", "repro"], cwd=folder / "clone", env=environment | {"PATH": path}, check=False)
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = (resource.getrusage(who).ru_maxrss * unit / 1e9 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    facts["most memory of a process, GB"] = max(peaks)
    if ended.returncode == 0:  # else what is there may be of an earlier run
        facts |= seen(folder / "clone/artifacts")
    write_json(folder / "rehearsal.json", facts)
    print(json.dumps(facts, indent=2))
    if ended.returncode == 0:
        results = folder / "clone/artifacts/report/results.md"
        print(f"{results.read_text(encoding='utf-8')}\nreport: {results.with_name('index.html')}")
    sys.exit("\n".join(complaints(facts)) or None)


@contextmanager
def timed(facts: dict[str, Any], name: str) -> Iterator[None]:
    """Note how long the block took."""
    start = time.perf_counter()
    yield
    facts[name] = round(time.perf_counter() - start, 1)


if __name__ == "__main__":
    main()
