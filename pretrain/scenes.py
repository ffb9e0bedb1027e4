"""Render the embedded data sets and pack them in the layouts of the public benchmarks.

    python pretrain/scenes.py            # reads the section `scenes` of pretrain/params.yaml

Writes embedded/datasets/<dataset>-<split>.zip and embedded/scenes.yaml, the catalogue entries with sizes and hashes.
Every split draws from a seed of its own, so that no two share a scene; the archives are the same bytes on every run.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import render as scenes
import yaml
from PIL import Image

from saliency_r1.data.catalogue import describe_archive, write_catalogue

EPOCH = (2026, 1, 1, 0, 0, 0)
LAYOUTS = {"sod": "pairs", "sis": "coco", "cosod": "groups"}
Files = Iterator[tuple[str, bytes]]


def jpeg(image: Image.Image) -> bytes:
    """The image as a photograph would be stored."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def png(mask: np.ndarray) -> bytes:
    """A bool mask as an 8-bit PNG with the values 0 and 255."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def attributes(named: dict[str, scenes.Scene]) -> tuple[str, bytes]:
    """The member `attributes.json`: for each image the objects in it, salient or not."""
    rows = {name: [item.to_json() for item in scene.objects] for name, scene in named.items()}
    return "attributes.json", json.dumps(rows).encode()


def pairs(named: dict[str, scenes.Scene]) -> Files:
    """Folders of images and masks, as DUTS."""
    for name, scene in named.items():
        yield f"images/{name}.jpg", jpeg(scene.image)
        yield f"masks/{name}.png", png(scene.mask())
    yield attributes(named)


def groups(named: dict[str, scenes.Scene]) -> Files:
    """Folders of images and masks by group, as CoCA."""
    for name, scene in named.items():
        yield f"image/{name}.jpg", jpeg(scene.image)
        yield f"gt/{name}.png", png(scene.mask())
    yield attributes(named)


def coco(named: dict[str, scenes.Scene]) -> Files:
    """Images with COCO instance annotations, as the releases of ILSO and SIS10K; `salient` marks the ground truth."""
    from pycocotools import mask as rle

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, scene) in enumerate(named.items(), start=1):
        yield f"images/{name}.jpg", jpeg(scene.image)
        width, height = scene.image.size
        images.append({"id": number, "file_name": f"{name}.jpg", "height": height, "width": width})
        for item in scene.objects:
            code = rle.encode(np.asfortranarray(scene.masks[item.id].astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": {"size": [height, width], "counts": code["counts"].decode()},
                    "area": int(scene.masks[item.id].sum()),
                    "bbox": [float(value) for value in rle.toBbox(code)],
                    "iscrowd": 0,
                    "salient": item.salient,
                }
            )
    categories = [{"id": 1, "name": "object"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    yield "instances.json", json.dumps(content).encode()
    yield attributes(named)


def draw(task: str, count: int, group_size: int, unseen: bool, seed: tuple[int, ...]) -> dict[str, scenes.Scene]:
    """`count` scenes by name; for CoSOD `count` groups of `group_size` images named `<group>/<number>`."""
    rng = np.random.default_rng(seed)
    if task == "cosod":
        named = {}
        for group in range(count):
            for index, scene in enumerate(scenes.cosod_group(rng, group_size, unseen)):
                named[f"group{group:03d}/{index}"] = scene
        return named
    maker = scenes.sod_scene if task == "sod" else scenes.sis_scene
    return {f"{index:04d}": maker(rng, unseen) for index in range(count)}


def write_zip(path: Path, members: Files) -> None:
    """A zip whose bytes depend on its members alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED, 9)


def main() -> None:
    """Render, pack and describe every data set of the section `scenes`."""
    options = yaml.safe_load(Path("pretrain/params.yaml").read_text())["scenes"]
    folder = Path("embedded/datasets")
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, Any] = {}
    for name, splits in options["datasets"].items():
        task, unseen = name.split("-")[1], name.endswith("-unseen")
        entry: dict[str, Any] = {"task": task, "layout": LAYOUTS[task], "licence": "Apache-2.0", "verified": True}
        entry["splits"] = {}
        for split, count in splits.items():
            path = folder / f"{name}-{split}.zip"
            seed = (options["seed"], crc32(f"{name}/{split}".encode()))
            named = draw(task, count, options["group_size"], unseen, seed)
            packer = {"sod": pairs, "sis": coco, "cosod": groups}[task]
            write_zip(path, packer(named))
            entry["splits"][split] = {
                "archive": f"datasets/{path.name}",
                **describe_archive(path),
                "count": len(named),
                **({"annotations": "instances.json"} if task == "sis" else {}),
            }
            print(f"{path} {len(named)} images, {path.stat().st_size / 1e6:.2f} MB", flush=True)
        entries[name] = entry
    write_catalogue(Path("embedded/scenes.yaml"), entries)


if __name__ == "__main__":
    main()
