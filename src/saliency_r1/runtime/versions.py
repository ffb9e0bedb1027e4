"""With which packages a stage has run: kept beside its table, for the page that names them."""

import sys
from importlib import metadata
from pathlib import Path

from saliency_r1.runtime.files import write_json

# Those whose code takes part in a number or a picture.
PACKAGES = (
    "torch", "torchvision", "transformers", "tokenizers", "sentencepiece", "safetensors", "peft", "accelerate",
    "segment-anything", "numpy", "scipy", "numba", "polars", "pillow", "opencv-python-headless", "pycocotools",
    "faster-coco-eval", "matplotlib",
)  # fmt: skip
FILE = "versions.json"


def versions() -> dict[str, str]:
    """Versions of Python and of the `PACKAGES` that are installed. No time and no place: equal set-ups give equal ones.

    Python's third number is left out. It decides nothing here, and every machine has another.
    """
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_versions(folder: Path) -> None:
    """Write `versions.json` into the folder that a stage fills."""
    write_json(folder / FILE, versions())
