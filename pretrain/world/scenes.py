"""Pictures with ground truth: the embedded data sets and the material on which the tiny bases are pretrained.

A scene has one to five things before a background, each with its centre in a cell of its own of a 3 x 3 grid; they may
touch, overlap and be cut off by the border. In a single image what is *salient* is large and vivid; small things and
faint ones (out of focus and pale) are the distractors. In a group what is salient is the thing that is in every image,
however inconspicuous it is there. Some scenes show an unknown thing, which is called "object".
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saliency_r1.annotation.attributes import NAMED_COLOURS, PLACES
from world.backgrounds import background, noise
from world.cutouts import Cutouts, Kind, Look, colour_of

Range = tuple[float, float]
SIZES = ("large", "small")
TONES = ("vivid", "faint")
CANVASES = ((112, 112), (128, 96), (96, 128), (128, 112), (112, 128), (144, 96), (96, 144))
LARGE = {1: (0.5, 0.85), 2: (0.44, 0.62), 3: (0.4, 0.5)}  # sides of large things by their number, of the shorter side
SMALL = (0.22, 0.29)
LEAST = {"large": 0.36, "small": SMALL[0]}  # side of a thing of which enough is visible
UNKNOWN = Kind("object", (), "object")
SIDE = 96  # of an unknown thing's square


@dataclass(frozen=True)
class SceneObject:
    """One thing of a scene; `id` counts from 1, `salient` says whether it belongs to the ground truth.

    `colour` is "" where none prevails or it is too faint to tell. `also` are other words for `name`.
    """

    id: int
    colour: str
    name: str
    also: tuple[str, ...]
    family: str
    size: str
    tone: str
    place: str
    salient: bool

    def to_json(self) -> dict[str, Any]:
        """The thing as a row of `attributes.json`."""
        return asdict(self)


@dataclass(frozen=True)
class Scene:
    """An RGB image, its objects and each object's visible mask (bool, H x W)."""

    image: Image.Image
    objects: tuple[SceneObject, ...]
    masks: dict[int, NDArray[np.bool_]]

    def mask(self) -> NDArray[np.bool_]:
        """The union of the salient objects' masks (bool, H x W)."""
        return self.id_map() > 0

    def id_map(self) -> NDArray[np.uint16]:
        """Instance ids of the salient objects (uint16, H x W), 0 = background."""
        ids = np.zeros(self.image.size[::-1], dtype=np.uint16)
        for item in self.objects:
            if item.salient:
                ids[self.masks[item.id]] = item.id
        return ids


def stored(image: Image.Image, quality: int) -> Image.Image:
    """The picture behind a round of JPEG, as the data sets store it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@dataclass(frozen=True)
class Wish:
    """A thing that is to be drawn: a look, large or small, vivid or faint, salient or not."""

    look: Look
    size: str
    tone: str
    salient: bool


def unknown_look(rng: np.random.Generator) -> Look:
    """A thing nobody has seen: a blob or a polygon with the texture of a material, of a clear colour."""
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    turn = np.arctan2(rows, columns)
    radius = 0.62 + sum(
        rng.normal(0, 0.18 / order) * np.cos(order * turn + rng.uniform(0, 6.3)) for order in range(2, 6)
    )
    stretch = rng.uniform(0.5, 1.0)
    inside = np.hypot(rows / stretch, columns) < radius + rng.uniform(0, 0.12) * noise(rng, (SIDE, SIDE), 0.5)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
    inside = parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    while True:
        base = np.array(list(NAMED_COLOURS.values())[rng.integers(len(NAMED_COLOURS))]) * rng.uniform(0.8, 1.15)
        field = noise(rng, (SIDE, SIDE), rng.random(), tuple(rng.choice((0.5, 1, 3), 2)))
        shade = rng.uniform(5, 22) * field - rng.uniform(0, 45) * (rows * rng.choice((-1, 1)) + columns) / 2
        rgb = base + rng.uniform(-14, 14, 3) + shade[..., None]
        if rng.random() < 0.4:  # a second material
            other = np.array(list(NAMED_COLOURS.values())[rng.integers(len(NAMED_COLOURS))])
            rgb = np.where(
                (noise(rng, (SIDE, SIDE), 0.2) > rng.uniform(0.6, 1.5))[..., None], other + shade[..., None], rgb
            )
        rgb = np.clip(rgb, 0, 255).astype(np.uint8)
        if colour := colour_of(rgb[inside]):
            break
    alpha = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.8) * 255
    ys, xs = np.nonzero(inside)
    window = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
    return Look(UNKNOWN, "", colour, np.dstack([rgb, alpha.astype(np.uint8)])[window])


def _warped(
    pixels: NDArray[np.uint8], side: float, angle: float, mirror: bool, centre: NDArray[Any], size: tuple[int, int]
) -> NDArray[np.float32]:
    """RGBA (premultiplied, float32 H x W x 4 in [0, 1]) of a cut-out of that side, turned, at a place of a canvas."""
    height, width = pixels.shape[:2]
    scale = side / np.sqrt(height * width)
    small: NDArray[Any] = np.asarray(pixels[:, ::-1] if mirror else pixels, np.float32) / 255
    small = small * np.dstack([small[..., 3:]] * 3 + [np.ones_like(small[..., :1])])
    small = cv2.resize(
        small, (max(3, round(width * scale)), max(3, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    middle = (small.shape[1] - 1) / 2, (small.shape[0] - 1) / 2
    matrix: NDArray[Any] = cv2.getRotationMatrix2D(middle, angle, 1.0)
    matrix[:, 2] += centre - np.array(middle)
    return np.asarray(cv2.warpAffine(small, matrix, size, flags=cv2.INTER_LINEAR), np.float32)


def _side(rng: np.random.Generator, wish: Wish, large: int) -> float:
    low, high = LARGE[min(3, large)] if wish.size == "large" else SMALL
    return float(rng.uniform(low, high))


def _compose(
    rng: np.random.Generator, wishes: Sequence[Wish], size: tuple[int, int], cluttered: bool
) -> tuple[NDArray[Any], list[NDArray[np.bool_]]]:
    """The picture (float32, 0 to 255) and the visible masks of the wishes, drawn from back to front."""
    image = background(rng, size, cluttered) / 255
    cells = rng.permutation(9)[: len(wishes)]
    if sum(wish.size == "large" for wish in wishes) == 1 and rng.random() < 0.4:  # what stands out is often central
        lone = next(index for index, wish in enumerate(wishes) if wish.size == "large")
        cells = rng.permutation([cell for cell in range(9) if cell != 4])[: len(wishes)]
        cells[lone] = 4
    light = rng.uniform(-1, 1, 2)
    large = sum(wish.size == "large" for wish in wishes)
    masks: list[NDArray[np.bool_]] = [np.zeros(size[::-1], bool) for _ in wishes]
    for index in sorted(range(len(wishes)), key=lambda i: (wishes[i].tone == "vivid", wishes[i].size == "small")):
        wish = wishes[index]
        row, column = divmod(int(cells[index]), 3)
        centre = (np.array([column, row]) + 0.5 + rng.uniform(-0.2, 0.2, 2)) * size / 3
        side = _side(rng, wish, large) * min(size)
        # Large things near the border are pulled in, so that they are cut off a little at most.
        centre = np.clip(centre, 0.4 * side, np.array(size) - 0.4 * side)
        layer: NDArray[Any] = _warped(wish.look.pixels, side, rng.normal(0, 9), bool(rng.integers(2)), centre, size)
        alpha: NDArray[Any] = layer[..., 3]
        masks[index] = alpha > 0.5
        for other in range(len(wishes)):
            if other != index:
                masks[other] &= ~masks[index]
        shade = 1 + 0.16 * sum(
            light[axis] * (grid - centre[axis]) / side
            for axis, grid in enumerate(np.meshgrid(np.arange(size[0]), np.arange(size[1])))
        )
        colour = layer[..., :3] * np.clip(shade, 0.75, 1.25)[..., None]
        if wish.tone == "faint":
            blur = rng.uniform(0.7, 1.3)
            both: NDArray[Any] = cv2.GaussianBlur(np.dstack([colour, alpha]).astype(np.float32), (0, 0), blur)
            both *= rng.uniform(0.34, 0.46)
            colour, alpha = both[..., :3], both[..., 3]
        else:
            fall = -light[0] * side * 0.12, (0.5 - 0.5 * light[1]) * side * 0.12
            offset = np.array([[1, 0, fall[0]], [0, 1, fall[1]]], np.float32)
            shadow = cv2.warpAffine(alpha, offset, size)
            image = image * (1 - rng.uniform(0.2, 0.45) * cv2.GaussianBlur(shadow, (0, 0), side * 0.07))[..., None]
        image = image * (1 - alpha[..., None]) + colour
    return np.asarray(image * 255, np.float32), masks


def _developed(rng: np.random.Generator, image: NDArray[Any]) -> Image.Image:
    """The picture as a camera gives it: a cast, an exposure, grain."""
    cast = rng.normal(1, 0.025, 3) * rng.uniform(0.95, 1.14)
    grain = rng.normal(0, rng.uniform(0.4, 2.6), image.shape[:2])[..., None]
    return Image.fromarray(np.clip(np.rint(image * cast + grain), 0, 255).astype(np.uint8), "RGB")


def _place(mask: NDArray[np.bool_]) -> str | None:
    """The cell of a mask's centre, None where that is close to another cell."""
    rows, columns = np.nonzero(mask)
    spot = np.array([rows.mean() + 0.5, columns.mean() + 0.5]) * 3 / mask.shape
    if (np.abs(spot - np.clip(np.rint(spot), 1, 2)) < 0.1).any():
        return None
    return PLACES[3 * int(spot[0]) + int(spot[1])]


def render(rng: np.random.Generator, wishes: Sequence[Wish], size: tuple[int, int], cluttered: bool = False) -> Scene:
    """Draw things on a fresh background of `size` (width, height), all to be seen and in places of their own."""
    for _ in range(100):
        image, masks = _compose(rng, wishes, size, cluttered)
        enough = [0.5 * (0.6 * LEAST[wish.size] * min(size)) ** 2 for wish in wishes]
        if any(mask.sum() < least for mask, least in zip(masks, enough)):
            continue
        places = [_place(mask) for mask in masks]
        if None not in places and len(set(places)) == len(places):
            break
    else:
        raise RuntimeError(f"no room for {len(wishes)} things on {size}")
    order = sorted(range(len(wishes)), key=lambda index: PLACES.index(str(places[index])))
    objects = tuple(
        SceneObject(
            number,
            wishes[i].look.colour if wishes[i].tone == "vivid" else "",
            wishes[i].look.kind.name,
            wishes[i].look.kind.also,
            wishes[i].look.kind.family,
            wishes[i].size,
            wishes[i].tone,
            str(places[i]),
            wishes[i].salient,
        )
        for number, i in enumerate(order, start=1)
    )
    return Scene(_developed(rng, image), objects, {item.id: masks[i] for item, i in zip(objects, order)})


