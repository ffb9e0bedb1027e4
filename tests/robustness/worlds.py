"""Broken folders and files, made from a seed: what people have, what programs leave behind, what disks do.

Each function takes a generator of random numbers and a folder, and writes something that is nearly right.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = (
    *(
        "a",
        "b",
        "A",
        "0",
        "null",
        "x y",
        "a.b",
        "-dash",
        ".hidden",
        "...",
        "~",
        "a*?",
        "100%",
        "my%20photo",
        "photo [1]",
        "CON",
    ),
    *("caf\u00e9", "cafe\u0301", "\u732b", "[red]", "$\\frac{$", "a\nb", "\x1b[2Jc", "\u202egnp", "a_overlay"),
    *("n" * 240, os.fsdecode(b"caf\xe9")),
)
SUFFIXES = (".png",) * 6 + (".jpg", ".JPG", ".jpeg", ".bmp", ".tif", ".webp", ".gif", ".PNG", ".txt", "")
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 1.5, 255, 1 << 31, 1 << 70, float("nan"), float("inf"), 1e308),
    *("", " ", "0", "1", "x", "images", "../../x", "/", "a\0b", "\ud800", "\u202e", "n" * 5000),
    *([], {}, [[]], [None], {"": None}, [1, 2], [[1, 2, 3]], [[0, 0, 1e9, 0, 5, 5]], [0] * 7),
)


class Dice(random.Random):
    """Random numbers of one world; `trouble` (0 to 1) is how much of it goes wrong."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.trouble = self.choice([0.0, 0.1, 0.3, 1.0])

    def may(self, share: float) -> bool:
        """Whether something goes wrong that does so in a share of the cases in the worst of worlds."""
        return self.random() < share * self.trouble


def picture(dice: Dice, path: Path, mask: bool, size: tuple[int, int]) -> None:
    """One picture or mask of some kind, perhaps damaged."""
    values = np.zeros(size[::-1], np.uint8)
    values[2 : max(3, size[1] // 2), 2 : max(3, size[0] // 2)] = 255
    if not mask:
        values = np.random.default_rng(dice.randrange(9)).integers(0, 256, size[::-1], np.uint8)
    image = _dressed(dice, values) if dice.may(0.35) else Image.fromarray(values)
    _saved(dice, image, path)
    if dice.may(0.12):
        dice.choice(DAMAGE)(dice, path)


def _dressed(dice: Dice, values: np.ndarray) -> Image.Image:
    """Values in some other form of file than 8-bit grey."""
    grey = Image.fromarray(values)
    mode = dice.choice(("P", "LA", "RGBA", "RGB", "CMYK", "1", "I;16", "I", "F", "low", "wide", "palette", "size"))
    match mode:
        case "I;16":
            return Image.fromarray(values.astype(np.uint16) * dice.choice([1, 64, 257]))
        case "I":
            return Image.fromarray(values.astype(np.int32) * dice.choice([1, -1, 300]))
        case "F":
            return Image.fromarray(values.astype(np.float32) / dice.choice([1, 255]) * dice.choice([1, np.nan]))
        case "low":
            return Image.fromarray(values // dice.choice([255, 128, 2, 200]))
        case "wide":
            return Image.fromarray((values > 0).astype(np.uint16))
        case "palette":
            indexed = Image.fromarray(np.minimum(values, dice.randrange(1, 256)), "P")
            indexed.putpalette([dice.randrange(256) for _ in range(3 * dice.choice([1, 2, 16, 256]))])
            return indexed
        case "size":
            width, height = grey.size
            return grey.resize(dice.choice([(1, 1), (1300, 6), (height, width), (width + 1, height)]))
    kind = "RGBA" if mode == "LA" else mode
    dressed = grey.convert(kind) if mode in ("P", "1") else grey.convert("RGB").convert(kind)
    if mode in ("LA", "RGBA"):
        dressed.putalpha(grey if dice.random() < 0.5 else dice.randrange(256))
    return dressed.convert("LA") if mode == "LA" else dressed


def _saved(dice: Dice, image: Image.Image, path: Path) -> None:
    """Write a picture in the format of its suffix where that takes it, and else as PNG or TIFF under that name."""
    more: dict[str, Any] = {}
    if dice.may(0.15):
        exif = Image.Exif()
        exif[0x0112] = dice.choice([0, 1, 2, 3, 4, 5, 6, 8, 9, 700, "6"])
        more["exif"] = exif
    kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".webp": "WEBP", ".gif": "GIF"}
    for kind in (kinds.get(path.suffix.lower(), "PNG"), "PNG", "TIFF"):
        try:
            image.save(path, kind, **more)
            return
        except (OSError, ValueError, TypeError, struct.error):
            more = {}


def _cut(dice: Dice, path: Path) -> None:
    path.write_bytes(path.read_bytes()[: dice.choice([0, 1, 8, 30, 50, -1, -12])])


def _flipped(dice: Dice, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(dice.choice([1, 5, 50])):
        if data:
            data[dice.randrange(len(data))] = dice.randrange(256)
    path.write_bytes(bytes(data))


def _other(dice: Dice, path: Path) -> None:
    path.write_bytes(
        dice.choice([b"", b"<!doctype html>", b"\0" * 99, b"version https://git-lfs.github.com/spec/v1\n"])
    )


def _bomb(dice: Dice, path: Path) -> None:
    """A PNG that says it is huge, or whose chunks are not what they say."""
    side = dice.choice([0, 1, 60_000, 2_000_000_000])
    text = b"k\0\0" + zlib.compress(b"x" * dice.choice([10, 3_000_000])) if dice.random() < 0.5 else b"\0\0\0"
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, 7, dice.choice([8, 16, 3]), dice.choice([0, 2, 3, 9]), 0, 0, 0))]
    chunks += [(dice.choice([b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"eXIf", b"acTL", b"tRNS"]), text)]
    chunks += [(b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    crc = dice.choice([0, 0, 1])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d) ^ crc) for k, d in chunks)
    )


