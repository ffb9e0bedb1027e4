"""Folders of maps as people have them: matched by name, read whatever their format, and never scored in part."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from saliency_r1.inputs import masks
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import SUFFIXES, key, nfc, pictures_below, shown
from saliency_r1.inputs.masks import GREYS, read_levels, read_mask
from saliency_r1.metrics.evaluator import SaliencyEvaluator
from saliency_r1.metrics.truth import DEFAULT, MeasureError, Protocol, Truth
from saliency_r1.runtime.messages import about, printable
from saliency_r1.runtime.workers import spread

Missing = Literal["error", "zero"]
_LOSSY = (".jpg", ".jpeg", ".jfif")
# Images between two reports of progress; a process takes as many at a time.
_CHUNK = 64
_REASONS = 5  # of unreadable files, in a message

_Read = TypeVar("_Read")


class Unreadable(MeasureError):
    """A file that cannot be scored: no image, half of one, or one whose values do not say what they mean."""


@dataclass
class Problems:
    """Names, by what is wrong with their prediction; `resized` and `empty` (ground truths) are counted but harmless.

    `reasons` says for unreadable ones what was found.
    """

    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def add(self, other: Problems) -> None:
        """Take over another part's."""
        for kind, names in vars(other).items():
            getattr(self, kind).extend(names)

    def lines(self, advise: bool = False) -> list[str]:
        """One line a kind, with the first names; empty if nothing is wrong. `advise`: name the option of `evaluate`."""
        stretch = " (--resize stretches them to it)" if advise else ""
        return [
            f"{len(names)} {what}: {_listed(names)}"
            for what, names in (
                ("missing", self.missing),
                ("surplus", self.surplus),
                ("unreadable", self.unreadable),
                (f"of another size than the ground truth{stretch}", self.sizes),
            )
            if names
        ] + [f"  {reason}" for reason in self.reasons[:_REASONS]]


class FolderScore(NamedTuple):
    """What `score_folders` returns; `scored_as_empty` counts the predictions that `missing="zero"` made empty."""

    evaluator: SaliencyEvaluator
    problems: Problems
    scored_as_empty: int


def read_map(path: Path, stretch: bool = True) -> NDArray[np.uint8]:
    """A map as uint8 H x W, scaled so that 255 is full (see `inputs.masks`). Values are not stretched.

    Raises Unreadable; where the values will not be stretched (`stretch=False`), also for a file of 16 bits none of
    whose values is above 255: it holds 8 bits, or next to nothing.
    """
    levels = readable(read_levels, path)
    if not stretch and levels.kind == GREYS and levels.stored.dtype.itemsize > 1 and 0 < levels.stored.max() <= 255:
        raise Unreadable(f"{path} has values up to {levels.stored.max()} in 16 bits: save it with 8 bits")
    return levels.values


