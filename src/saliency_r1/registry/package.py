"""The folder that one hands on: everything a person needs who wants masks, and what they should know of it.

adapter/            what was trained
policy/ segmenter/  the base models, where they come from a folder; from the hub they are named with their revision
model.json          where the bases come from: {"policy": {"source", "revision"}, "segmenter": {...}, "title"}
params.yaml         sizes of the pictures and of the answers, as in the training
data.parquet        what its pictures and masks were like (data/describe.py)
metrics.json        of this model on the test split: {data set: {measure: value}}
README.md           the card
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from saliency_r1.registry.results import results
from saliency_r1.runtime.files import link_tree, write_json, write_text

MODEL = "cgpo"
DATA = "data.parquet"
SHOWN = ("Sm", "maxFm", "maxEm", "MAE", "AP", "AP50", "reward", "parse_failures")


class PackageError(ValueError):
    """A run of which no model can be handed on; the message says what is missing."""


def package(artifacts: Path, params: Path, title: str, folder: Path) -> None:
    """Fill an empty folder from the folders of the stages and the params file.

    Raises `PackageError` where the run has not measured the model.
    """
    import polars as pl  # where a folder's bases are, `predict` asks without it

    from saliency_r1.data.describe import describe

    metrics, intervals = (
        json.loads((artifacts / "metrics" / f"{name}.json").read_text(encoding="utf-8")).get(MODEL)
        for name in ("metrics", "intervals")
    )
    if metrics is None or intervals is None:
        raise PackageError(
            f"{artifacts / 'metrics'} has no numbers of {MODEL}, and a model is handed on with its own: expected "
            f"{MODEL} in masks.models; add it, and only its answers are made"
        )
    bases = json.loads((artifacts / "download" / "report.json").read_text(encoding="utf-8"))["models"]
    for name, base in bases.items():
        if "revision" not in base:
            link_tree(artifacts / "download" / "models" / name, folder / name)
    link_tree(artifacts / "cgpo" / "adapter", folder / "adapter")
    shutil.copyfile(params, folder / "params.yaml")
    download = artifacts / "download"
    describe(pl.read_parquet(download / "table.parquet"), download).write_parquet(folder / DATA)
    write_json(folder / "model.json", {"title": title, **bases})
    write_json(folder / "metrics.json", metrics)
    write_text(folder / "README.md", card(title, bases, metrics, intervals))


def base(folder: Path, name: str) -> str:
    """Where the base `policy` or `segmenter` of such a folder is: a folder in it, or `owner/model@revision` of the hub.

    Raises `PackageError` for a folder that does not say so.
    """
    file = folder / "model.json"
    try:
        about = json.loads(file.read_text(encoding="utf-8"))[name]
        return f"{about['source']}@{about['revision']}" if "revision" in about else str(folder / name)
    except (ValueError, KeyError, TypeError) as error:
        raise PackageError(
            f"{file} does not say where the {name} comes from ({error!r}), expected what the stage model writes: "
            "`dvc checkout` or `dvc repro model` brings it"
        ) from None


def card(
    title: str,
    bases: Mapping[str, Mapping[str, str]],
    metrics: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, list[float]]],
) -> str:
    """The model card as Markdown: what it is, from what, how good, what it is not."""
    lines = [f"# {title}", "", "Salient objects, instances and co-salient objects, named in words and segmented."]
    lines += ["", "| part | from |", "|---|---|", "| adapter | CGPO, from the SFT adapter, on the policy |"]
    lines += [f"| {name} | {_origin(name, base)} |" for name, base in bases.items()]
    lines += ["", "Test split, greedy, 95 % intervals over images (CoSOD: over groups).", ""]
    lines += results(metrics, intervals, dict(zip(SHOWN, SHOWN)))
    lines += ["", "It knows pictures like those it was trained on; for others nothing has been measured.", ""]
    return "\n".join(lines)


def _origin(name: str, base: Mapping[str, str]) -> str:
    revision = base.get("revision")
    return f"{base['source']}@{revision}" if revision else f"the folder {name}/ beside this card"
