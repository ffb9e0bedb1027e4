"""Cut-outs of things people know, and unknown ones made of noise: what the pictures are composed of.

The drawings are Microsoft's Fluent Emoji (MIT), taken from the npm package `@lobehub/fluent-emoji-3d` at one version,
whose integrity is checked. `objects.yaml` says which of them are used and what they are called.
"""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from saliency_r1.annotation.attributes import NAMED_COLOURS, colour_shares

PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
SHA512 = "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g=="
TABLE = Path(__file__).with_name("objects.yaml")
SIDE = 128  # of a kept cut-out's square, pixels
NEUTRAL = ("white", "grey", "black")
CHROMATIC = (
    0.3  # share of chromatic pixels from which they, and not the neutral ones, name a thing: a red car has tyres
)
CLEAR, UNCLEAR = 0.5, 0.4  # share among them from which their commonest colour is said; below which none is
# Hue in degrees / 2, factors of saturation and of value; the first is the drawing as it is.
NATURAL = ((0, 1.0, 1.0), (0, 1.0, 0.72), (0, 0.25, 0.9), (0, 0.3, 0.45))
ANY = ((0, 1.0, 1.0), *((hue, 1.0, 1.0) for hue in range(15, 180, 15)), (0, 0.1, 1.1), (0, 0.1, 0.45), (0, 0.9, 0.6))


@dataclass(frozen=True)
class Kind:
    """What a thing is called: its usual `name`, other names `also`, and the word of its `family`."""

    name: str
    also: tuple[str, ...]
    family: str


@dataclass(frozen=True)
class Look:
    """One way in which a kind may look: RGBA (uint8, cropped to its content) and its colour, "" where none prevails."""

    kind: Kind
    drawing: str
    colour: str
    pixels: NDArray[np.uint8]


def fetch(cache: Path = Path("runs/fluent-emoji")) -> Path:
    """The package's tarball, by `npm pack` where it is not in `cache` yet.

    Raises:
        ValueError: npm gave something else than what was pinned.
    """
    path = cache / "package.tgz"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            subprocess.run(["npm", "pack", PACKAGE], cwd=folder, check=True, capture_output=True)
            (found,) = Path(folder).glob("*.tgz")
            found.rename(path)
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if digest != SHA512:
        raise ValueError(f"{path}: not the {PACKAGE} that was pinned (sha512-{digest}); delete it and try again")
    return path


def member(drawing: str, names: set[str]) -> str:
    """The file of an emoji in the package; some are stored with the variation selector, some without.

    Raises:
        ValueError: the package has no such drawing.
    """
    code = "-".join(f"{ord(letter):x}" for letter in drawing)
    for stem in (code, code.replace("-fe0f", ""), f"{code}-fe0f"):
        if (name := f"package/assets/{stem}.webp") in names:
            return name
    raise ValueError(f"{TABLE}: {PACKAGE} has no drawing {drawing} ({code})")


def read_drawings(archive: Path, drawings: Iterable[str]) -> dict[str, bytes]:
    """The files of drawings, read in the order of the tarball: to go back in it is to unpack it again."""
    with tarfile.open(archive) as package:
        names = set(package.getnames())
        wanted = {member(drawing, names): drawing for drawing in sorted(drawings)}
    contents: dict[str, bytes] = {}
    with tarfile.open(archive, "r|*") as package:
        for info in package:
            if info.name in wanted and (file := package.extractfile(info)):
                contents[wanted[info.name]] = file.read()
    return contents


def load_table(path: Path = TABLE) -> list[tuple[Kind, list[str], str, bool]]:
    """The rows of `objects.yaml`: kind, its drawings, which hues they may take, whether they are kept out."""
    rows = []
    for family, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        for name, item in entry["things"].items():
            kind = Kind(name, tuple(item.get("also", ())), family)
            held_out = item.get("unseen", False)
            rows.append((kind, item["drawings"].split(), entry["hues"], held_out is True))
            if isinstance(held_out, str):
                rows.append((kind, held_out.split(), entry["hues"], True))
        rows.append((Kind(family, (), family), entry["unnamed"].split(), entry["hues"], False))
    return rows


def shifted(pixels: NDArray[np.uint8], hue: int, saturation: float, value: float) -> NDArray[np.uint8]:
    """RGBA with its hue turned (degrees / 2) and its saturation and value scaled."""
    hsv = cv2.cvtColor(pixels[..., :3], cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + hue) % 180
    hsv[..., 1:] = np.clip(hsv[..., 1:] * (saturation, value), 0, 255)
    rgb = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    return np.dstack([rgb, pixels[..., 3]])


def colour_of(rgb: NDArray[Any]) -> str | None:
    """What people would say of pixels (n x 3): a colour, "" where none prevails, None where it is hard to say."""
    shares = dict(zip(NAMED_COLOURS, colour_shares(rgb.astype(np.float32))))
    chromatic = {name: share for name, share in shares.items() if name not in NEUTRAL}
    spread = sum(chromatic.values())
    if abs(spread - CHROMATIC) < 0.06:
        return None
    votes = chromatic if spread > CHROMATIC else {name: shares[name] for name in NEUTRAL}
    best = max(votes, key=lambda name: votes[name])
    clear = votes[best] / sum(votes.values())
    return best if clear >= CLEAR else "" if clear < UNCLEAR else None


def _cropped(image: Image.Image) -> NDArray[np.uint8]:
    """RGBA cropped to what is not transparent, at most SIDE pixels on a side."""
    pixels = np.array(image.convert("RGBA").crop(image.convert("RGBA").getchannel("A").getbbox()))
    scale = SIDE / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def looks(kind: Kind, drawing: str, pixels: NDArray[np.uint8], hues: str) -> list[Look]:
    """A drawing in every colouring whose colour is clear, or clearly none; one of each, that of the drawing first."""
    found: dict[str, Look] = {}
    small = np.asarray(cv2.resize(pixels, (48, 48), interpolation=cv2.INTER_AREA), np.uint8)
    for change in NATURAL if hues == "natural" else ANY:
        changed = shifted(small, *change)
        colour = colour_of(changed[changed[..., 3] > 200][:, :3])
        if colour is not None and colour not in found:
            found[colour] = Look(kind, drawing, colour, shifted(pixels, *change))
    return list(found.values())


@dataclass(frozen=True)
class Cutouts:
    """The looks of every drawing, by kind: those of training, the held-out ones, those without a name of their own."""

    named: dict[str, list[list[Look]]]
    unseen: dict[str, list[list[Look]]]
    unnamed: list[list[Look]]

    @classmethod
    def load(cls, archive: Path) -> Cutouts:
        """Every drawing of the table out of the package's tarball."""
        named: dict[str, list[list[Look]]] = {}
        unseen: dict[str, list[list[Look]]] = {}
        unnamed: list[list[Look]] = []
        table = load_table()
        contents = read_drawings(archive, {drawing for _, drawings, *_ in table for drawing in drawings})
        for kind, drawings, hues, held_out in table:
            for drawing in drawings:
                found = looks(kind, drawing, _cropped(Image.open(io.BytesIO(contents[drawing]))), hues)
                if not found:
                    continue
                if kind.name == kind.family:
                    unnamed.append(found)
                else:
                    (unseen if held_out else named).setdefault(kind.name, []).append(found)
        return cls(named, unseen, unnamed)
