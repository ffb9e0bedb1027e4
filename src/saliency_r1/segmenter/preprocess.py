"""Pictures in, views out: the two inputs of EVF-SAM, and the way back from its logits to the picture's own size.

The arithmetic follows the official image inference to the last rounding, because the released weights know nothing
else: PIL's antialiased bilinear for SAM, bicubic without antialias for BEiT-3.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)


def inner_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) of a picture inside SAM's square view: the longest side becomes ``side``."""
    scale = side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def sam_view(image: Image.Image, side: int) -> tuple[Tensor, tuple[int, int]]:
    """SAM's input: 3 x side x side float32, normalised, padded right and bottom; and the (height, width) inside it.

    ``image`` is 8-bit RGB. Padding comes after the normalisation, so it has the mean colour.
    """
    height, width = inner_size(image.height, image.width, side)
    resized = pixels(image.resize((width, height), Image.Resampling.BILINEAR))
    normalised = (resized - torch.tensor(SAM_MEAN).view(3, 1, 1)) / torch.tensor(SAM_STD).view(3, 1, 1)
    return F.pad(normalised, (0, side - width, 0, side - height)), (height, width)


def beit_view(image: Image.Image, side: int) -> Tensor:
    """BEiT-3's input: 3 x side x side float32 around [-1, 1]; stretched, bicubic overshoot kept. ``image`` is RGB."""
    resized = F.interpolate(
        pixels(image)[None] / 255, size=(side, side), mode="bicubic", align_corners=False, antialias=False
    )
    return (resized[0] - 0.5) / 0.5


def full_size(low: Tensor, side: int, inner: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Logits of the decoder at the picture's own size.

    Args:
        low: N x h x w logits over SAM's square view, all of pictures of one size.
        side: SAM's side in pixels.
        inner: (height, width) of the picture inside the view.
        size: (height, width) of the picture.

    Returns:
        N x height x width float32.
    """
    logits = F.interpolate(low.float()[:, None], size=(side, side), mode="bilinear", align_corners=False)
    logits = logits[:, :, : inner[0], : inner[1]]
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[:, 0]


def pixels(image: Image.Image) -> Tensor:
    """An 8-bit RGB picture as 3 x H x W float32 on the 0-255 scale."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).float()
