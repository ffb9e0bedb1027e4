"""Rendered scenes with ground truth: the embedded data sets and the material on which the tiny bases are pretrained.

A scene is a muted, textured background with one to five objects in distinct cells of a 3 x 3 grid. An object is
*salient* in a single image when it is large and vivid; small objects and faint ones (blended into the background) are
the distractors. In a group, the salient object is the one whose colour and shape occur in every image, however
inconspicuous it is there. A few combinations of colour and shape (`UNSEEN`) never occur outside the "unseen" test sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from saliency_r1.annotation.wording import PLACES

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (44, 160, 60),
    "blue": (40, 80, 215),
    "yellow": (240, 214, 40),
    "purple": (140, 50, 170),
    "orange": (245, 135, 25),
}
SHAPES = ("circle", "square", "triangle", "star", "ring")
SIZES = ("large", "small")
TONES = ("vivid", "faint")
UNSEEN = frozenset({("red", "star"), ("blue", "ring"), ("green", "triangle"), ("yellow", "square")})
CANVASES = ((96, 96), (128, 96), (96, 128), (112, 112), (112, 96), (96, 112))
BACKGROUNDS = ((150, 150, 150), (176, 166, 148), (120, 128, 136), (138, 134, 110), (134, 116, 102), (190, 190, 186))
FAINT_OPACITY = (0.36, 0.44)
OVERSAMPLING = 4


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene; `id` counts from 1, `salient` says whether it belongs to the ground truth."""

    id: int
    colour: str
    shape: str
    size: str
    tone: str
    place: str
    salient: bool

    @property
    def kind(self) -> tuple[str, str]:
        """The combination (colour, shape) that names the object."""
        return self.colour, self.shape

    def to_json(self) -> dict[str, Any]:
        """The object as a row of `attributes.json`."""
        return asdict(self)


@dataclass(frozen=True)
class Scene:
    """An RGB image, its objects and each object's visible mask (bool, H x W)."""

    image: Image.Image
    objects: tuple[SceneObject, ...]
    masks: dict[int, np.ndarray]

    def mask(self) -> np.ndarray:
        """The union of the salient objects' masks (bool, H x W)."""
        return self.id_map() > 0

    def id_map(self) -> np.ndarray:
        """Instance ids of the salient objects (uint16, H x W), 0 = background."""
        ids = np.zeros(self.image.size[::-1], dtype=np.uint16)
        for item in self.objects:
            if item.salient:
                ids[self.masks[item.id]] = item.id
        return ids


def kinds(unseen: bool = False) -> list[tuple[str, str]]:
    """All (colour, shape) combinations of the training distribution, or the held-out ones."""
    return [(c, s) for c in COLOURS for s in SHAPES if ((c, s) in UNSEEN) is unseen]


def _outline(shape: str, radius: float, angle: float) -> np.ndarray:
    """Corners of a shape around the origin, float (n, 2); circles and rings are drawn as 48-gons."""
    if shape in ("circle", "ring"):
        turns, radii = np.arange(48) / 48, np.full(48, radius)
    elif shape == "star":
        turns, radii = np.arange(10) / 10, np.where(np.arange(10) % 2 == 0, radius * 1.12, radius * 0.48)
    else:
        corners = {"square": 4, "triangle": 3}[shape]
        turns, radii = np.arange(corners) / corners, np.full(corners, radius * (1.08 if shape == "square" else 1.15))
        angle += np.pi / 4 if shape == "square" else 0.0
    phase = 2 * np.pi * turns + angle - np.pi / 2
    return np.stack([radii * np.cos(phase), radii * np.sin(phase)], axis=1)


def _coverage(shape: str, centre: np.ndarray, radius: float, angle: float, size: tuple[int, int]) -> np.ndarray:
    """Antialiased coverage of one shape, float32 H x W in [0, 1]."""
    width, height = size
    canvas = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING), 0)
    draw = ImageDraw.Draw(canvas)
    corners = (_outline(shape, radius, angle) + centre) * OVERSAMPLING
    draw.polygon([tuple(corner) for corner in corners], fill=255)
    if shape == "ring":
        hole = (_outline(shape, radius * 0.52, angle) + centre) * OVERSAMPLING
        draw.polygon([tuple(corner) for corner in hole], fill=0)
    return np.asarray(canvas.resize(size, Image.Resampling.BOX), dtype=np.float32) / 255


def _background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A muted gradient with soft blotches and fine grain, float32 H x W x 3 on the 0-255 scale."""
    width, height = size
    base = np.array(BACKGROUNDS[rng.integers(len(BACKGROUNDS))], dtype=np.float32) + rng.uniform(-10, 10, 3)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (columns / width - 0.5) * np.cos(angle) + (rows / height - 0.5) * np.sin(angle)
    blotches = Image.fromarray(rng.uniform(-1, 1, (6, 6)).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    light = rng.uniform(10, 36) * ramp + rng.uniform(4, 12) * np.asarray(blotches)
    grain = rng.normal(0, 1.5, (height, width))
    return (base + (light + grain)[..., None]).astype(np.float32)


def render(rng: np.random.Generator, objects: Sequence[SceneObject], size: tuple[int, int]) -> Scene:
    """Draw `objects` on a fresh background of `size` (width, height); every object must sit in a place of its own."""
    width, height = size
    cell = min(width, height) / 3
    image = _background(rng, size)
    masks: dict[int, np.ndarray] = {}
    for item in objects:
        row, column = divmod(PLACES.index(item.place), 3)
        radius = cell * (rng.uniform(0.40, 0.47) if item.size == "large" else rng.uniform(0.25, 0.29))
        jitter = rng.uniform(-0.12, 0.12, 2) * cell
        centre = np.array([(column + 0.5) * width / 3, (row + 0.5) * height / 3]) + jitter
        coverage = _coverage(item.shape, centre, radius, rng.uniform(-0.2, 0.2), size)
        opacity = 1.0 if item.tone == "vivid" else rng.uniform(*FAINT_OPACITY)
        colour = np.array(COLOURS[item.colour], dtype=np.float32) + rng.uniform(-12, 12, 3)
        blend = (coverage * opacity)[..., None]
        image = image * (1 - blend) + colour * blend
        visible = coverage > 0.5
        for other in masks:
            masks[other] = masks[other] & ~visible
        masks[item.id] = visible
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return Scene(Image.fromarray(pixels, "RGB"), tuple(objects), masks)


def _random_looks(rng: np.random.Generator, salient: bool) -> tuple[str, str]:
    """Size and tone of a salient object, or of a distractor (small, faint or both)."""
    if salient:
        return "large", "vivid"
    return (("small", "vivid"), ("large", "faint"), ("small", "faint"))[rng.integers(3)]


def _pick_kinds(rng: np.random.Generator, count: int, unseen_first: bool) -> list[tuple[str, str]]:
    """Distinct combinations, the first a held-out one when asked for."""
    seen = kinds()
    chosen = [seen[i] for i in rng.choice(len(seen), count, replace=False)]
    if unseen_first:
        held_out = kinds(unseen=True)
        chosen[0] = held_out[rng.integers(len(held_out))]
    return chosen


def _in_reading_order(objects: Sequence[SceneObject]) -> list[SceneObject]:
    """Objects from top left to bottom right, numbered from 1."""
    ordered = sorted(objects, key=lambda item: PLACES.index(item.place))
    return [replace(item, id=number) for number, item in enumerate(ordered, start=1)]


def single_scene(rng: np.random.Generator, salient: int, distractors: int, unseen: bool = False) -> Scene:
    """A scene for SOD or SIS with the given numbers of salient objects and of distractors."""
    count = salient + distractors
    places = rng.choice(len(PLACES), count, replace=False)
    objects = []
    for index, (colour, shape) in enumerate(_pick_kinds(rng, count, unseen)):
        size, tone = _random_looks(rng, index < salient)
        objects.append(SceneObject(0, colour, shape, size, tone, PLACES[places[index]], index < salient))
    return render(rng, _in_reading_order(objects), CANVASES[rng.integers(len(CANVASES))])


def sod_scene(rng: np.random.Generator, unseen: bool = False) -> Scene:
    """One or two salient objects among up to two distractors."""
    return single_scene(rng, int(rng.integers(1, 3)), int(rng.choice(3, p=(0.1, 0.5, 0.4))), unseen)


def sis_scene(rng: np.random.Generator, unseen: bool = False) -> Scene:
    """Two or three salient instances among up to two distractors."""
    return single_scene(rng, int(rng.integers(2, 4)), int(rng.choice(3, p=(0.3, 0.5, 0.2))), unseen)


def any_scene(rng: np.random.Generator) -> Scene:
    """One to four objects of arbitrary looks: material for pretraining, without a saliency decision."""
    count = int(rng.choice((1, 2, 3, 4), p=(0.15, 0.3, 0.35, 0.2)))
    places = rng.choice(len(PLACES), count, replace=False)
    objects = [
        SceneObject(0, colour, shape, SIZES[rng.integers(2)], TONES[int(rng.random() < 0.3)], PLACES[place], False)
        for (colour, shape), place in zip(_pick_kinds(rng, count, False), places)
    ]
    return render(rng, _in_reading_order(objects), CANVASES[rng.integers(len(CANVASES))])


def cosod_group(rng: np.random.Generator, images: int, unseen: bool = False) -> list[Scene]:
    """A group of `images` scenes that share one (colour, shape); every other combination occurs in one image only.

    Half of the time the shared object is small, so that something else in the image is more conspicuous.
    """
    others_per_image = [int(rng.integers(1, 3)) for _ in range(images)]
    chosen = _pick_kinds(rng, 1 + sum(others_per_image), unseen)
    shared, rest = chosen[0], chosen[1:]
    scenes = []
    for count in others_per_image:
        here, rest = rest[:count], rest[count:]
        places = rng.choice(len(PLACES), count + 1, replace=False)
        objects = [SceneObject(0, *shared, SIZES[rng.integers(2)], "vivid", PLACES[places[0]], True)]
        for place, (colour, shape) in zip(places[1:], here):
            tone = TONES[int(rng.random() < 0.2)]
            objects.append(SceneObject(0, colour, shape, SIZES[int(rng.random() < 0.4)], tone, PLACES[place], False))
        scenes.append(render(rng, _in_reading_order(objects), CANVASES[rng.integers(len(CANVASES))]))
    return scenes
