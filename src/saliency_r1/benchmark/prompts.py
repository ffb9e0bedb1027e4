"""What a model that was not trained here is asked: the task, the grammar of its answer, worked examples.

Everything is one user turn, the images first and the text after them, so that a model in this process and one behind a
server are asked the same. The examples come from the annotated training split and never from what is scored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from saliency_r1 import tasks
from saliency_r1.benchmark.errors import BenchmarkError
from saliency_r1.cot import KINDS
from saliency_r1.data.samples import read_images
from saliency_r1.data.table import read_samples
from saliency_r1.runtime.files import sha256

Row = Mapping[str, Any]
_RULES = {
    "sod": "One <rg></rg> for each salient region; where nothing stands out, <answer></answer>.",
    "sis": "One <ins></ins> for each salient instance; where nothing stands out, <answer></answer>.",
    "cosod": "Exactly {images} <rg></rg>, one for each image, in the order of the images; where an image does not show "
    "the shared object, an empty <rg></rg>.",
}


@dataclass(frozen=True)
class Example:
    """A worked example: a row of the sample table and the annotated response to it."""

    row: Row
    response: str


@dataclass(frozen=True)
class Prompts:
    """What is asked of the samples in `folder`; `examples` are the worked ones of each task.

    `plain`: the task's instruction alone, as models that were trained here know it.
    """

    folder: Path
    examples: Mapping[str, Sequence[Example]]
    plain: bool = False

    def text(self, row: Row) -> str:
        """The text of a sample's prompt, which stands behind its images."""
        if self.plain:
            return tasks.get(row["task"]).instruction
        return wording(row["task"], len(row["images"]), self.examples.get(row["task"], ()))

    def images(self, row: Row) -> list[Image.Image]:
        """The images of a sample's prompt: those of the examples, then its own."""
        rows = [example.row for example in self.examples.get(row["task"], ())] + [row]
        return [image for one in rows for image in read_images(one, self.folder)]

    def fingerprints(self) -> dict[str, dict[str, Any]]:
        """For each task how many examples there are, and a hash of their images and words."""
        return {
            task: {"shots": len(examples), "hash": _fingerprint(self.folder, examples)}
            for task, examples in self.examples.items()
        }


def wording(task: str, images: int, examples: Sequence[Example] = ()) -> str:
    """The text of a prompt about `images` images, with worked examples whose images stand before them."""
    kind = KINDS[task]
    lines = [
        tasks.get(task).instruction,
        "",
        "Answer in this form, and write nothing before or after it:",
        f"<think>your reasoning</think><answer><{kind}>a referring expression</{kind}></answer>",
        _RULES[task].format(images=images),
        "A referring expression is a short phrase that tells its object from all others in the image.",
    ]
    first = 1
    for number, example in enumerate(examples, 1):
        last = first + len(example.row["images"]) - 1
        lines += ["", f"Example {number}, {_span(first, last)}:", example.response]
        first = last + 1
    if examples:
        lines += ["", f"Now answer for {_span(first, first + images - 1)}."]
    return "\n".join(lines)


def choose(samples: pl.DataFrame, annotations: Path, task: str, count: int) -> list[Example]:
    """`count` examples of a task: kept annotations of the training split, in an order that a hash of the name gives.

    Raises `BenchmarkError` where there are not as many.
    """
    if not count:
        return []
    if not annotations.is_file():
        raise BenchmarkError(
            f"worked examples come from {annotations}, which is not there; `dvc repro annotate` makes it, or --shots 0"
        )
    kept = pl.read_parquet(annotations).filter(pl.col("kept"), split="train", task=task)
    responses = dict(kept.select("sample_id", "response").iter_rows())
    rows = samples.filter(pl.col("sample_id").is_in(list(responses)), split="train").to_dicts()
    if len(rows) < count:
        raise BenchmarkError(f"{annotations} has {len(rows)} annotated training samples of {task}, {count} are wanted")
    rows.sort(key=lambda row: hashlib.sha256(row["sample_id"].encode()).hexdigest())
    return [Example(row, responses[row["sample_id"]]) for row in rows[:count]]


def prompts_for(download: Path, names: Iterable[str], annotations: Path, shots: int, plain: bool = False) -> Prompts:
    """The prompts of the tasks of these names, with `shots` worked examples each."""
    table = read_samples(download)
    return Prompts(download, {name: choose(table, annotations, name, shots) for name in names}, plain)


def _span(first: int, last: int) -> str:
    return f"image {first}" if first == last else f"images {first} to {last}"


def _fingerprint(folder: Path, examples: Sequence[Example]) -> str:
    content = [
        [example.row["sample_id"], example.response, [sha256(folder / image) for image in example.row["images"]]]
        for example in examples
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
