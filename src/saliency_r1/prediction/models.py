"""Which models `--model` means: policy, adapter and segmenter in one, and the sizes they were trained with.

exported/                          what `saliency-r1 export` has written
some/folder                        a policy of one's own; then a segmenter is named beside it
champion                           the model that was promoted last
owner/model[@revision]             one of these on the Hugging Face hub
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.text import read_json
from saliency_r1.prediction import hub
from saliency_r1.prediction.predictor import PredictError, Predictor

if TYPE_CHECKING:
    import torch

    from saliency_r1.params import Params
    from saliency_r1.prediction.packaged import Packaged

MANIFEST = "saliency_r1.json"
PARAMS = Path("params.yaml")
CHAMPION = "champion"
_SAMPLES, _PIECE = 1024, 16384  # pieces of a large file, and their bytes: 16 MB
_LARGEST_CHUNK = 5  # images of a group in one prompt, where nobody says otherwise


@dataclass(frozen=True)
class Settings:
    """How models are run: `loading` are arguments of `Policy.load`, `batches` of `segmenter.load`; `dtype` by name.

    `batch` is how many prompts are answered at once, `chunk` how many images of a group a prompt has at most.
    """

    device: str = "auto"
    dtype: str | None = None
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    seed: int = 0
    max_new_tokens: int = 512
    batch: int = 16
    chunk: int = _LARGEST_CHUNK
    loading: dict[str, Any] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, params: Params | Packaged) -> Settings:
        """Those of a params file, the project's or a package's, as in the training."""
        return cls(
            device=params.runtime.device,
            dtype=params.runtime.dtype,
            threads=params.runtime.threads,
            seed=params.seed,
            max_new_tokens=params.policy.max_new_tokens,
            batch=params.policy.batch_size,
            chunk=params.download.cosod_chunk,
            loading=params.policy.loading,
            batches=params.segmenter.model_dump(),
        )


@dataclass(frozen=True)
class Chosen:
    """Models on this machine, by their folders, and what they are called in results."""

    name: str
    policy: Path
    adapter: Path | None
    segmenter: Path
    settings: Settings


def choose(model: str, segmenter: str | None = None) -> Chosen:
    """What a name means; from the hub it is fetched, and its size is said before.

    Raises `PredictError` for what is no model, or one without a segmenter.
    """
    if model == CHAMPION:
        return champion(segmenter)
    folder = _folder(model, hub.MODEL_FILES)
    if (folder / MANIFEST).is_file():
        about = manifest(folder)
        own = about["segmenter"]
        named = segmenter or (str(folder / own["folder"]) if "folder" in own else f"{own['source']}@{own['revision']}")
        settings = Settings(
            dtype=about["dtype"],
            max_new_tokens=about["sizes"]["max_new_tokens"],
            chunk=about["sizes"]["cosod_chunk"],
            loading=about["loading"],
        )
        if about["form"] == "adapter" and "revision" in about["base"]:
            hub.fetch(f"{about['base']['source']}@{about['base']['revision']}", hub.MODEL_FILES)
        # Policy.load finds base and adapter of an exported folder by itself.
        return Chosen(model, folder, None, _folder(named, hub.SEGMENTER_FILES), settings)
    if (folder / "adapter_config.json").is_file():
        raise PredictError(
            f"{model} is an adapter without its base: name both (--policy BASE --adapter {model}), or export them "
            "(saliency-r1 export)"
        )
    if not (folder / "config.json").is_file():
        raise PredictError(f"{model}: there is no model in this folder (config.json); `saliency-r1 export` makes one")
    if segmenter is None:
        raise PredictError(
            f"{model} is a policy alone: name a segmenter, --segmenter YxZhang/evf-sam-multitask or a folder"
        )
    return Chosen(model, folder, None, _folder(segmenter, hub.SEGMENTER_FILES), Settings())


def trained_here(policy: Path, adapter: Path | None, segmenter: str | Path, params: Path | None) -> Chosen:
    """Folders of a pipeline that has run here, in the sizes of `params`, else of the params.yaml that is there, if any.

    The segmenter may be a name of the hub as well. Raises `PredictError` for a folder that is missing, `ParamsError`
    for a params file that cannot be used.
    """
    for folder in (policy, adapter):
        if folder is not None and not folder.is_dir():
            raise PredictError(f"{folder}: there is no such folder; `dvc repro` makes the models, or name your own")
    name = f"{policy} + {adapter}" if adapter else str(policy)
    params = params or (PARAMS if PARAMS.is_file() else None)
    settings = sizes(params) or Settings()
    return Chosen(name, policy, adapter, _folder(str(segmenter), hub.SEGMENTER_FILES), settings)


def sizes(params: Path | None) -> Settings | None:
    """Those of a params file; None without one. Raises `ParamsError` for a file that cannot be used."""
    from saliency_r1.params import load_params

    return Settings.of(load_params(params)) if params else None


def champion(segmenter: str | None = None, root: Path = Path(".")) -> Chosen:
    """The model that was promoted last in the project `root`, in the sizes it was trained with.

    Raises `PredictError` while there is none, `RegistryError` where it is nowhere to be had.
    """
    from saliency_r1.prediction.packaged import load_packaged
    from saliency_r1.registry.champion import champion as promoted
    from saliency_r1.registry.champion import resolve
    from saliency_r1.registry.git import GitError

    try:
        known = promoted(root)
    except GitError:  # no repository, no git
        known = None
    if known is None:
        raise PredictError(
            "there is no champion: no model has been promoted here. Name a folder, an exported model, or owner/model "
            "of the hub"
        )
    folder = resolve(CHAMPION, root)
    settings = replace(Settings.of(load_packaged(folder / "params.yaml")), device="auto", threads=Settings().threads)
    return Chosen(
        CHAMPION,
        packaged(folder, "policy"),
        folder / "adapter",
        _folder(segmenter, hub.SEGMENTER_FILES) if segmenter else packaged(folder, "segmenter"),
        settings,
    )


def packaged(folder: Path, name: str) -> Path:
    """The base `policy` or `segmenter` of a folder that the stage model has written, fetched where it is of the hub.

    Raises `PackageError` for a folder that does not say where it is, `PredictError` where it is not to be had.
    """
    from saliency_r1.registry.package import base

    return _folder(base(folder, name), hub.SEGMENTER_FILES if name == "segmenter" else hub.MODEL_FILES)


def manifest(folder: Path) -> dict[str, Any]:
    """What an exported folder says of itself. Raises `PredictError` for one that cannot be read."""
    from saliency_r1.params import Runtime

    try:
        content = read_json(folder / MANIFEST)
        if content["format"] != 1:
            raise PredictError(f"{folder / MANIFEST} has format {content['format']}, expected 1: update this package")
        sizes, segmenter = content["sizes"], content["segmenter"]
        complete = sizes["max_new_tokens"] > 0 and sizes["cosod_chunk"] > 0 and isinstance(content["loading"], dict)
        inside = segmenter.get("folder", "segmenter") == "segmenter"
        known = content["dtype"] in get_args(Runtime.model_fields["dtype"].annotation)
    except (InputError, KeyError, TypeError, AttributeError) as error:
        raise PredictError(f"{folder / MANIFEST} is not what `saliency-r1 export` writes ({error!r})") from None
    if not complete or not inside or not known:
        raise PredictError(
            f"{folder / MANIFEST} is not what `saliency-r1 export` writes (sizes, loading, segmenter, dtype)"
        )
    return dict(content)


def identity(chosen: Chosen) -> str:
    """The name of models with a hash of their weights: the same folder, or `champion`, is another model tomorrow."""
    digest = hashlib.sha256()
    base = chosen.policy / "base"  # of an exported adapter, which is read with it
    within = [base] if base.is_dir() and (chosen.policy / "adapter_config.json").is_file() else []
    for folder in (chosen.policy, *within, chosen.adapter, chosen.segmenter):
        files = sorted(folder.iterdir()) if folder else []  # not what lies deeper: weights are read from there alone
        for file in files:
            if (file.suffix in (".safetensors", ".bin") or file.name == "adapter_config.json") and file.is_file():
                digest.update(_sampled(file))
        digest.update(b"/")
    return f"{chosen.name} ({digest.hexdigest()[:8]})"


def _sampled(file: Path) -> bytes:
    """The bytes of a small file; of a large one its size and so many pieces that no training leaves all of them."""
    size = file.stat().st_size
    if size <= _SAMPLES * _PIECE:
        return file.read_bytes()
    pieces = [str(size).encode()]
    with file.open("rb") as stream:
        for number in range(_SAMPLES):
            stream.seek((size - _PIECE) * number // (_SAMPLES - 1))
            pieces.append(stream.read(_PIECE))
    return b"".join(pieces)


def load(chosen: Chosen) -> Predictor:
    """Read the models."""
    settings = chosen.settings
    device, dtype = prepare(settings)
    return Predictor.load(
        chosen.policy,
        chosen.adapter,
        chosen.segmenter,
        device,
        dtype,
        settings.max_new_tokens,
        settings.batches,
        **settings.loading,
    )


def prepare(settings: Settings) -> tuple[torch.device, torch.dtype]:
    """Device and type to compute with, after seeds and threads are set. Raises `StageError` for a missing device."""
    import transformers  # noqa: F401  a second of importing, which a wrong request is spared

    from saliency_r1.params import Runtime
    from saliency_r1.runtime.stage import prepare_torch, quiet_libraries

    quiet_libraries()
    runtime = {"device": settings.device, "dtype": settings.dtype or "float32", "threads": settings.threads}
    return prepare_torch(Runtime.model_validate(runtime), settings.seed)


def _folder(name: str, files: tuple[str, ...]) -> Path:
    """The folder of a name: that folder, or what the hub has under it."""
    path = Path(name)
    if path.is_dir():
        return path
    if hub.is_name(name):
        return hub.fetch(name, files)
    raise PredictError(
        f"{name}: there is no such folder, and it is no name of the hub (owner/model or owner/model@revision)"
    )
