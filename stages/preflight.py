"""Faults that would end a run hours later and can be found at once: `python stages/check.py params` looks first.

The device is looked for, the splits that the stages need are looked up in the catalogue, and a base model that has to
come from the Hugging Face hub must be there to be had. Nothing is imported, fetched or computed.
"""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import own_tree  # noqa: F401

from saliency_r1.data import models
from saliency_r1.data.catalogue import Catalogue
from saliency_r1.data.errors import DataError
from saliency_r1.params import Params
from saliency_r1.runtime.stage import StageError, device_fault

PROVIDED = Path("artifacts/download/report.json")


def look(params: Params, root: Path) -> None:
    """Raise `StageError`, with one line for everything that the run would end with."""
    faults = list(_faults_of_machine(params))
    if (root / params.download.catalogue).exists():  # else DVC has not put it there yet, or `download` says so
        try:
            faults += _faults_of_data(params, root)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise StageError("\n".join(faults))


def _faults_of_machine(params: Params) -> Iterator[str]:
    if fault := device_fault(params.runtime.device):
        yield fault
    if params.policy.attention == "flash_attention_2" and find_spec("flash_attn") is None:
        yield "policy.attention = 'flash_attention_2' needs the package flash-attn, which is not installed; or set sdpa"


def _faults_of_data(params: Params, root: Path) -> Iterator[str]:
    settings = params.download
    catalogue = Catalogue.load(root / settings.catalogue)
    there = {split for _, split in catalogue.select(settings.datasets)}
    if "train" not in params.annotate.splits:
        yield f"annotate.splits = {list(params.annotate.splits)}: SFT learns from the annotations of train; add it"
    needed = {"train": "SFT and CGPO", "val": "judging SFT", params.masks.split: "masks.split"}
    if missing := [f"{split} ({purpose})" for split, purpose in needed.items() if split not in there]:
        yield (
            f"no data set of download.datasets has a split {' or '.join(missing)} in {settings.catalogue}: add one "
            "that has; `python stages/download.py` alone imports what there is"
        )
    for key in ("policy", "segmenter"):
        source = models.resolve(getattr(settings, key), key, catalogue, root)
        if source.folder is not None or _provided(source, key) or models.cached(source):
            continue
        if fault := models.unreachable(source):
            yield f"download.{key}: {source}: {fault}"


def _provided(source: models.Source, key: str) -> bool:
    """Whether the last import has put this very model in place, so that a run goes on without a network."""
    try:
        had = json.loads(PROVIDED.read_text(encoding="utf-8"))["models"][key]
        return had["source"] == source.hub and source.revision in (None, had["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
