"""The one reader of masks, of saliency maps and of maps of instance ids, with the one rule of what is foreground.

A map has levels, of which 255 is full: greys as they are, colours and palettes by their luma, 16 bits rounded to 8 (as
they are where none is above 255), and the alpha channel of a file whose colours say nothing. Foreground is what lies
above a threshold. Where nothing does, though the file is not black, the threshold is not the one that was meant, and
the file is refused with its values and the remedy. A black file is an empty mask. Refused as well are colours on both
sides of the threshold, and 16 bits a colour, of which Pillow keeps the upper 8.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import shown
from saliency_r1.inputs.pictures import has_more_frames, open_whole, orientation, stored_modes

MOST_ID = 65535
_MOST_COLOURS = 255  # a picture with more is antialiased or was saved with losses
_VOC_VOID = 255
_VOC_VOID_COLOUR = 0xE0E0C0
_MOST_LABEL = 20  # of VOC's classes
_HALF = 127
_SAID = 8  # values in a message
_TINT = 32  # between the channels of a colour: less is a grey that was saved with losses
GREYS = "values"
_PALETTE = "the luma of its palette"
_COLOURS = "the luma of its colours"
_ALPHA = "its alpha channel"


class Levels(NamedTuple):
    """A map as read: `values` (uint8 H x W, 255 is full), and what the file holds there (`stored`, `kind`).

    `stored` are greys, palette indices, or colours as 0xRRGGBB; `colours` are the colours (so, H x W) that the values
    were made of, of a palette or exact ones, 0 where they are invisible. `border` is how VOC's undecided pixels are
    written, if there are any.
    """

    values: NDArray[np.uint8]
    stored: NDArray[Any]
    kind: str
    colours: NDArray[np.int32] | None = None
    border: str = ""


class IdMap(NamedTuple):
    """Instance ids, int32 H x W, 0 where there is none; `void` are the pixels declared so (bool H x W), if any are."""

    ids: NDArray[np.int32]
    void: NDArray[np.bool_] | None


class Mask(NamedTuple):
    """A binary mask, bool H x W; `void` are the pixels that are neither foreground nor background, if any can be."""

    foreground: NDArray[np.bool_]
    void: NDArray[np.bool_] | None


def read_levels(path: Path) -> Levels:
    """The levels of a map. Raises `InputError` for what is no map of 8 or 16 bits, and as `open_whole` does."""
    image = _opened(path)
    if image.mode == "P":
        levels = _indexed(image)
    elif image.mode.startswith("I"):
        levels = _wide(np.asarray(image), path)
    elif image.mode in ("L", "1", "LA"):
        values = np.asarray(image.convert("L"))
        levels = Levels(values, values, GREYS)
    else:
        levels = _coloured(image, path)
    return _transparent(levels, _alpha(image), path) if image.has_transparency_data else levels


def read_mask(
    path: Path,
    above: int,
    remedy: Callable[[int], str],
    void: int | None = None,
    exact: bool = False,
    may_be_empty: bool = False,
    said: bool = False,
) -> Mask:
    """The foreground of a file: levels above `above` (0 to 254).

    Args:
        path: the file.
        above: the largest level that is background.
        remedy: how the caller's user says that levels from the given one on are foreground.
        void: the stored value (grey, palette index, 0xRRGGBB in colours) of pixels that are neither.
        exact: whether the levels must be 0 and 255.
        may_be_empty: whether levels that all lie below the threshold mean that there is no foreground (sets of several
            levels, such as PASCAL-S, have such masks).
        said: whether the caller's user has chosen `above`, so that 255 beside small numbers is the object.

    Raises:
        InputError: as `read_levels`; nothing is foreground though the file is not black, colours lie on both sides
            of the threshold, VOC's border is not declared, or the levels are not exact.
    """
    levels = read_levels(path)
    if void is None and levels.border:
        raise InputError(
            f"{shown(path)}: some pixels are VOC's border (cream), which is neither foreground nor background: "
            f"{_declare(levels.border)}"
        )
    if void is None and not said and (labels := _labels(levels)).size:
        raise InputError(
            f"{shown(path)}: {levels.kind} {_listed(np.unique(levels.values))}: if 255 is a border that is neither, "
            f"{_declare('255')} and {remedy(int(labels[0]))}; if 255 is the object, {remedy(_HALF + 1)}"
        )
    left_out = None if void is None else _is_void(levels, void)
    kept = None if left_out is None else ~left_out
    if (fault := _fault(levels, kept, above, exact)) and not (may_be_empty and levels.values.max() <= above):
        meant = _meant(levels, kept)
        cure = remedy(meant) if meant else "all its colours are black; save it as a grey mask"
        raise InputError(f"{shown(path)}: {fault}: {cure}")
    foreground = levels.values > above
    return Mask(foreground if kept is None else foreground & kept, left_out)


def read_ids(path: Path, void: int | None = None, colours: bool | None = None) -> NDArray[np.int32]:
    """A map of instance ids, int32 H x W; 0 is background and void.

    Palette indices and greys are ids as they are; in a colour image every colour but black is one, numbered in the
    order of the colours (`colours=True` reads a palette so too, `False` refuses a colour image). What is transparent
    is background. `void` is the stored value, or in colours 0xRRGGBB, that is no instance. Raises `InputError`.
    """
    return read_id_map(path, void, colours).ids


def read_id_map(path: Path, void: int | None = None, colours: bool | None = None) -> IdMap:
    """`read_ids`, and where the void pixels are."""
    image = _opened(path)
    name = shown(path)
    if _lossy(image, path):
        raise InputError(
            f"{name}: a map of instances saved with losses ({image.format}): every shade at an edge would be an "
            "instance; save it as PNG"
        )
    plain = image.mode in ("P", "L", "1", "I") or image.mode.startswith("I;16")
    if colours is False and not plain:
        raise InputError(f"{name}: mode {image.mode}, expected indexed colour or grey: use layout colour_map")
    wide = image.mode.startswith("I")  # which as colours would be cut at 255
    stored = np.asarray(image).astype(np.int64) if wide or (plain and not colours) else _packed(_opaque(image))
    if plain and not colours and (stored.min(initial=0) < 0 or stored.max(initial=0) > MOST_ID):
        raise InputError(f"{name}: instance ids from {stored.min()} to {stored.max()}, expected 16 bits without a sign")
    left_out = None if void is None else stored == void
    if left_out is not None:
        stored = np.where(left_out, 0, stored)
    if image.has_transparency_data:
        stored = np.where(_alpha(image) > 0, stored, 0)
    present = np.unique(np.append(stored, 0))
    if void is None and (border := _voc_border(present, coloured=not plain or bool(colours))):
        raise InputError(
            f"{name}: {border} stands beside the instances {_listed(present[present > 0][:-1])}; in VOC it is the "
            f"border that is neither: {_declare(border)}, or give that instance the next number"
        )
    if plain and not colours:
        return IdMap(stored.astype(np.int32), left_out)
    if len(present) - 1 > _MOST_COLOURS:
        raise InputError(
            f"{name}: {len(present) - 1} colours, expected one an instance: antialiased, or saved with losses"
        )
    return IdMap(np.searchsorted(present, stored).astype(np.int32), left_out)


def _opened(path: Path) -> Image.Image:
    """A file of one mask, as it is stored. Raises `InputError` as `open_whole` does, and where it holds other ones."""
    image = open_whole(path)
    if has_more_frames(image, path):
        raise InputError(f"{shown(path)} has several frames or pages, expected one: save the mask that is meant alone")
    if (turn := orientation(image)) != 1:
        raise InputError(
            f"{shown(path)} is a mask with an EXIF orientation of its own ({turn}), which readers apply or ignore: "
            "save it without, its pixels as they are meant"
        )
    _check_depth(image, path)
    return image


def _check_depth(image: Image.Image, path: Path) -> None:
    """Refuse values of which Pillow would keep a part: floats, and colours of 16 bits."""
    if image.mode == "F":
        raise InputError(f"{shown(path)} has values of type float32, expected grey of 8 or 16 bits: save it so")
    single = image.mode in ("P", "L", "1") or image.mode.startswith("I")
    if not single and image.format in ("PNG", "TIFF") and any(";16" in mode for mode in stored_modes(path)):
        raise InputError(
            f"{shown(path)} has 16 bits in each of several channels, expected 8 or one channel: save it as grey, or "
            "with 8 bits a channel"
        )


def _packed(opaque: Image.Image) -> NDArray[np.int32]:
    """The colours of an RGB image as 0xRRGGBB."""
    rgb = np.asarray(opaque).astype(np.int32)
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def _opaque(image: Image.Image) -> Image.Image:
    """The colours of a file, also where they are transparent."""
    return (image.convert("RGBA") if image.has_transparency_data else image).convert("RGB")


def _alpha(image: Image.Image) -> NDArray[np.uint8]:
    """The transparency of a file that has one: 0 is invisible."""
    if image.mode.startswith("I"):  # Pillow cuts 16 bits at 255 on the way to an alpha channel
        return np.where(np.asarray(image) == image.info["transparency"], 0, 255).astype(np.uint8)
    return np.asarray(image.convert("RGBA").getchannel("A"))


def _is_void(levels: Levels, void: int) -> NDArray[np.bool_]:
    """The pixels of the value `void`; that of a grey may be written as a colour (0x808080)."""
    grey = void & 255
    if levels.kind != _PALETTE and levels.stored.dtype == np.uint8 and void == grey * 0x010101:
        void = grey
    return np.asarray(levels.stored == void)


def _labels(levels: Levels) -> NDArray[np.int64]:
    """The numbers of objects beside 255, as VOC has them; none where they may be noise beside an object of 255."""
    present = np.flatnonzero(np.bincount(levels.values.ravel(), minlength=_VOC_VOID + 1))
    labels = present[(present > 0) & (present < _VOC_VOID)]
    small = present[-1] == _VOC_VOID and labels.size > 0 and labels[-1] <= _MOST_LABEL
    if not small or not np.array_equal(levels.stored, levels.values):
        return labels[:0]
    flat = levels.values[_flat(levels.values.astype(np.int32))]
    return labels if np.isin(flat, labels).any() else labels[:0]


def _voc_border(present: NDArray[Any], coloured: bool) -> str:
    """How VOC's value of undecided pixels is written, if it stands among the values of a map as there; else nothing."""
    if coloured:
        return "0xE0E0C0" if _VOC_VOID_COLOUR in present else ""
    ids = present[present > 0]
    numbered = ids[:-1].tolist() == list(range(1, len(ids))) and 1 < len(ids) < _VOC_VOID
    return str(_VOC_VOID) if numbered and ids[-1] == _VOC_VOID else ""


