"""Folders of maps as people have them: matched by name, read whatever their format, and never scored in part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from saliency_r1.metrics.evaluator import SaliencyEvaluator
from saliency_r1.metrics.truth import DEFAULT, MeasureError, Protocol, Truth
from saliency_r1.runtime.messages import printable

Missing = Literal["error", "zero"]
EXTENSIONS = (".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")
_LOSSY = (".jpg", ".jpeg")
# Images between two reports of progress; a process takes as many at a time.
_CHUNK = 64


class Unreadable(MeasureError):
    """A file that is no image, or half of one."""


@dataclass
class Problems:
    """Names, by what is wrong with their prediction; `resized` is counted but harmless."""

    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)

    def add(self, other: Problems) -> None:
        """Take over another part's."""
        for key, names in vars(other).items():
            getattr(self, key).extend(names)

    def lines(self) -> list[str]:
        """One line a kind, with the first names; empty if nothing is wrong."""
        return [
            f"{len(names)} {what}: {_listed(names)}"
            for what, names in (
                ("missing", self.missing),
                ("surplus", self.surplus),
                ("unreadable", self.unreadable),
                ("of another size than the ground truth (--resize stretches them to it)", self.sizes),
            )
            if names
        ]


class FolderScore(NamedTuple):
    """What `score_folders` returns; `scored_as_empty` counts the predictions that `missing="zero"` made empty."""

    evaluator: SaliencyEvaluator
    problems: Problems
    scored_as_empty: int


def read_map(path: Path) -> NDArray[np.uint8]:
    """A map as uint8 H x W, scaled so that 255 is full: 16 bits are rounded to 8, colours weighted as luma (palettes
    resolved first), alpha ignored. Values are not stretched. Raises Unreadable.
    """
    # imdecode instead of imread: paths that are not ASCII work everywhere.
    data = np.fromfile(path, np.uint8)
    image: Any = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise Unreadable(f"{path} is not a readable image")
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise Unreadable(f"{path} has values of type {image.dtype}, expected 8 or 16 bits")
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if image.shape[2] == 4 else cv2.COLOR_BGR2GRAY)
    return np.asarray(image, np.uint8)


def resized(levels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A map stretched bilinearly to height and width, as PySODEvalToolkit does."""
    stretched: NDArray[np.uint8] = np.empty(shape, np.uint8)
    cv2.resize(levels, shape[::-1], dst=stretched, interpolation=cv2.INTER_LINEAR)
    return stretched


def read_truth(path: Path, protocol: Protocol = DEFAULT) -> Truth:
    """A binary ground truth. Raises Unreadable, and MeasureError for a mask that is stored as 0/1."""
    try:
        return Truth(read_map(path), protocol.gt_threshold)
    except MeasureError as error:
        raise error if isinstance(error, Unreadable) else MeasureError(f"{path}: {error}") from None


def read_ids(path: Path) -> NDArray[np.int32]:
    """An instance-id map, int32 H x W, 0 = background.

    Grey values and palette indices are ids; in a colour image every colour but black is one. Raises Unreadable.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise Unreadable(f"{path} is not a readable image ({error})") from error
    if image.mode in ("RGB", "RGBA"):
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int32), -1, 0)
        colours = red << 16 | green << 8 | blue
        present = np.unique(np.append(colours.ravel(), 0))
        return np.searchsorted(present, colours).astype(np.int32)
    return np.asarray(image if image.mode != "LA" else image.convert("L")).astype(np.int32)


