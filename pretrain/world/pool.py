"""Scenes rendered once, by all cores, and read by both trainings as often as they like.

    python pretrain/world/pool.py        # reads the section `pool` of pretrain/params.yaml, writes runs/pretrain-pool

A chunk of scenes is a function of the seed and its number, so that the pool does not depend on how many cores there
are. Pictures lie one behind the other in a file that is mapped into memory, not read. Each counts twice, as it was
rendered and mirrored: a picture costs far more time than a step of training on it.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

if __name__ == "__main__":  # a script's own folder is on the path, and that is `world`
    sys.path.insert(0, str(Path(__file__).parents[1]))

from saliency_r1.annotation.attributes import PLACES
from world.cutouts import Cutouts, fetch
from world.scenes import Scene, SceneObject, World, stored

CHUNK = 250
FOLDER = Path("runs/pretrain-pool")
RECIPE = "made-of.json"
PRETRAIN = Path(__file__).parents[1]
CODE = ("world/*.*", "../src/saliency_r1/annotation/attributes.py", "../src/saliency_r1/annotation/wording.py")
_WORLD: World  # set before the workers are forked
_SEED: int


class Pool:
    """Pictures (uint8 H x W x 3), maps of what they show (uint8 H x W, ids of objects) and the objects, by number.

    Of N rendered scenes, number N + i is number i, mirrored.
    """

    def __init__(self, folder: Path = FOLDER, recipe: str | None = None) -> None:
        """Open a pool. Raises `ValueError` where there is none, or one that was made by another `recipe`."""
        made = (folder / RECIPE).read_text() if (folder / RECIPE).is_file() else None
        if made is None or recipe not in (None, made):
            raise ValueError(
                f"{folder}: {'not the' if made else 'no'} pool of scenes; run python pretrain/world/pool.py"
            )
        sizes = np.load(folder / "sizes.npy")
        self.rendered = len(sizes)
        self.sizes: NDArray[np.int64] = np.concatenate([sizes, sizes])  # height, width
        self.starts = np.concatenate([[0], np.cumsum(sizes.prod(1))])
        self._pixels = np.memmap(folder / "pixels.bin", np.uint8, "r", shape=(int(self.starts[-1]), 3))
        self._ids = np.memmap(folder / "ids.bin", np.uint8, "r", shape=(int(self.starts[-1]),))
        lines = (folder / "objects.jsonl").read_text(encoding="utf-8").splitlines()
        objects = [tuple(as_object(row) for row in json.loads(line)) for line in lines]
        self.objects = [*objects, *map(mirrored, objects)]

    def __len__(self) -> int:
        return len(self.objects)

    def _part(self, values: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """The values of one picture, H x W (x 3)."""
        number = index % self.rendered
        part = values[self.starts[number] : self.starts[number + 1]].reshape(*self.sizes[number], *values.shape[1:])
        return part if index < self.rendered else np.ascontiguousarray(part[:, ::-1])

    def image(self, index: int) -> NDArray[np.uint8]:
        """One picture."""
        return self._part(self._pixels, index)

    def ids(self, index: int) -> NDArray[np.uint8]:
        """Which object every pixel shows, 0: none."""
        return self._part(self._ids, index)

    def scene(self, index: int) -> Scene:
        """One picture as it was rendered and stored."""
        ids = self.ids(index)
        masks = {item.id: ids == item.id for item in self.objects[index]}
        return Scene(Image.fromarray(self.image(index)), self.objects[index], masks)


def mirrored(objects: Sequence[SceneObject]) -> tuple[SceneObject, ...]:
    """What a mirrored picture shows: left is right, and the order is that of the places again; ids stay."""
    names = {"left": "right", "right": "left"}
    turned = [replace(item, place=" ".join(names.get(word, word) for word in item.place.split())) for item in objects]
    return tuple(sorted(turned, key=lambda item: PLACES.index(item.place)))


def as_object(row: dict) -> SceneObject:
    """An object of its row of JSON."""
    return SceneObject(**{**row, "also": tuple(row["also"])})


def scenes(world: World, seed: int, chunk: int, count: int) -> Iterator[Scene]:
    """The scenes of a chunk: of all makers in turn, each behind a round of JPEG."""
    rng = np.random.default_rng((seed, chunk))
    makers = (world.anything, world.sod, world.cluttered, world.anything, world.sis, world.cluttered)
    made = 0
    while made < count:
        found = world.group(rng, 3) if made % 12 == 0 else [makers[made % len(makers)](rng)]
        for scene in found[: count - made]:
            made += 1
            yield Scene(stored(scene.image, int(rng.integers(75, 98))), scene.objects, scene.masks)


def _chunk(chunk: int, count: int) -> tuple[bytes, bytes, list[tuple[int, int]], list[str]]:
    """Pixels, maps, sizes and objects of a chunk, ready to be written."""
    pixels, maps, sizes, objects = [], [], [], []
    for scene in scenes(_WORLD, _SEED, chunk, count):
        ids = np.zeros(scene.image.size[::-1], np.uint8)
        for number, mask in scene.masks.items():
            ids[mask] = number
        pixels.append(np.asarray(scene.image).tobytes())
        maps.append(ids.tobytes())
        sizes.append(ids.shape)
        objects.append(json.dumps([item.to_json() for item in scene.objects]))
    return b"".join(pixels), b"".join(maps), sizes, objects


def recipe_of(seed: int, count: int) -> str:
    """What decides the bytes of a pool: seed, number of scenes, and the code and tables that draw them."""
    files = sorted(path for pattern in CODE for path in PRETRAIN.glob(pattern))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return json.dumps({"seed": seed, "scenes": count, "code": code})


def asked() -> str:
    """The recipe that pretrain/params.yaml asks for."""
    options = yaml.safe_load(Path("pretrain/params.yaml").read_text())["pool"]
    return recipe_of(options["seed"], options["scenes"])


def make(world: World, seed: int, count: int, folder: Path = FOLDER) -> None:
    """Render a pool aside, then put it in its place; one that was made by the same recipe is kept."""
    global _WORLD, _SEED
    wish = recipe_of(seed, count)
    if (folder / RECIPE).is_file() and (folder / RECIPE).read_text() == wish:
        return
    aside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    counts = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    sizes: list[tuple[int, int]] = []
    _WORLD, _SEED = world, seed
    with (
        ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as workers,
        (aside / "pixels.bin").open("wb") as pixels,
        (aside / "ids.bin").open("wb") as maps,
        (aside / "objects.jsonl").open("w", encoding="utf-8") as objects,
    ):
        for part in workers.map(_chunk, range(len(counts)), counts):
            pixels.write(part[0])
            maps.write(part[1])
            sizes += part[2]
            objects.writelines(f"{line}\n" for line in part[3])
    np.save(aside / "sizes.npy", np.array(sizes))
    (aside / RECIPE).write_text(wish)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def main() -> None:
    """Render the pool of pretrain/params.yaml."""
    options = yaml.safe_load(Path("pretrain/params.yaml").read_text())["pool"]
    make(World(Cutouts.load(fetch())), options["seed"], options["scenes"])


if __name__ == "__main__":
    main()
