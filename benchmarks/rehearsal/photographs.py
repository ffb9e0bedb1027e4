"""Data sets of the profile cut from a folder of photographs, packed as the catalogue says that the public ones are.

The folder holds `ecssd_60/{images,masks}`, `voc_coseg_32/{img,gt}/<group>` and `coco_instances_24/{images,labels}`
(polygons: class x1 y1 x2 y2 ..., in shares of the picture's sides). No picture of training stands in a test split.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image, ImageDraw

from benchmarks.rehearsal.models import GROUP
from saliency_r1.yaml_loader import load_yaml


class Picture(NamedTuple):
    """A photograph, with its binary mask or the polygons of its instances (in pixels)."""

    name: str
    path: Path
    mask: Path | None = None
    polygons: tuple[tuple[float, ...], ...] = ()


class Photographs:
    """What the folder holds; `take` gives each picture once."""

    def __init__(self, folder: Path) -> None:
        voc, ecssd, coco = folder / "voc_coseg_32", folder / "ecssd_60", folder / "coco_instances_24"
        groups = {path.name: path for path in sorted((voc / "img").iterdir())}
        self.kinds: dict[str, list[Picture]] = {
            group: [
                Picture(f"{group}_{image.stem}", image, voc / "gt" / group / f"{image.stem}.png")
                for image in sorted(path.iterdir())
            ]
            for group, path in groups.items()
        }
        images = sorted((ecssd / "images").iterdir())
        self.kinds["pairs"] = [Picture(image.stem, image, ecssd / f"masks/{image.stem}.png") for image in images]
        self.kinds["instances"] = [
            Picture(image.stem, image, polygons=_polygons(image, coco / f"labels/{image.stem}.txt"))
            for image in sorted((coco / "images").iterdir())
        ]

    def take(self, kind: str, count: int) -> list[Picture]:
        """The next `count` pictures of a kind."""
        taken, self.kinds[kind] = self.kinds[kind][:count], self.kinds[kind][count:]
        if len(taken) < count:
            raise ValueError(f"{count} pictures of the kind {kind!r} are wanted, and {len(taken)} are left")
        return taken


def _polygons(image: Path, labels: Path) -> tuple[tuple[float, ...], ...]:
    with Image.open(image) as opened:
        sides = np.array(opened.size)
    shares = [np.array(line.split()[1:], float).reshape(-1, 2) for line in labels.read_text().splitlines()]
    return tuple(tuple((own * sides).round(1).ravel().tolist()) for own in shares)


def assign(photographs: Photographs) -> dict[tuple[str, str], dict[str, list[Picture]]]:
    """The pictures of each data set and split, by group; one group without a name where it has none."""
    first, second, third, fourth = (kind for kind in photographs.kinds if kind not in ("pairs", "instances"))
    take = photographs.take
    sets = {
        ("DUTS-class", "train"): {first: take(first, GROUP)},
        ("COCO9213", "train"): {second: take(second, GROUP)},
        ("CoCA", "test"): {third: take(third, GROUP)},
        ("CoSOD3k", "test"): {fourth: take(fourth, GROUP)},
        ("CoSal2015", "test"): {"things": take("pairs", GROUP)},
        ("DUTS", "train"): {"": [*take(first, 2), *take(second, 2), *take("instances", 2)]},
    }
    for name, split, count in (
        ("SOC", "train", 3), ("SOC", "val", 2), ("SOC", "test", 2),
        ("SIS10K", "train", 5), ("SIS10K", "val", 3), ("SIS10K", "test", 3),
    ):  # fmt: skip
        sets[name, split] = {"": take("instances", count)}
    for name in ("DUTS", "DUT-OMRON", "ECSSD", "HKU-IS", "PASCAL-S"):
        sets[name, "test"] = {"": take("pairs", 1)}
    return sets


def pack(catalogue: Path, photographs: Photographs, folder: Path) -> Path:
    """Write every data set's archives and a catalogue of them into `folder`; returns the catalogue's path.

    It is the project's own, but for the numbers of images, sizes and hashes.
    """
    folder.mkdir(parents=True)
    entries = load_yaml(catalogue)["datasets"]
    sets = assign(photographs)
    wanted = {name: entries[name] for name, _ in sets}
    for (name, split), groups in sets.items():
        entry = wanted[name]["splits"][split]
        entry.pop("count", None)
        archives = [entry["archive"]] if "archive" in entry else [one["path"] for one in entry["archives"]]
        # Images in the first of a split's archives; masks or annotations in the last, which may be the same.
        _add(folder / archives[0], _images(entry, groups))
        truth = _annotations(entry, groups) if wanted[name]["layout"] == "coco" else _masks(entry, groups)
        _add(folder / archives[-1], truth)
    path = folder / "catalogue.yaml"
    path.write_text(yaml.safe_dump({"datasets": wanted}, sort_keys=False), encoding="utf-8")
    return path


def _add(archive: Path, files: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(archive, "a") as packed:
        for name, content in files:
            packed.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)  # the same bytes every time


def _images(entry: dict[str, Any], groups: dict[str, list[Picture]]) -> Iterator[tuple[str, bytes]]:
    for group, pictures in groups.items():
        for picture in pictures:
            path = Path(entry.get("images", "images"), group, f"{picture.name}{picture.path.suffix}")
            yield path.as_posix(), picture.path.read_bytes()


def _masks(entry: dict[str, Any], groups: dict[str, list[Picture]]) -> Iterator[tuple[str, bytes]]:
    for group, pictures in groups.items():
        for picture in pictures:
            buffer = BytesIO()
            binary(picture).save(buffer, "png")
            yield Path(entry.get("masks", "masks"), group, f"{picture.name}.png").as_posix(), buffer.getvalue()


def binary(picture: Picture) -> Image.Image:
    """A picture's mask, 0 and 255: the stored one, or all of its instances together."""
    if picture.mask is not None:
        with Image.open(picture.mask) as stored:
            return Image.fromarray((np.array(stored.convert("L")) > 0).astype(np.uint8) * 255)
    with Image.open(picture.path) as opened:
        mask = Image.new("L", opened.size)
    for polygon in picture.polygons:
        ImageDraw.Draw(mask).polygon(list(polygon), fill=255)
    return mask


def _annotations(entry: dict[str, Any], groups: dict[str, list[Picture]]) -> Iterator[tuple[str, bytes]]:
    pictures: Sequence[Picture] = [picture for own in groups.values() for picture in own]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, 1):
        with Image.open(picture.path) as opened:
            width, height = opened.size
        images.append({"id": number, "file_name": picture.path.name, "width": width, "height": height})
        for polygon in picture.polygons:
            own = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append(own | {"segmentation": [list(polygon)]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    yield entry["annotations"], json.dumps(content).encode()
