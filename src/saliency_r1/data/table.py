"""The sample table: one row a sample, the contract between the download stage and all that follows.

A sample is one prompt: one image (SOD, SIS), or a chunk of a group of images (CoSOD). Paths are relative to the table's
folder, in POSIX form; `meta` is JSON, `{"objects": [[{...}, ...] for each image]}` where the data set has attributes,
or at least the names of its instances (`[{"id": 1, "name": "cat"}]`).
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from saliency_r1.data.samples import chunks

SCHEMA: dict[str, Any] = {
    "sample_id": pl.String,
    "task": pl.String,
    "dataset": pl.String,
    "split": pl.String,
    "images": pl.List(pl.String),
    "masks": pl.List(pl.String),
    "names": pl.List(pl.String),
    "group": pl.String,
    "meta": pl.String,
    "height": pl.List(pl.Int64),
    "width": pl.List(pl.Int64),
}

# One row an image: what the import of one split found. `objects` is JSON, or null.
INDEX: dict[str, Any] = {
    "name": pl.String,
    "group": pl.String,
    "image": pl.String,
    "mask": pl.String,
    "height": pl.Int64,
    "width": pl.Int64,
    "sha256": pl.String,
    "source": pl.String,
    "stored": pl.String,
    "thumbnail": pl.Binary,
    "instances": pl.Int64,
    "ids": pl.List(pl.Int64),
    "oriented": pl.Boolean,
    "turned": pl.Boolean,
    "objects": pl.String,
}


def read_samples(folder: Path) -> pl.DataFrame:
    """The sample table of a download folder, e.g. `artifacts/download`."""
    return pl.read_parquet(Path(folder) / "table.parquet")


def samples(index: pl.DataFrame, task: str, dataset: str, split: str, chunk: int) -> pl.DataFrame:
    """Samples of one split from its index of images; `chunk` is the most images a CoSOD sample may have."""
    prefix = f"datasets/{dataset}/{split}"
    rows = [
        {
            "sample_id": f"{dataset}/{split}/{name}",
            "task": task,
            "dataset": dataset,
            "split": split,
            "images": [f"{prefix}/{image['image']}" for image in images],
            "masks": [f"{prefix}/{image['mask']}" for image in images],
            "names": [image["name"] for image in images],
            "group": images[0]["group"],
            "meta": _meta(images),
            "height": [image["height"] for image in images],
            "width": [image["width"] for image in images],
        }
        for name, images in _chunks(index, task, chunk)
    ]
    return pl.DataFrame(rows, SCHEMA)


def evenly_spaced(table: pl.DataFrame, limit: int | None) -> pl.DataFrame:
    """At most `limit` rows, evenly spread over the table, so that a few still show the whole."""
    if limit is None or len(table) <= limit:
        return table
    return table[np.linspace(0, len(table) - 1, limit).round().astype(int).tolist()]


def subset(table: pl.DataFrame, splits: Sequence[str], limit: int | None) -> pl.DataFrame:
    """The rows of some splits, of each data set and split at most `limit`."""
    parts = table.filter(pl.col("split").is_in(splits)).partition_by("dataset", "split", maintain_order=True)
    return pl.concat([table.clear(), *(evenly_spaced(part, limit) for part in parts)])


def validation(table: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    """`count` samples of the validation split, or all of them, drawn with `seed`: they judge what SFT learns."""
    return table.filter(split="val").sample(fraction=1, shuffle=True, seed=seed).head(count)


def _chunks(index: pl.DataFrame, task: str, chunk: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Sample names with the images of each: one, or for CoSOD those of a part of a group."""
    if task != "cosod":
        for image in index.iter_rows(named=True):
            yield image["name"], [image]
        return
    for (group,), images in index.group_by("group", maintain_order=True):
        for number, part in enumerate(chunks(images.to_dicts(), chunk), 1):
            yield f"{group}-{number:02d}", part


def _meta(images: list[dict[str, Any]]) -> str:
    if all(image["objects"] is None for image in images):
        return "{}"
    objects = [json.loads(image["objects"] or "[]") for image in images]
    return json.dumps({"objects": objects}, ensure_ascii=False)
