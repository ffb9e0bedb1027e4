"""Small data sets made on the fly, in the layouts of the public benchmarks."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import yaml
from PIL import Image

from saliency_r1.data.catalogue import describe_archive
from saliency_r1.data.download import download
from saliency_r1.data.fetch import Patience

EMPTY_ZIP = b"PK\x05\x06" + bytes(18)  # the least that is an archive
QUICK = Patience(attempts=3, timeout=0.5, pause=0.01, longest_pause=0.05)


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth random picture, (width, height)."""
    small = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def mask(size: tuple[int, int] = (40, 30), value: int = 255) -> Image.Image:
    """A filled rectangle in the upper left, uint8."""
    values = np.zeros(size[::-1], np.uint8)
    values[3 : size[1] // 2, 5 : size[0] // 2] = value
    return Image.fromarray(values)


def pairs(folder: Path, count: int = 4, seed: int = 0) -> Path:
    """`images/*.jpg` and `masks/*.png`."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(seed + number).save(folder / f"images/{number:04d}.jpg", quality=90)
        mask().save(folder / f"masks/{number:04d}.png")
    return folder


def zipped(folder: Path, archive: Path) -> Path:
    """All files of a folder as a zip."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):  # whose times are those of a run
            file.write(path, path.relative_to(folder))
    return archive


class Project:
    """A project folder with a catalogue, base models and whatever data sets a test puts there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "artifacts" / "download"
        self.datasets: dict[str, Any] = {}
        for name in ("policy", "segmenter"):
            (root / "data/models" / name).mkdir(parents=True)
            (root / "data/models" / name / "config.json").write_text(json.dumps({"model": name}))

    def add(self, name: str, folder: Path, split: str = "test", **keys: Any) -> Path:
        """Zip a folder as one split of a data set; `keys` named like those of a split belong to the split."""
        archive = zipped(folder, self.root / "data/datasets" / f"{name}-{split}.zip")
        of_split = {k: keys.pop(k) for k in ("count", "images", "masks", "annotations", "names") if k in keys}
        entry = self.datasets.setdefault(name, {"splits": {}} | keys)
        entry["splits"][split] = {"archive": f"datasets/{archive.name}", **describe_archive(archive)} | of_split
        return archive

    def run(self, datasets: Iterable[str] = (), **settings: Any) -> pl.DataFrame:
        """The download stage."""
        self.write()
        chosen = {"mirror": None, "cosod_chunk": 3, "limit": None, "allow_missing": ()} | settings
        section = SimpleNamespace(
            catalogue="data/catalogue.yaml",
            datasets=tuple(datasets or self.datasets),
            policy="models/policy",
            segmenter="models/segmenter",
        )
        vars(section).update(chosen)
        return download(section, self.root, self.out, QUICK)  # type: ignore[arg-type]

    def write(self) -> None:
        """Write the catalogue."""
        (self.root / "data/catalogue.yaml").write_text(yaml.safe_dump({"datasets": self.datasets}, sort_keys=False))

    def report(self) -> Any:
        """The report of the last successful run."""
        return json.loads((self.out / "report.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, scratch and locks left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }
