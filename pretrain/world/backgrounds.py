"""What the things stand in front of: pictures with the statistics of photographs and nothing to name in them.

`BACKGROUNDS` is the table; a function added to it, from a generator and a size to float32 H x W x 3 in [0, 255], is
drawn from at once. All of them are made of noise with a spectrum of 1/f, as natural images have.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from saliency_r1.annotation.attributes import NAMED_COLOURS

Array = NDArray[np.float32]
Size = tuple[int, int]  # width, height
MUTED = (
    (150, 150, 150), (176, 166, 148), (120, 128, 136), (138, 134, 110), (134, 116, 102), (190, 190, 186), (96, 104, 92),
    (168, 150, 140), (110, 112, 124), (196, 186, 168), (128, 140, 128), (152, 160, 170), (90, 86, 84), (206, 204, 200),
)  # fmt: skip
SKIES = (((120, 160, 205), (208, 222, 232)), ((150, 165, 180), (214, 214, 210)), ((190, 170, 170), (238, 214, 184)),
         ((92, 108, 140), (176, 180, 190)))  # fmt: skip
GROUNDS = (
    (112, 124, 82),
    (134, 120, 92),
    (172, 156, 122),
    (122, 122, 118),
    (98, 112, 84),
    (190, 184, 176),
    (92, 84, 76),
)
VIVID = (*NAMED_COLOURS.values(),)
NOISES, NOISE_SIDE = 48, 256


@cache
def _noises() -> NDArray[np.float32]:
    """Fields of 1/f noise of exponents 0.8 to 1.8, zero mean, unit variance: NOISES x side x side."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(NOISE_SIDE)[:, None], np.fft.rfftfreq(NOISE_SIDE)[None])
    frequency[0, 0] = 1.0
    fields = []
    for index in range(NOISES):
        phase = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
        field = np.fft.irfft2(phase / frequency ** (0.8 + index / NOISES), (NOISE_SIDE, NOISE_SIDE))
        fields.append((field - field.mean()) / field.std())
    return np.array(fields, np.float32)


def noise(rng: np.random.Generator, size: Size, rough: float = 0.5, stretch: tuple[float, float] = (1, 1)) -> Array:
    """A piece of 1/f noise, H x W, about unit variance; `rough` in [0, 1], `stretch` of its grain in x and y."""
    width, height = max(8, round(size[0] / stretch[0])), max(8, round(size[1] / stretch[1]))
    index = int(np.clip(NOISES * (1 - rough) + rng.normal(0, 4), 0, NOISES - 1))
    field = np.roll(_noises()[index], tuple(rng.integers(NOISE_SIDE, size=2)), (0, 1))
    field = field[: min(height, NOISE_SIDE), : min(width, NOISE_SIDE)][:: int(rng.choice((-1, 1)))]
    return np.asarray(cv2.resize(np.ascontiguousarray(field), size, interpolation=cv2.INTER_CUBIC), np.float32)


def _pick(rng: np.random.Generator, options: tuple) -> Array:
    return np.array(options[rng.integers(len(options))], np.float32)


def _tinted(field: Array, base: Array, strength: float, other: Array | None = None) -> Array:
    """A colour that varies with a field: in brightness, or towards another colour."""
    if other is None:
        return base + strength * field[..., None]
    share = 1 / (1 + np.exp(-strength / 10 * field[..., None]))
    return np.asarray(base * (1 - share) + other * share, np.float32)


def _ramp(rng: np.random.Generator, size: Size) -> Array:
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    return (columns / size[0] - 0.5) * np.cos(angle) + (rows / size[1] - 0.5) * np.sin(angle)


def plain(rng: np.random.Generator, size: Size) -> Array:
    """A wall or a sheet of paper: a soft gradient, hardly any texture."""
    base = _pick(rng, MUTED) + rng.uniform(-12, 12, 3).astype(np.float32)
    light = rng.uniform(10, 50) * _ramp(rng, size) + rng.uniform(1, 5) * noise(rng, size, 0.2)
    return np.asarray(base + light[..., None], np.float32)


def texture(rng: np.random.Generator, size: Size) -> Array:
    """Stone, plaster, moss: two colours mixed by noise."""
    base, other = _pick(rng, MUTED), _pick(rng, MUTED)
    return (
        _tinted(noise(rng, size, rng.random()), base, rng.uniform(8, 25), other) + 5 * noise(rng, size, 0.9)[..., None]
    )


def landscape(rng: np.random.Generator, size: Size) -> Array:
    """Sky with clouds over ground that gets finer towards the horizon."""
    width, height = size
    horizon = int(height * rng.uniform(0.3, 0.65))
    top, bottom = (np.array(colour, np.float32) for colour in SKIES[rng.integers(len(SKIES))])
    rows = np.linspace(0, 1, horizon, dtype=np.float32)[:, None, None]
    clouds = np.clip(noise(rng, (width, horizon), 0.3, (1.0, 0.5)), 0, 2)[..., None] * rng.uniform(0, 18)
    sky = top * (1 - rows) + bottom * rows + clouds
    base = _pick(rng, GROUNDS) + rng.uniform(-10, 10, 3).astype(np.float32)
    depth = np.linspace(0.85, 1.08, height - horizon, dtype=np.float32)[:, None, None]
    ground = _tinted(noise(rng, (width, height - horizon), 0.8, (2.0, 0.8)), base, rng.uniform(6, 16)) * depth
    return _softened(np.concatenate([sky, ground]), horizon, rng)


def _softened(image: Array, edge: int, rng: np.random.Generator) -> Array:
    """The image with the rows around an edge out of focus."""
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 2.5))
    rows = np.abs(np.arange(len(image)) - edge)[:, None, None]
    return np.asarray(np.where(rows < len(image) * 0.15, blurred, image), np.float32)


def indoors(rng: np.random.Generator, size: Size) -> Array:
    """A wall over a table or a floor with boards."""
    width, height = size
    edge = int(height * rng.uniform(0.35, 0.75))
    wall = plain(rng, (width, edge))
    base = _pick(rng, (*GROUNDS, (150, 112, 80), (120, 86, 62), (184, 150, 114)))
    floor = _tinted(noise(rng, (width, height - edge), 0.5, (6.0, 0.5)), base, rng.uniform(4, 10))
    boards = ((np.arange(width) + rng.integers(20)) % int(rng.integers(14, 40)) == 0).astype(np.float32)
    floor = floor - 12 * boards[None, :, None] * rng.integers(2)
    return _softened(np.concatenate([wall, floor.astype(np.float32)]), edge, rng)


def bokeh(rng: np.random.Generator, size: Size) -> Array:
    """Far things out of focus: soft discs of light before a dark texture."""
    image = np.ascontiguousarray(texture(rng, size) * rng.uniform(0.6, 1.0))
    for _ in range(int(rng.integers(6, 22))):
        centre = tuple(int(value) for value in rng.uniform(0, size))
        colour = (_pick(rng, MUTED + GROUNDS) * rng.uniform(0.8, 1.25)).tolist()
        layer = cv2.circle(image.copy(), centre, int(rng.uniform(0.04, 0.14) * min(size)), colour, -1)
        image = cv2.addWeighted(image, 0.5, layer, 0.5, 0)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(2, 4)), np.float32)


def water(rng: np.random.Generator, size: Size) -> Array:
    """Waves, sand or grass: noise with a grain that is long in one direction."""
    long = (rng.uniform(2, 5), 0.5) if rng.random() < 0.7 else (0.5, rng.uniform(2, 5))
    base = _pick(rng, MUTED + GROUNDS + ((104, 132, 150), (120, 150, 150)))
    return (
        _tinted(noise(rng, size, 0.6, long), base, rng.uniform(8, 22))
        + rng.uniform(0, 40) * _ramp(rng, size)[..., None]
    )


def patchwork(rng: np.random.Generator, size: Size) -> Array:
    """Clutter without names: cells of a Voronoi diagram with wavy borders, each with a tone of its own."""
    width, height = size
    points = rng.uniform(0, 1, (int(rng.integers(5, 16)), 2)) * size
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    wave = min(size) * rng.uniform(0.01, 0.06)
    columns, rows = columns + wave * noise(rng, size, 0.4), rows + wave * noise(rng, size, 0.4)
    nearest = ((columns[..., None] - points[:, 0]) ** 2 + (rows[..., None] - points[:, 1]) ** 2).argmin(-1)
    tones = np.stack([_pick(rng, MUTED + GROUNDS) for _ in points]) * rng.uniform(0.75, 1.2, (len(points), 1))
    image = cv2.GaussianBlur(tones[nearest].astype(np.float32), (0, 0), rng.uniform(0.6, 3))
    return np.asarray(image + rng.uniform(3, 9) * noise(rng, size, 0.7)[..., None], np.float32)


def leaves(rng: np.random.Generator, size: Size) -> Array:
    """Clutter as photographs have it: things of all sizes hide each other, each of a colour and grain of its own.

    The dead leaves model (Lee, Mumford and Huang 2001): radii fall off with their third power. None of them is a thing
    that is told of, strong as its colour may be.
    """
    width, height = size
    vivid = [_pick(rng, VIVID) * 0.7 + _pick(rng, MUTED) * 0.3 for _ in range(2)]
    palette = np.array([_pick(rng, MUTED + GROUNDS) for _ in range(5)] + vivid)
    palette = palette[rng.permutation(len(palette))[: rng.integers(3, 7)]]
    low, high = (rng.uniform(*reach) * min(size) for reach in ((0.05, 0.2), (0.4, 1.2)))
    image = np.ascontiguousarray(texture(rng, size))
    grain, shade = noise(rng, size, 0.8), _ramp(rng, size)
    for _ in range(int(rng.integers(15, 70))):
        share = rng.random()
        radius = 1 / np.sqrt((1 - share) / low**2 + share / high**2)
        turn = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 12))))
        reach = radius * rng.uniform(0.6, 1.2, (len(turn), 2)) * (1, rng.uniform(0.5, 1))
        outline = np.stack([np.cos(turn), np.sin(turn)], 1) * reach + rng.uniform(0, size)
        inside = cv2.fillPoly(np.zeros((height, width), np.uint8), [np.rint(outline).astype(np.int32)], 1) > 0
        colour = palette[rng.integers(len(palette))] * rng.uniform(0.6, 1.2) + rng.uniform(-15, 15, 3)
        light = rng.uniform(2, 14) * grain + rng.uniform(-60, 60) * shade
        image[inside] = (colour + light[..., None])[inside]
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.0)), np.float32)


BACKGROUNDS: tuple[Callable[[np.random.Generator, Size], Array], ...] = (
    plain, texture, landscape, landscape, indoors, indoors, bokeh, water, patchwork,
)  # fmt: skip


def background(rng: np.random.Generator, size: Size, cluttered: bool = False) -> Array:
    """A background of any kind, now and then out of focus, darker towards the corners: float32 H x W x 3."""
    image = leaves(rng, size) if cluttered else BACKGROUNDS[rng.integers(len(BACKGROUNDS))](rng, size)
    if rng.random() < 0.35:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 2.0)), np.float32)
    rows, columns = np.mgrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j].astype(np.float32)
    return np.asarray(image * (1 - rng.uniform(0, 0.1) * (rows**2 + columns**2))[..., None], np.float32)
