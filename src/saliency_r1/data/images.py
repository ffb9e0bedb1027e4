"""What the import makes of pictures and masks beyond reading them: thumbnails, and masks turned along."""

import numpy as np
from PIL import Image

THUMBNAIL = 16  # pixels a side


def thumbnail(image: Image.Image) -> bytes:
    """The picture as 16 x 16 x 3 bytes (RGB, averaged): nearly the same after scaling or saving it again."""
    return image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes()


def turned(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8) to an array, as `ImageOps.exif_transpose` does to a picture."""
    if orientation == 1:
        return mask
    if orientation in (5, 6, 7, 8):
        mask = mask.T
    if orientation in (2, 3, 6, 7):
        mask = mask[:, ::-1]
    if orientation in (3, 4, 7, 8):
        mask = mask[::-1]
    return np.ascontiguousarray(mask)
