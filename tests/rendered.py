"""A few rendered samples on disk, as rows of the sample table, for tests of policy and training."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pretrain import render as scenes

EMBEDDED = Path(__file__).parents[1] / "embedded"


def write_samples(folder: Path, each: int = 2, seed: int = 5) -> list[dict]:
    """`each` samples a task (CoSOD: groups of two images) under `folder`; returns their rows."""
    rng = np.random.default_rng(seed)
    rows = []
    for task, maker in (("sod", scenes.sod_scene), ("sis", scenes.sis_scene), ("cosod", None)):
        for number in range(each):
            parts = [maker(rng)] if maker else scenes.cosod_group(rng, 2)
            images, masks = [], []
            for index, scene in enumerate(parts):
                images.append(f"{task}{number}{index}.jpg")
                masks.append(f"{task}{number}{index}.png")
                scene.image.save(folder / images[-1], quality=90)
                truth = scene.id_map() if task == "sis" else scene.mask().astype(np.uint8) * 255
                Image.fromarray(truth).save(folder / masks[-1])
            rows.append(
                {
                    "sample_id": f"{task}/{number}",
                    "task": task,
                    "dataset": task,
                    "split": "train",
                    "images": images,
                    "masks": masks,
                    "names": [name.removesuffix(".jpg") for name in images],
                    "group": None,
                    "meta": json.dumps({"objects": [[item.to_json() for item in s.objects] for s in parts]}),
                    "height": [scene.image.height for scene in parts],
                    "width": [scene.image.width for scene in parts],
                }
            )
    return rows