def resized(levels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A map stretched bilinearly to height and width, as PySODEvalToolkit does."""
    stretched: NDArray[np.uint8] = np.empty(shape, np.uint8)
    cv2.resize(levels, shape[::-1], dst=stretched, interpolation=cv2.INTER_LINEAR)
    return stretched


def read_truth(path: Path, protocol: Protocol = DEFAULT, may_be_empty: bool = False) -> Truth:
    """A binary ground truth. Raises Unreadable, also for a mask with nothing above the threshold that is not black.

    `may_be_empty`: such a mask is an empty one.
    """
    return read_truth_and_void(path, protocol, may_be_empty)[0]


def read_truth_and_void(path: Path, protocol: Protocol, may_be_empty: bool) -> tuple[Truth, NDArray[np.bool_] | None]:
    """A ground truth as by `read_truth`, and its void pixels."""
    mask = readable(
        read_mask,
        path,
        protocol.gt_threshold,
        lambda least: f"--gt-threshold {least - 1}",
        protocol.void,
        may_be_empty=may_be_empty,
        said=protocol.gt_threshold != DEFAULT.gt_threshold,
    )
    return Truth(mask.foreground), mask.void


def read_ids(path: Path, void: int | None = None) -> NDArray[np.int32]:
    """An instance-id map, int32 H x W, 0 = background (see `inputs.masks.read_ids`). Raises Unreadable."""
    return readable(masks.read_ids, path, void)


def readable(read: Callable[..., _Read], path: Path, *choices: Any, **more: Any) -> _Read:
    """What a reader of `inputs` makes of a file. Raises Unreadable in place of its InputError."""
    try:
        return read(path, *choices, **more)
    except InputError as error:
        raise Unreadable(str(error)) from None


def without_void(levels: NDArray[np.uint8], void: NDArray[np.bool_] | None, stretch: bool) -> NDArray[np.uint8]:
    """A map whose void pixels are background: 0, or what stretching makes 0."""
    if void is None or not void.any():
        return levels
    background = levels[~void].min(initial=255) if stretch and not void.all() else 0
    return np.where(void, np.uint8(background), levels)


def fitted(
    levels: NDArray[np.uint8], truth: Truth, void: NDArray[np.bool_] | None, stretch: bool, resize: bool
) -> NDArray[np.uint8] | None:
    """A map as it is scored: at the size of the ground truth, without void; None if it has another size for good."""
    if levels.shape != truth.shape:
        if not resize:
            return None
        levels = resized(levels, truth.shape)
    return without_void(levels, void, stretch)


def find_maps(folder: Path, prefix: str = "", suffix: str = "") -> dict[str, Path]:
    """Maps below a folder by name: the path within it, POSIX, less the extension and the given affixes of the stem.

    Of the files of one name a lossless one beats JPEGs (photo and mask side by side); where some names have both, a
    name with a JPEG alone is a photo without its mask and no map. Raises MeasureError as `find_files` does.
    """
    files = _files(folder, prefix, suffix)
    photos = _photos(files)
    return {name: _one(name, paths) for name, paths in files.items() if name not in photos}


def predicted(folder: Path) -> Path:
    """The maps (or else the masks) in a folder that `saliency-r1 predict` has written; any other folder as it is."""
    if not (folder / "response.json").is_file():
        return folder
    return next((folder / inner for inner in ("maps", "masks") if (folder / inner).is_dir()), folder)


def find_truths(folder: Path) -> dict[str, Path]:
    """The ground truths below a folder as `find_maps` finds them. Raises MeasureError for a photo without its mask."""
    files = _files(folder)
    if photos := _photos(files):
        raise MeasureError(
            f"{folder}: {len(photos)} photos without a mask, where others have theirs beside them: "
            f"{_listed(sorted(photos))}. Add the masks, or take the photos away"
        )
    return {name: _one(name, paths) for name, paths in files.items()}


def find_files(folder: Path, besides: Iterable[Path] = ()) -> dict[str, Path]:
    """Images below a folder by name, whatever they show, a lossless one before JPEGs; not those `besides`.

    Hidden files and folders are passed over, links are followed. Raises MeasureError where two files could be meant by
    a name, and where there is no image at all.
    """
    return {name: _one(name, paths) for name, paths in _files(folder, besides=besides).items()}


def _files(folder: Path, prefix: str = "", suffix: str = "", besides: Iterable[Path] = ()) -> dict[str, list[Path]]:
    """All images below a folder by name."""
    if not folder.is_dir():
        raise MeasureError(f"{folder} is not a folder")
    prefix, suffix = nfc(prefix), nfc(suffix)
    found: dict[str, list[Path]] = {}
    others = {os.path.realpath(path) for path in besides}
    for path in pictures_below(folder):
        if others and os.path.realpath(path) in others:
            continue
        whole = nfc(shown(path.stem))
        stem = whole[len(prefix) : len(whole) - len(suffix)]
        if not stem or whole != prefix + stem + suffix:
            continue
        name = nfc(shown(path.parent.relative_to(folder) / stem))
        found.setdefault(name, []).append(path)
    if not found:
        more = " beside the ground truth" if others else ""
        raise MeasureError(f"{folder} holds no image{more} ({', '.join(sorted(SUFFIXES))})")
    return found


def _photos(files: Mapping[str, list[Path]]) -> set[str]:
    """The names that have a JPEG alone, where others have a JPEG and a lossless file."""
    lossy = {name: {path.suffix.lower() in _LOSSY for path in paths} for name, paths in files.items()}
    alone = {name for name, kinds in lossy.items() if kinds == {True}}
    return alone if any(len(kinds) == 2 for kinds in lossy.values()) else set()


def _one(name: str, paths: list[Path]) -> Path:
    """The file that is meant by a name."""
    rivals = [path for path in paths if path.suffix.lower() not in _LOSSY] or paths
    if len(rivals) > 1:
        raise MeasureError(f"two maps of the name {name}: {rivals[0]} and {rivals[1]}")
    return rivals[0]


def match(predictions: Mapping[str, Path], truths: Mapping[str, Path]) -> tuple[dict[str, Path], Problems]:
    """The prediction of every ground truth that has one, and who is missing or surplus.

    A name in another case matches if it is the only such one.
    """
    matched = {name: predictions[name] for name in truths if name in predictions}
    left: dict[str, list[str]] = {}
    for name in predictions:
        if name not in matched:
            left.setdefault(key(name), []).append(name)
    absent = [name for name in truths if name not in matched]
    folded = Counter(key(name) for name in absent)
    for name in absent:
        if len(left.get(key(name), ())) == 1 and folded[key(name)] == 1:
            matched[name] = predictions[left.pop(key(name))[0]]
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
    may_be_empty: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FolderScore:
    """Score every ground truth below `gt` with the map of the same name below `pred`, at the ground truth's size.

    `grouped`: the folder of an image is its group (CoSOD). `missing="zero"` scores a missing, unreadable or differently
    sized prediction as an empty map and leaves surplus ones out. `resize` stretches a differently sized prediction
    bilinearly. `expected`: the number of images the data set has, several where it exists in several. `prefix` and
    `suffix` are taken off the predictions' names. `may_be_empty`: a ground truth with nothing above the threshold is an
    empty one, and all of them may be. `progress(done, total)` is called now and then.

    Raises MeasureError with the names for whatever is wrong, once everything was looked at.
    """
    truths = find_truths(gt)
    if expected and len(truths) not in expected:
        counts = " or ".join(str(count) for count in expected)
        raise MeasureError(f"{gt} holds {len(truths)} ground truths, the data set has {counts}")
    if grouped and (loose := [name for name in truths if "/" not in name]):
        raise MeasureError(f"co-saliency needs a folder a group, these lie outside of one: {_listed(loose)}")
    matched, problems = match(find_maps(pred, prefix, suffix), truths)
    _stop(problems, missing, advise=True)
    settings: dict[str, Any] = {"protocol": protocol, "weighted": weighted, "bootstrap": bootstrap}
    score = score_files(
        matched, truths, problems, settings, grouped, missing, resize, may_be_empty, workers, progress, advise=True
    )
    if not may_be_empty and len(score.problems.empty) == len(score.evaluator):
        raise MeasureError(
            f"{gt}: all {len(score.evaluator)} ground truths are empty (every value is 0); if nothing is salient in "
            "them, say what F is there: --empty zero or --empty agree"
        )
    return score


def score_files(
    matched: Mapping[str, Path],
    truths: Mapping[str, Path],
    problems: Problems,
    settings: Mapping[str, Any],
    grouped: bool = False,
    missing: Missing = "error",
    resize: bool = False,
    may_be_empty: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    advise: bool = False,
) -> FolderScore:
    """Score every ground truth with the map that `matched` has for its name; `problems` are those found so far.

    `settings` are those of the `SaliencyEvaluator`; `advise`: errors name the options of `saliency-r1 evaluate`. The
    rest and the errors are as in `score_folders`.
    """
    part = _Part(dict(settings), grouped, resize, may_be_empty)
    jobs = [(name, matched.get(name), path) for name, path in truths.items()]
    total = SaliencyEvaluator(**settings)
    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    for evaluator, found in spread(part, chunks, workers):
        total.merge(evaluator)
        problems.add(found)
        if progress:
            progress(len(total) + len(problems.unreadable) + len(problems.sizes), len(jobs))
    _stop(problems, missing, advise)
    if missing == "zero":
        empty = problems.missing + problems.unreadable + problems.sizes
        for name in empty:
            truth = read_truth(truths[name], total.protocol, may_be_empty)
            if not truth.foreground:
                problems.empty.append(name)
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
    may_be_empty: bool

    def __call__(self, jobs: Iterable[tuple[str, Path | None, Path]]) -> tuple[SaliencyEvaluator, Problems]:
        evaluator, problems = SaliencyEvaluator(**self.settings), Problems()
        for name, prediction, path in jobs:
            if prediction is not None:  # the others are listed as missing already
                with about(f"{prediction} with {path}"):
                    self._score(name, prediction, path, evaluator, problems)
        return evaluator, problems

    def _score(self, name: str, prediction: Path, path: Path, evaluator: SaliencyEvaluator, problems: Problems) -> None:
        truth, void = read_truth_and_void(path, evaluator.protocol, self.may_be_empty)
        stretch = evaluator.protocol.stretch
        try:
            levels = read_map(prediction, stretch)
        except Unreadable as error:
            problems.unreadable.append(name)
            problems.reasons.append(str(error))
            return
        fitting = fitted(levels, truth, void, stretch, self.resize)
        if levels.shape != truth.shape:
            (problems.sizes if fitting is None else problems.resized).append(name)
        if fitting is None:
            return
        if not truth.foreground:
            problems.empty.append(name)
        evaluator.update(fitting, truth, name, _group(name, self.grouped))


def _stop(problems: Problems, missing: Missing, advise: bool) -> None:
    lines = problems.lines(advise)
    if lines and missing == "error":
        remedy = " (--missing zero scores them as empty maps)" if advise else ""
        raise MeasureError(f"predictions do not fit the ground truth{remedy}\n" + "\n".join(lines))


def _group(name: str, grouped: bool) -> str | None:
    return name.rpartition("/")[0] if grouped else None


def _listed(names: list[str], limit: int = 20) -> str:
    more = f" ... and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(printable, names[:limit])) + more