def _declare(void: str) -> str:
    return f"declare it (mask: {{void: {void}}} in the catalogue, --void {void} of evaluate)"


def _lossy(image: Image.Image, path: Path) -> bool:
    """Whether a file was saved so that its values are nearly what they were."""
    if image.format == "WEBP":
        with path.open("rb") as file:
            return b"VP8L" not in file.read(4096)
    return image.format in ("JPEG", "MPO", "AVIF")


def _transparent(levels: Levels, alpha: NDArray[np.uint8], path: Path) -> Levels:
    """Levels of a file with an alpha channel: the colours if alpha says nothing, alpha if the colours say nothing."""
    luma = levels.values
    visible = luma[alpha > 0]
    if alpha.min() == alpha.max() > 0:
        return levels
    if visible.size == 0 and luma.min() != luma.max():
        raise InputError(f"{shown(path)} is transparent everywhere over colours that differ: save it without alpha")
    if visible.size == 0 or visible.min() == visible.max():
        stored = alpha if levels.colours is None else levels.stored
        return Levels(alpha, stored, _ALPHA, border=levels.border)
    if np.array_equal(luma > _HALF, alpha > _HALF):
        return levels if levels.colours is None else levels._replace(colours=np.where(alpha > 0, levels.colours, 0))
    raise InputError(
        f"{shown(path)} has one mask in its colours and another one in its alpha channel: save the one that is meant "
        "as a grey PNG (a cut-out has it in its alpha channel)"
    )