def _no_file(dice: Dice, path: Path) -> None:
    """Something else under the name of a file."""
    kind = dice.choice(["pipe", "socket", "folder", "lost link", "circle", "link to folder", "device"])
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            try:
                socket.socket(socket.AF_UNIX).bind(str(path))
            except (OSError, ValueError):  # the path is too long for a socket
                path.mkdir()
        case "folder":
            path.mkdir()
        case "lost link":
            path.symlink_to("nowhere.png")
        case "circle":
            path.symlink_to(path.name)
        case "link to folder":
            path.symlink_to(dice.choice([".", ".."]))
        case "device":
            path.symlink_to("/dev/zero")


DAMAGE: tuple[Callable[[Dice, Path], None], ...] = (_cut, _flipped, _other, _bomb, _no_file)


def pairs(dice: Dice, folder: Path, images: str = "images", masks: str = "masks", names: int = 3) -> list[str]:
    """Two folders of pictures that mostly fit; the names that both have."""
    chosen = dice.sample(NAMES, names) if dice.may(0.6) else [f"{number:03d}" for number in range(names)]
    for where in (images, masks):
        (folder / where).mkdir(parents=True, exist_ok=True)
        for name in chosen:
            if not dice.may(0.05):
                suffix = dice.choice(SUFFIXES) if dice.may(0.3) else ".png"
                picture(dice, folder / where / f"{name}{suffix}", where == masks, (20, 16))
    if dice.may(0.15):
        _litter(dice, folder / dice.choice([images, masks]))
    return chosen


def _litter(dice: Dice, folder: Path) -> None:
    """What lies in folders beside what is meant."""
    match dice.choice([".ipynb_checkpoints", "Thumbs.db", "above", "deep", "pipe"]):
        case "above":
            (folder / "above").symlink_to("..")
        case "deep":
            (folder / "/".join("d" * 30)).mkdir(parents=True)
        case "pipe":
            os.mkfifo(folder / "pipe")
        case name:
            (folder / name).mkdir()
            Image.new("L", (5, 5)).save(folder / name / "a.png")


