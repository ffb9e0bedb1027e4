"""Masks as COCO writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def coded(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask H x W as `segmentation` (run lengths as text), `area` in pixels and `bbox` (left, top, width, height)."""
    from pycocotools import mask as rle

    code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode("ascii")},
        "area": int(rle.area(code)),
        "bbox": [float(value) for value in rle.toBbox(code)],
    }