def find_maps(folder: Path, prefix: str = "", suffix: str = "") -> dict[str, Path]:
    """Images below a folder by name: the path within it, POSIX, less the extension and the given affixes of the stem.

    Of two files of one name a lossless one beats a JPEG (photo and mask side by side); otherwise, and where there is no
    image at all, MeasureError is raised. Hidden files are passed over.
    """
    if not folder.is_dir():
        raise MeasureError(f"{folder} is not a folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in EXTENSIONS or path.name.startswith("."):
            continue
        stem = path.stem[len(prefix) : len(path.stem) - len(suffix)]
        if not stem or path.stem != prefix + stem + suffix:
            continue
        name = path.parent.relative_to(folder).joinpath(stem).as_posix()
        rival = found.get(name)
        if rival is None or (rival.suffix.lower() in _LOSSY and path.suffix.lower() not in _LOSSY):
            found[name] = path
        elif path.suffix.lower() not in _LOSSY:
            raise MeasureError(f"two maps of the name {name}: {rival} and {path}")
    if not found:
        raise MeasureError(f"{folder} holds no image ({', '.join(EXTENSIONS)})")
    return found


def match(predictions: Mapping[str, Path], truths: Mapping[str, Path]) -> tuple[dict[str, Path], Problems]:
    """The prediction of every ground truth that has one, and who is missing or surplus.

    A name in another case matches if it is the only such one.
    """
    matched = {name: predictions[name] for name in truths if name in predictions}
    left: dict[str, list[str]] = {}
    for name in predictions:
        if name not in matched:
            left.setdefault(name.casefold(), []).append(name)
    absent = [name for name in truths if name not in matched]
    folded = [name.casefold() for name in absent]
    for name, key in zip(absent, folded):
        if len(left.get(key, ())) == 1 and folded.count(key) == 1:
            matched[name] = predictions[left.pop(key)[0]]
    surplus = sorted(name for names in left.values() for name in names)
    return matched, Problems(missing=sorted(set(truths) - set(matched)), surplus=surplus)


def score_folders(
    pred: Path,
    gt: Path,
    *,
    grouped: bool = False,
    missing: Missing = "error",
    resize: bool = False,
    expected: Iterable[int] = (),
    protocol: Protocol = DEFAULT,
    weighted: bool = True,
    bootstrap: int = 0,
    prefix: str = "",
    suffix: str = "",
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FolderScore:
    """Score every ground truth below `gt` with the map of the same name below `pred`, at the ground truth's size.

    `grouped`: the folder of an image is its group (CoSOD). `missing="zero"` scores a missing, unreadable or differently
    sized prediction as an empty map and leaves surplus ones out. `resize` stretches a differently sized prediction
    bilinearly. `expected`: the number of images the data set has, several where it exists in several. `prefix` and
    `suffix` are taken off the predictions' names. `progress(done, total)` is called now and then.

    Raises MeasureError with the names for whatever is wrong, once everything was looked at.
    """
    truths = find_maps(gt)
    if expected and len(truths) not in expected:
        counts = " or ".join(str(count) for count in expected)
        raise MeasureError(f"{gt} holds {len(truths)} ground truths, the data set has {counts}")
    if grouped and (loose := [name for name in truths if "/" not in name]):
        raise MeasureError(f"co-saliency needs a folder a group, these lie outside of one: {_listed(loose)}")
    matched, problems = match(find_maps(pred, prefix, suffix), truths)
    _stop(problems, missing)
    settings: dict[str, Any] = {"protocol": protocol, "weighted": weighted, "bootstrap": bootstrap}
    return score_files(matched, truths, problems, settings, grouped, missing, resize, workers, progress)


def score_files(
    matched: Mapping[str, Path],
    truths: Mapping[str, Path],
    problems: Problems,
    settings: Mapping[str, Any],
    grouped: bool = False,
    missing: Missing = "error",
    resize: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FolderScore:
    """Score every ground truth with the map that `matched` has for its name; `problems` are those found so far.

    `settings` are those of the `SaliencyEvaluator`; the rest and the errors are as in `score_folders`.
    """
    part = _Part(dict(settings), grouped, resize)
    jobs = [(name, matched.get(name), path) for name, path in truths.items()]
    total = SaliencyEvaluator(**settings)
    for evaluator, found in _parts(part, jobs, workers):
        total.merge(evaluator)
        problems.add(found)
        if progress:
            progress(len(total) + len(problems.unreadable) + len(problems.sizes), len(jobs))
    _stop(problems, missing)
    if missing == "zero":
        empty = problems.missing + problems.unreadable + problems.sizes
        for name in empty:
            truth = read_truth(truths[name], total.protocol)
            total.update(np.zeros(truth.shape, np.uint8), truth, name, _group(name, grouped))
    else:
        empty = []
    return FolderScore(total, problems, len(empty))


@dataclass(frozen=True)
class _Part:
    """Scores some of the images, in this process or another."""

    settings: dict[str, Any]
    grouped: bool
    resize: bool

    def __call__(self, jobs: Iterable[tuple[str, Path | None, Path]]) -> tuple[SaliencyEvaluator, Problems]:
        evaluator, problems = SaliencyEvaluator(**self.settings), Problems()
        for name, prediction, path in jobs:
            if prediction is None:  # listed as missing already
                continue
            truth = read_truth(path, evaluator.protocol)
            try:
                levels = read_map(prediction)
            except Unreadable:
                problems.unreadable.append(name)
                continue
            if levels.shape != truth.shape:
                if not self.resize:
                    problems.sizes.append(name)
                    continue
                levels = resized(levels, truth.shape)
                problems.resized.append(name)
            evaluator.update(levels, truth, name, _group(name, self.grouped))
        return evaluator, problems


def _parts(part: _Part, jobs: list[Any], workers: int) -> Iterable[tuple[SaliencyEvaluator, Problems]]:
    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    if workers > 1 and len(chunks) > 1:
        with ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
            yield from pool.map(part, chunks)
    else:
        yield from map(part, chunks)


def _stop(problems: Problems, missing: Missing) -> None:
    lines = problems.lines()
    if lines and missing == "error":
        raise MeasureError(
            "predictions do not fit the ground truth (--missing zero scores them as empty maps)\n" + "\n".join(lines)
        )


def _group(name: str, grouped: bool) -> str | None:
    return name.rpartition("/")[0] if grouped else None


def _listed(names: list[str], limit: int = 20) -> str:
    more = f" ... and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(printable, names[:limit])) + more
