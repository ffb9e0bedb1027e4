"""Folders of weights: ``config.json``, the weights under their official names, BEiT-3's sentencepiece model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from saliency_r1.segmenter.backend import EvfSamSegmenter
from saliency_r1.segmenter.evf_sam import EvfSam, EvfSamConfig
from saliency_r1.segmenter.tokenizer import SEMANTIC, Tokenizer

CONFIG, SAFETENSORS, PICKLE, PIECES = "config.json", "model.safetensors", "pytorch_model.bin", "sentencepiece.bpe.model"
ADDED_TOKENS, TOKENIZER_CONFIG = "added_tokens.json", "tokenizer_config.json"


class WeightsError(ValueError):
    """A folder of weights that cannot be used, with what is wrong in it."""


def load(
    folder: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_images: int = 16,
    batch_phrases: int = 64,
) -> EvfSamSegmenter:
    """An EVF-SAM from a folder: the embedded tiny one, or a local copy of ``YxZhang/evf-sam`` or ``-multitask``.

    Args:
        folder: holds ``config.json``, ``model.safetensors`` or ``pytorch_model.bin``, ``sentencepiece.bpe.model``.
        device: cpu, cuda or mps.
        dtype: arithmetic of the two encoders, see :class:`EvfSamSegmenter`.
        batch_images: pictures at once.
        batch_phrases: expressions at once.

    Raises:
        WeightsError: a file is missing, the configuration is unknown, or a tensor is missing, surplus or misshapen.
    """
    folder = Path(folder)
    model = load_model(folder)
    tokenizer = load_tokenizer(folder, model.config)
    return EvfSamSegmenter(model.to(device), tokenizer, dtype, batch_images, batch_phrases)


def from_pretrained(name: str, revision: str | None = None, **options: Any) -> EvfSamSegmenter:
    """As :func:`load`, from a folder or from the Hugging Face hub at a pinned revision.

    Args:
        name: a folder, or ``owner/model``.
        revision: a commit of the hub's repository; required there, since names move.
        options: as :func:`load` takes them.

    Raises:
        WeightsError: a name on the hub without a revision; else as :func:`load`.
    """
    if Path(name).is_dir():
        return load(name, **options)
    if revision is None:
        raise WeightsError(f"{name} is no folder; to take it from the hub, pin a revision (a commit of its repository)")
    from huggingface_hub import snapshot_download

    files = [CONFIG, SAFETENSORS, PICKLE, PIECES, ADDED_TOKENS, TOKENIZER_CONFIG]
    return load(snapshot_download(name, revision=revision, allow_patterns=files), **options)


def load_model(folder: Path) -> EvfSam:
    """The network of a folder on the CPU in float32, strictly checked. Raises as :func:`load`."""
    try:
        config = EvfSamConfig.from_dict(json.loads(_file(folder, CONFIG).read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{folder / CONFIG}: {error}") from error
    with torch.device("meta"):
        model = EvfSam(config)
    tensors = read_weights(folder)
    check_tensors({name: tensor.shape for name, tensor in model.state_dict().items()}, tensors, folder)
    # Half precision on disk, float32 in memory: the recipe for lower precision starts from here.
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return model


def check_tensors(expected: dict[str, torch.Size], tensors: dict[str, Tensor], source: Path) -> None:
    """Compare names and shapes.

    Raises:
        WeightsError: names every missing, surplus and misshapen tensor (the first five of each kind).
    """
    missing = [name for name in expected if name not in tensors]
    surplus = [name for name in tensors if name not in expected]
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    kinds = {"missing": missing, "surplus": surplus, "misshapen": misshapen}
    if complaints := [f"{len(found)} {kind}: {', '.join(found[:5])}" for kind, found in kinds.items() if found]:
        raise WeightsError(f"{source}: the tensors do not fit the configuration; " + "; ".join(complaints))


def load_tokenizer(folder: Path, config: EvfSamConfig) -> Tokenizer:
    """The folder's tokenizer, with ``[semantic]`` where it is an added token.

    Raises:
        WeightsError: no sentencepiece model, or ids beyond the embedding table.
    """
    semantic = _semantic_id(folder)
    tokenizer = Tokenizer(_file(folder, PIECES), config.beit3.max_text_tokens, semantic)
    highest = max(tokenizer.pieces.get_piece_size(), semantic or 0)
    if highest >= config.beit3.vocab_size:
        raise WeightsError(
            f"{folder / PIECES}: ids up to {highest}, but the embedding table has {config.beit3.vocab_size} rows; "
            "this is not BEiT-3's own sentencepiece model"
        )
    return tokenizer


def _semantic_id(folder: Path) -> int | None:
    if (folder / ADDED_TOKENS).is_file():
        return json.loads((folder / ADDED_TOKENS).read_text(encoding="utf-8")).get(SEMANTIC)
    if (folder / TOKENIZER_CONFIG).is_file():
        added = json.loads((folder / TOKENIZER_CONFIG).read_text(encoding="utf-8")).get("added_tokens_decoder", {})
        return next((int(number) for number, token in added.items() if token.get("content") == SEMANTIC), None)
    return None


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise WeightsError(f"{folder} has no {name}")
    return folder / name


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The state dict of a folder: safetensors if there, else the official pickle, read without running code in it.

    Raises:
        WeightsError: neither file is there, or it is cut off or a note of Git LFS in the place of the weights.
    """
    try:
        if (folder / SAFETENSORS).is_file():
            return load_file(folder / SAFETENSORS)
        if (folder / PICKLE).is_file():
            return torch.load(folder / PICKLE, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, UnpicklingError, RuntimeError) as error:
        why = str(error).partition("\n")[0]
        raise WeightsError(
            f"{folder}: its weights cannot be read ({why}); is the download complete, and not a note of Git LFS, for "
            "which `git lfs pull` brings the weights?"
        ) from error
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