def _indexed(image: Image.Image) -> Levels:
    opaque = _opaque(image)
    indices, colours, values = np.asarray(image), _packed(opaque), np.asarray(opaque.convert("L"))
    border = (indices == _VOC_VOID) & (colours == _VOC_VOID_COLOUR)
    return Levels(values, indices, _PALETTE, colours, str(_VOC_VOID) if border.any() else "")


def _coloured(image: Image.Image, path: Path) -> Levels:
    """Levels of colours; where all are greys, those are what the file holds."""
    opaque = _opaque(image)
    values, packed = np.asarray(opaque.convert("L")), _packed(opaque)
    if np.array_equal(packed, values * np.int32(0x010101)):
        return Levels(values, values, _COLOURS)
    if _lossy(image, path):
        if not image.has_transparency_data and _is_photo(opaque, values):
            raise InputError(
                f"{shown(path)} is a colour picture saved with losses ({image.format}), expected a map or mask: if it "
                "is the photo itself, its mask is missing; a map in colours is to be saved as grey PNG"
            )
        return Levels(values, packed, _COLOURS)
    return Levels(values, packed, _COLOURS, packed, _voc_border(packed, coloured=True))


def _is_photo(opaque: Image.Image, values: NDArray[np.uint8]) -> bool:
    """Whether more than a twentieth of the pixels have a clear tint, and two levels of 16 hold less than three fifths.

    A mask in colours has two levels, whatever losses have made of its edges.
    """
    tint = np.ptp(np.asarray(opaque), axis=-1)
    return bool(
        (tint > _TINT).mean() > 0.05 and np.sort(np.bincount((values >> 4).ravel()))[-2:].sum() < 0.6 * tint.size
    )


