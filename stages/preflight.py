"""Faults that would end a run hours later and can be found at once: `python stages/check.py params` looks first.

The device is looked for, the splits that the stages need are looked up in the catalogue, and a base model that has to
come from the Hugging Face hub must be there to be had. Folders of models must have a configuration, and addresses must
be such. Nothing is fetched or computed, and no server is asked.
"""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import own_tree  # noqa: F401

from saliency_r1.chat import ChatError
from saliency_r1.chat.connection import read_address
from saliency_r1.data import models
from saliency_r1.data.catalogue import Catalogue
from saliency_r1.data.errors import DataError
from saliency_r1.params import Asked, Params
from saliency_r1.runtime.stage import StageError, device_fault

PROVIDED = Path("artifacts/download/report.json")


def look(params: Params, root: Path) -> None:
    """Raise `StageError`, with one line for everything that the run would end with."""
    faults = [*_faults_of_machine(params), *_faults_of_training(params), *_faults_of_others(params, root)]
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


def _faults_of_training(params: Params) -> Iterator[str]:
    lora = params.sft.lora
    if params.runtime.dtype == "bfloat16" and (lora is None or lora.modules_to_save):
        trained = f"sft.lora.modules_to_save = {list(lora.modules_to_save)}" if lora else "sft.lora = null"
        yield (
            f"{trained} trains weights of the policy itself, and with runtime.dtype = 'bfloat16' they would lose small "
            "steps to rounding: set runtime.dtype: float32 and policy.autocast: true, or train LoRA alone"
        )


def _faults_of_others(params: Params, root: Path) -> Iterator[str]:
    """Models that are not trained here: those of `masks.models`, and the annotator."""
    asked = [entry for entry in params.masks.models if isinstance(entry, Asked)]
    folders = {f"masks.models, {entry.name}: model": entry.model for entry in asked if entry.endpoint is None}
    servers = {f"masks.models, {entry.name}: endpoint": entry.endpoint.url for entry in asked if entry.endpoint}
    if params.annotate.annotator == "local":
        folders["annotate.model"] = params.annotate.model
    elif params.annotate.annotator == "openai":
        servers["annotate.endpoint"] = params.annotate.endpoint.url
    for key, name in folders.items():
        if (root / name).is_dir():
            if not (root / name / "config.json").is_file():
                yield f"{key} = {name!r}: the folder has no config.json, expected a whole model"
        elif name.count("/") != 1 or name.startswith((".", "/", "~")):
            yield f"{key} = {name!r}: no such folder, and not a name on the hub (owner/model)"
    for section, url in servers.items():
        try:
            read_address(url, section)
        except ChatError as error:
            yield str(error)


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
        if source.folder is not None and not (source.folder / "config.json").is_file():
            yield f"download.{key}: {source}: the folder has no config.json, expected a whole model"
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
