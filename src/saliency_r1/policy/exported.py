"""A folder that holds an adapter and says where its base is, as `saliency-r1 export` writes one."""

from __future__ import annotations

import json
from pathlib import Path

BASE = "base"


def parts(folder: str | Path, adapter: str | Path | None) -> tuple[str | Path, str | Path | None]:
    """The folder of the base, and of what was learnt on top of it.

    The base of an exported adapter lies in `base/`, or on the hub at the revision that the adapter's configuration
    names; every other folder is a base itself. Raises what the hub's client raises where it does not give the base.
    """
    config = Path(folder) / "adapter_config.json"
    if adapter is not None or not config.is_file():
        return folder, adapter
    inside = Path(folder) / BASE
    if inside.is_dir():
        return inside, folder
    from huggingface_hub import snapshot_download

    about = json.loads(config.read_text(encoding="utf-8"))
    base = snapshot_download(
        about["base_model_name_or_path"],
        revision=about.get("revision"),
        allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"],
    )
    return base, folder
