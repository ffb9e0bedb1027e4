"""Models of the Hugging Face hub: what they weigh, said before anything is fetched; never code, never pickles but
EVF-SAM's own, which is read without running what is in it.

The key, where one is needed, comes from the environment (`HF_TOKEN`).
"""

from __future__ import annotations

import re
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from saliency_r1.prediction.predictor import PredictError

MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
SEGMENTER_FILES = ("*.json", "*.safetensors", "pytorch_model.bin", "*.model")
_PATIENCE = 10.0  # seconds that the hub may take to say what it has
_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(@[\w][\w./-]*)?")


def is_name(text: str) -> bool:
    """Whether a text can be a name of the hub: `owner/model`, with `@revision` or without."""
    return _NAME.fullmatch(text) is not None


def fetch(name: str, files: tuple[str, ...]) -> Path:
    """The folder of a model of the hub on this machine, fetched if it is not there yet.

    Says on stderr which revision is taken and how much is fetched. Raises `PredictError` where the hub does not give
    it, or the disk has no room.
    """
    from huggingface_hub import HfApi, snapshot_download

    from saliency_r1.data.models import hub_errors

    repository, _, revision = name.partition("@")
    chosen: dict[str, Any] = {"revision": revision or None, "allow_patterns": list(files)}
    try:
        about = HfApi().model_info(repository, revision=revision or None, files_metadata=True, timeout=_PATIENCE)
    except hub_errors() as error:
        try:  # without a network, what was fetched before serves
            return Path(snapshot_download(repository, local_files_only=True, **chosen))
        except hub_errors():
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise PredictError(
                f"{name} is not to be had from the Hugging Face hub ({reason}): check name, revision and network; a "
                "model that is not public needs HF_TOKEN in the environment"
            ) from None
    sizes = {one.rfilename: one.size or 0 for one in about.siblings or () if _wanted(one.rfilename, files)}
    _announce(f"{repository}@{about.sha}", _absent(repository, str(about.sha), sizes))
    try:  # by the name that was given: the cache then knows it without a network, too
        return Path(snapshot_download(repository, **chosen))
    except hub_errors() as error:
        raise PredictError(f"{name} could not be fetched ({error}); a further run goes on from there") from None


def _wanted(file: str, files: tuple[str, ...]) -> bool:
    return any(fnmatch(file, pattern) for pattern in files)


def _absent(repository: str, revision: str, sizes: dict[str, int]) -> dict[str, int]:
    """Those of the files, with their bytes, that are not on this machine."""
    from huggingface_hub import try_to_load_from_cache

    found = {file: try_to_load_from_cache(repository, file, revision=revision) for file in sizes}
    return {file: size for file, size in sizes.items() if not isinstance(found[file], str)}


def _announce(what: str, absent: dict[str, int]) -> None:
    """Say what will be fetched. Raises `PredictError` where it does not fit on the disk."""
    from huggingface_hub.constants import HF_HUB_CACHE

    if not absent:
        return
    size = sum(absent.values())
    cache = Path(HF_HUB_CACHE)
    print(f"{what}: {gigabytes(size)} to be fetched in {len(absent)} files, into {cache}", file=sys.stderr, flush=True)
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    if size > (room := shutil.disk_usage(there).free):
        raise PredictError(f"{what} takes {gigabytes(size)}, and {there} has {gigabytes(room)} left; HF_HOME moves it")


def gigabytes(size: int) -> str:
    """Bytes as people say them: 7.51 GB, 3.4 MB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
