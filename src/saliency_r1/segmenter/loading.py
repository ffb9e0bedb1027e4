"""Folders of weights: ``config.json``, the weights under their official names, BEiT-3's sentencepiece model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from saliency_r1.segmenter.evf_sam import EvfSam

CONFIG, SAFETENSORS, PICKLE, PIECES = "config.json", "model.safetensors", "pytorch_model.bin", "sentencepiece.bpe.model"


class WeightsError(ValueError):
    """A folder of weights that cannot be used, with what is wrong in it."""


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The state dict of a folder: safetensors if there, else the official pickle, read without running code in it.

    Raises:
        WeightsError: neither file is there.
    """
    if (folder / SAFETENSORS).is_file():
        return load_file(folder / SAFETENSORS)
    if (folder / PICKLE).is_file():
        return torch.load(folder / PICKLE, map_location="cpu", weights_only=True)
    raise WeightsError(f"{folder} holds neither {SAFETENSORS} nor {PICKLE}")


def save_folder(model: EvfSam, pieces: Path, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a model as a folder; files are replaced one by one, each in a single step.

    Args:
        model: any EVF-SAM.
        pieces: the sentencepiece file that goes with it.
        folder: made if missing.
        dtype: of the stored tensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / f"{SAFETENSORS}.new", metadata={"format": "pt"})
    (folder / f"{CONFIG}.new").write_text(json.dumps(model.config.to_dict(), indent=1) + "\n")
    shutil.copyfile(pieces, folder / f"{PIECES}.new")
    for name in (SAFETENSORS, CONFIG, PIECES):
        (folder / f"{name}.new").replace(folder / name)