def _wide(stored: NDArray[Any], path: Path) -> Levels:
    """Levels of more than 8 bits: 65535 is full, or 255 where no value is above it."""
    if stored.min() < 0 or stored.max() > 65535:
        raise InputError(f"{shown(path)} has values from {stored.min()} to {stored.max()}, expected 8 or 16 bits")
    values = stored.astype(np.uint32)
    if values.max() > 255:
        return Levels(((values + 128) // 257).astype(np.uint8), stored, "values of 16 bits")
    return Levels(values.astype(np.uint8), stored, GREYS)


def _fault(levels: Levels, kept: NDArray[np.bool_] | None, above: int, exact: bool) -> str:
    """Why levels are not what the threshold `above` was made for; empty if they are. `kept` leaves void pixels out."""
    values = levels.values if kept is None else levels.values[kept]
    stored = levels.stored if kept is None else levels.stored[kept]
    if values.size == 0 or not (values.any() or (levels.kind != _COLOURS and stored.min() != stored.max())):
        return ""  # black, or void, everywhere
    if values.max() <= above:
        return f"{levels.kind} {_values(levels.kind, values, stored)}, none of them above {above}"
    if exact and (odd := np.unique(values[(values > 0) & (values < 255)])).size:
        return f"{levels.kind} {_listed(odd)} beside 0 and 255"
    if levels.colours is not None and _divided(levels, levels.colours, kept, above):
        return f"{levels.kind} {_listed(np.unique(values))}, some of its colours above {above} and some not"
    return ""


def _divided(levels: Levels, colours: NDArray[np.int32], kept: NDArray[np.bool_] | None, above: int) -> bool:
    """Whether the threshold parts colours that are equally meant.

    A palette holds what was meant, so that any colour in it speaks. Elsewhere only a colour below the threshold that
    fills a square of 3 x 3 pixels does: what is narrower may be the soft edge of an object.
    """
    lost = (levels.values > 0) & (levels.values <= above) & (colours > 0)
    if kept is not None:
        lost &= kept
    if not lost.any():
        return False
    channels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255])
    tint = channels.max(0) - channels.min(0)
    if levels.kind == _PALETTE:
        return bool((tint > 0).any() if kept is None else (tint > 0)[kept].any())
    lost &= tint > _TINT
    return bool(lost.any() and (lost & _flat(colours)).any())


def _flat(colours: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The pixels whose eight neighbours have the same colour."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(colours, 1, constant_values=-1), (3, 3))
    return np.asarray((around == colours[..., None, None]).all((-2, -1)))


def _meant(levels: Levels, kept: NDArray[np.bool_] | None) -> int:
    """The level from which on a mask most likely means foreground: half where there is more, or else all but black."""
    values = levels.values if kept is None else levels.values[kept]
    if values.max() > _HALF and levels.colours is None:
        return _HALF + 1
    return int(values[values > 0].min(initial=255)) if values.any() else 0


def _values(kind: str, values: NDArray[np.uint8], stored: NDArray[Any]) -> str:
    """The values of a map as a person finds them: what the file holds, and its level where that is another."""
    if kind in (_COLOURS, _ALPHA) or (stored.dtype == np.uint8 and np.array_equal(values, stored)):
        return _listed(np.unique(values))
    return f"{_listed(np.unique(values))} of 255 (stored as {_listed(np.unique(stored))})"


def _listed(values: NDArray[Any]) -> str:
    """The first and last of some values."""
    said = [str(value) for value in values.tolist()]
    return ", ".join(said if len(said) <= _SAID else [*said[: _SAID - 2], "...", said[-1]])
