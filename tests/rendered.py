"""A few samples of the embedded data sets on disk, as rows of the sample table, for tests of policy and training."""

import io
import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image
from pycocotools import mask as rle

EMBEDDED = Path(__file__).parents[1] / "embedded"


def write_samples(folder: Path, each: int = 2, seed: int = 5) -> list[dict]:
    """`each` samples a task (CoSOD: groups of two images) under `folder`; returns their rows."""
    rng = np.random.default_rng(seed)
    rows = []
    for task in ("sod", "sis", "cosod"):
        with ZipFile(EMBEDDED / f"datasets/scenes-{task}-train.zip") as archive:
            objects = json.loads(archive.read("attributes.json"))
            names = sorted(objects)
            starts = rng.choice(len(names) // 3, each, replace=False) * 3  # of a group, for CoSOD
            for number, start in enumerate(starts):
                chosen = names[start : start + (2 if task == "cosod" else 1)]
                rows.append(_sample(folder, archive, task, number, {name: objects[name] for name in chosen}))
    return rows


def _sample(folder: Path, archive: ZipFile, task: str, number: int, objects: dict[str, list[dict]]) -> dict:
    images, masks, sizes = [], [], []
    for index, name in enumerate(objects):
        images.append(f"{task}{number}{index}.jpg")
        masks.append(f"{task}{number}{index}.png")
        (folder / images[-1]).write_bytes(archive.read(f"{'image' if task == 'cosod' else 'images'}/{name}.jpg"))
        Image.fromarray(_truth(archive, task, name)).save(folder / masks[-1])
        sizes.append(Image.open(folder / images[-1]).size)
    return {
        "sample_id": f"{task}/{number}",
        "task": task,
        "dataset": task,
        "split": "train",
        "images": images,
        "masks": masks,
        "names": [name.removesuffix(".jpg") for name in images],
        "group": None,
        "meta": json.dumps({"objects": list(objects.values())}),
        "height": [height for _, height in sizes],
        "width": [width for width, _ in sizes],
    }


def _truth(archive: ZipFile, task: str, name: str) -> np.ndarray:
    """A mask of 0 and 255, or of the ids of the salient instances."""
    if task != "sis":
        member = f"{'gt' if task == 'cosod' else 'masks'}/{name}.png"
        return np.asarray(Image.open(io.BytesIO(archive.read(member))))
    content = json.loads(archive.read("instances.json"))
    image = next(row for row in content["images"] if row["file_name"] == f"{name}.jpg")
    ids = np.zeros((image["height"], image["width"]), np.uint16)
    own = [row for row in content["annotations"] if row["image_id"] == image["id"]]
    for number, row in enumerate(own, start=1):
        if row["salient"]:
            ids[rle.decode(row["segmentation"]) > 0] = number
    return ids