def coco(dice: Dice, names: list[str]) -> Any:
    """A COCO ground truth of the pictures, in which something was changed."""
    images = [{"id": n, "file_name": f"{name}.png", "height": 16, "width": 20} for n, name in enumerate(names)]
    square = [[2.0, 2.0, 9.0, 2.0, 9.0, 9.0]]
    runs = {"size": [16, 20], "counts": [40, 6, 274]}
    annotations = [
        {"id": 1 + n, "image_id": n, "category_id": 1, "iscrowd": 0, "segmentation": dice.choice([square, runs])}
        for n in range(len(names))
    ]
    whole = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    return mutated(dice, whole, dice.choice([1, 1, 2, 4]) if dice.may(0.8) else 0)


def results(dice: Dice, names: list[str]) -> Any:
    """COCO results, in which something was changed."""
    counts = dice.choice(["P1", "X1604K", "\u00e9", "0" * 50]) if dice.may(0.5) else [40, 6, 274]
    runs = {"size": [16, 20], "counts": counts}
    rows = [{"image_id": name, "category_id": 1, "score": 0.5, "segmentation": runs} for name in names]
    return mutated(dice, rows, dice.choice([1, 2]) if dice.may(0.8) else 0)


def mutated(dice: Dice, value: Any, changes: int) -> Any:
    """A copy of nested lists and mappings in which some nodes are replaced, removed, doubled or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(changes):
        nodes = _nodes(value)
        if not nodes:
            return dice.choice(JUNK)
        parent, place = dice.choice(nodes)
        match dice.choice(["replace", "replace", "replace", "remove", "double", "rename"]):
            case "replace":
                parent[place] = dice.choice(JUNK)
            case "remove":
                del parent[place]
            case "double":
                parent.append(parent[place]) if isinstance(parent, list) else parent.update({f"{place}x": 1})
            case "rename":
                if isinstance(parent, dict):
                    parent[dice.choice(["", "id", "\u00e9", "yes"])] = parent.pop(place)
    return value


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [node for key in keys for node in _nodes(value[key])]


def text(dice: Dice, path: Path, content: str) -> None:
    """A text in some encoding, perhaps damaged."""
    odd = ["utf-8-sig", "utf-16", "utf-16-le", "gbk", "latin-1", "utf-32"]
    encoding = dice.choice(odd) if dice.may(0.4) else "utf-8"
    path.write_bytes(content.encode(encoding, "backslashreplace"))
    if dice.may(0.08):
        dice.choice([_cut, _flipped, _other, _no_file])(dice, path)


def dumped(value: Any) -> str:
    """JSON, with NaN as Python writes it."""
    return json.dumps(value, ensure_ascii=True)


def zipped(dice: Dice, folder: Path, archive: Path) -> None:
    """The files of a folder in a zip, in which something may be wrong."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.stat().st_size < 1_000_000 and not path.is_symlink():
                name = path.relative_to(folder).as_posix().encode("utf-8", "replace").decode()
                if dice.may(0.05):
                    name = dice.choice(["../x.png", "/x.png", "images\\a.png", "C:/x.png", "images/", "a\0b", name * 3])
                file.writestr(zipfile.ZipInfo(name), path.read_bytes())
    if dice.may(0.25):
        dice.choice([_cut, _flipped, _flipped, _other])(dice, archive)


def seen(folder: Path) -> dict[str, Any]:
    """Every file, folder and link below a folder: what it is, and what is in it."""
    found: dict[str, Any] = {}
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(where, name)
            status = os.lstat(path)
            regular = (status.st_mode & 0o170000) == 0o100000
            content = Path(path).read_bytes() if regular else os.readlink(path) if os.path.islink(path) else ""
            found[os.path.relpath(path, folder)] = (status.st_mode, content)
    return found