class World:
    """Makes scenes of given cut-outs."""

    def __init__(self, cutouts: Cutouts) -> None:
        self.cutouts = cutouts
        self.names, self.unseen_names = list(cutouts.named), list(cutouts.unseen)

    def words(self) -> tuple[str, ...]:
        """The names of what trainings show, sorted; the first, "", is the background's."""
        unnamed = {looks[0].kind.name for looks in self.cutouts.unnamed}
        return ("", *sorted({UNKNOWN.name, *unnamed, *self.cutouts.named}))

    def look(self, rng: np.random.Generator, name: str, unseen: bool = False, avoid: Sequence[str] = ()) -> Look:
        """A look of a category: any drawing, in its own colours half of the time; not in the colours of `avoid`."""
        drawings = (self.cutouts.unseen if unseen else self.cutouts.named)[name]
        options = drawings[rng.integers(len(drawings))]
        free = [look for look in options if look.colour not in avoid]
        if not free:
            free = [look for drawing in drawings for look in drawing if look.colour not in avoid] or options
        return free[0] if rng.random() < 0.5 else free[rng.integers(len(free))]

    def odd(self, rng: np.random.Generator) -> Look:
        """Something without a name of its own: made of noise, or known by its family only."""
        if rng.random() < 0.5:
            return unknown_look(rng)
        options = self.cutouts.unnamed[rng.integers(len(self.cutouts.unnamed))]
        return options[0] if rng.random() < 0.5 else options[rng.integers(len(options))]

    def _different(self, rng: np.random.Generator, count: int, unseen: bool) -> list[Look]:
        """Looks of distinct categories, the first a held-out one when asked for."""
        if not unseen:
            return [self.look(rng, self.names[index]) for index in rng.choice(len(self.names), count, replace=False)]
        first = self.unseen_names[rng.integers(len(self.unseen_names))]
        others = [name for name in self.names if name != first]
        chosen = rng.choice(len(others), count - 1, replace=False)
        return [self.look(rng, first, True), *(self.look(rng, others[index]) for index in chosen)]

    def single(self, rng: np.random.Generator, looks: Sequence[Look], salient: int) -> Scene:
        """A scene of which the first `salient` looks are large and vivid; the rest small, faint or both."""
        dull = (("small", "vivid"), ("large", "faint"), ("small", "faint"))
        wishes = [
            Wish(look, *(("large", "vivid") if index < salient else dull[rng.integers(3)]), index < salient)
            for index, look in enumerate(looks)
        ]
        return render(rng, wishes, CANVASES[rng.integers(len(CANVASES))])

    def sod(self, rng: np.random.Generator, unseen: bool = False) -> Scene:
        """One or two salient things among up to two distractors; one in eight stands out though it has no name."""
        salient, others = int(rng.integers(1, 3)), int(rng.choice(3, p=(0.15, 0.5, 0.35)))
        found = self._different(rng, salient + others, unseen)
        if not unseen and rng.random() < 0.125:
            found[0] = self.odd(rng)
        return self.single(rng, found, salient)

    def sis(self, rng: np.random.Generator, unseen: bool = False) -> Scene:
        """Two or three salient instances, often of one kind in different colours, among up to two distractors."""
        salient, others = int(rng.integers(2, 4)), int(rng.choice(3, p=(0.35, 0.45, 0.2)))
        found = self._different(rng, salient + others, unseen)
        if rng.random() < 0.6:
            for index in range(1, salient if rng.random() < 0.6 else 2):
                used = [look.colour for look in found[:index]]
                found[index] = self.look(rng, found[0].kind.name, unseen, used)
        return self.single(rng, found, salient)

    def anything(self, rng: np.random.Generator) -> Scene:
        """One to four things of arbitrary looks, a third of them odd: material for pretraining, nothing is salient."""
        count = int(rng.choice((1, 2, 3, 4), p=(0.25, 0.35, 0.25, 0.15)))
        found = self._different(rng, count, False)
        found = [self.odd(rng) if rng.random() < 0.3 else look for look in found]
        wishes = [Wish(look, SIZES[rng.integers(2)], TONES[int(rng.random() < 0.25)], False) for look in found]
        if sum(wish.size == "large" for wish in wishes) > 3:
            wishes[0] = replace(wishes[0], size="small")
        return render(rng, wishes, CANVASES[rng.integers(len(CANVASES))])

    def cluttered(self, rng: np.random.Generator) -> Scene:
        """One or two large things, most of them odd, before what photographs are full of and nobody tells of."""
        count = 1 if rng.random() < 0.65 else 2
        found = [self.odd(rng) if rng.random() < 0.6 else look for look in self._different(rng, count, False)]
        wishes = [
            Wish(look, "large" if index == 0 else SIZES[rng.integers(2)], "vivid", False)
            for index, look in enumerate(found)
        ]
        return render(rng, wishes, CANVASES[rng.integers(len(CANVASES))], cluttered=True)

    def group(self, rng: np.random.Generator, images: int, unseen: bool = False) -> list[Scene]:
        """Scenes that share one category, in other colours where it has some; every other one occurs in one image only.

        Half of the time the shared thing is small, so that something else in the image is more conspicuous.
        """
        others = [int(rng.integers(1, 3)) for _ in range(images)]
        found = self._different(rng, 1 + sum(others), unseen)
        shared, rest = found[0].kind.name, found[1:]
        made: list[Scene] = []
        used: list[str] = []
        for count in others:
            here, rest = rest[:count], rest[count:]
            look = self.look(rng, shared, unseen, used)
            used.append(look.colour)
            wishes = [Wish(look, SIZES[rng.integers(2)], "vivid", True)]
            for look in here:
                tone = TONES[int(rng.random() < 0.2)]
                wishes.append(Wish(look, SIZES[int(rng.random() < 0.4)], tone, False))
            made.append(render(rng, wishes, CANVASES[rng.integers(len(CANVASES))]))
        return made
