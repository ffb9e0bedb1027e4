"""A saliency map as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saliency_r1.metrics.saliency import to_levels


def write_map(values: NDArray[np.floating[Any]], path: Path) -> None:
    """Write a map (float H x W in [0, 1]) as an 8-bit PNG, 255 for 1; its folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_levels(values)).save(path)
