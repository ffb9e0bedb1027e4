"""What an import would find, without importing: what is there, what is missing and where to put it, what does not fit.

    for finding in survey(params.download, Path.cwd()):
        print(finding.what, finding.state, finding.text)

Names, sizes and numbers are looked at, no picture is opened and nothing is fetched, so it takes seconds; the download
stage does it first, and says all that is wrong at once.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saliency_r1.data import models
from saliency_r1.data.archives import expanded_size
from saliency_r1.data.catalogue import Archive, Catalogue, Dataset, SplitName
from saliency_r1.data.errors import DataError
from saliency_r1.data.fetch import ArchiveCache
from saliency_r1.data.importers import LAYOUTS
from saliency_r1.data.places import settle, unpacked
from saliency_r1.data.splits import allowed
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import reading, walk
from saliency_r1.params import Download

State = Literal["there", "to fetch", "tight", "missing", "unfit"]
_REASONS = 3  # of files that have no other half, in a finding
GOOD: frozenset[State] = frozenset({"there", "to fetch", "tight"})


@dataclass(frozen=True)
class Finding:
    """What is known about a split or a base model. `needs` is what its import writes and fetches, in bytes."""

    what: str
    state: State
    text: str
    needs: int = 0


def survey(settings: Download, root: Path, names: tuple[str, ...] = ()) -> list[Finding]:
    """One finding a split (of `names`, or of all that `settings` names), base model, and one about the disk if it is
    too small.

    Raises `DataError` for a catalogue or a setting that cannot be read.
    """
    catalogue = Catalogue.load(root / settings.catalogue)
    mirror = root / settings.mirror if settings.mirror else None
    if mirror is not None and not mirror.is_dir():
        raise DataError(f"download.mirror = {settings.mirror!r}: expected a folder of local copies, there is none")
    store = ArchiveCache(root / "runs" / "download", mirror, contested=catalogue.contested)
    chosen = catalogue.select(names or settings.datasets)
    findings = [_split(dataset, split, store, settings.allow_missing) for dataset, split in chosen]
    findings += _ambiguous(chosen, store)
    if not names:
        findings += list(_bases(settings, catalogue, root))
    needed = sum(finding.needs for finding in findings)
    free = shutil.disk_usage(root).free
    if needed > free:
        text = f"{_megabytes(needed)} to fetch and unpack all of it anew, {_megabytes(free)} are free"
        findings.append(Finding("disk", "tight", f"{text}: make room, or import fewer data sets at a time"))
    return findings


def refuse(findings: list[Finding]) -> None:
    """Raise one `DataError` with all that is missing or does not fit."""
    bad = [finding for finding in findings if finding.state not in GOOD]
    if bad:
        lines = "\n".join(f"  {finding.what}: {finding.text}" for finding in bad)
        raise DataError(
            f"{len(bad)} of {len(findings)} things that download needs are not as they should be:\n{lines}\n"
            "`saliency-r1 data check` says so again, without importing"
        )


def _split(dataset: Dataset, name: SplitName, store: ArchiveCache, allow_missing: Sequence[str]) -> Finding:
    what = f"{dataset.name}/{name}"
    split = dataset.splits[name]
    if split.folder is not None:
        folder = dataset.base / split.folder
        if not folder.is_dir():
            return Finding(what, "missing", f"there is no folder {folder}; correct `folder` in the catalogue")
        return _in_folder(what, dataset, name, folder, allow_missing)
    if store.mirror is not None and (found := unpacked(dataset, name, store.mirror)) is not None:
        return _in_folder(what, dataset, name, found, allow_missing)
    return _in_archives(what, dataset, name, store.of(dataset.name))


def _ambiguous(chosen: Sequence[tuple[Dataset, SplitName]], store: ArchiveCache) -> Iterator[Finding]:
    """Files of the mirror that would be taken for several archives, though no hash or address says whose they are."""
    if (mirror := store.mirror) is None:
        return
    taken: dict[Path, dict[tuple[str, str], Archive]] = defaultdict(dict)
    for dataset, name in chosen:
        split = dataset.splits[name]
        if split.folder is None and unpacked(dataset, name, mirror) is None:
            for archive in split.archives:
                path = store.of(dataset.name).find(archive, dataset.base)
                if path is not None and path in (mirror / archive.path, mirror / Path(archive.path).name):
                    taken[path].setdefault((dataset.name, archive.path), archive)
    for path, archives in taken.items():
        first, *others = archives.values()
        if not all(one.sha256 for one in (first, *others)) and not all(map(first.same, others)):
            yield Finding(
                " and ".join(sorted({owner for owner, _ in archives})),
                "unfit",
                f"{path} would be taken for the archives of each, and nothing says whose it is; unpack each one into "
                f"{mirror}/<data set>/, or give sha256 in the catalogue",
            )


def _in_folder(what: str, dataset: Dataset, name: SplitName, folder: Path, allow_missing: Sequence[str]) -> Finding:
    try:
        with reading(folder):
            split = settle(folder, dataset.splits[name], name)
            found = LAYOUTS[dataset.layout].find(folder, split)
    except (DataError, InputError) as error:
        return Finding(what, "unfit", f"{folder}: {error}")
    count = len(found.items)
    there = count + len(found.problems)
    # What is named in a list, or not dropped as empty, is fewer than what lies there; the import counts that.
    fits = there in split.count or (dataset.mask.empty == "drop" and there > min(split.count, default=0))
    if split.count and split.names is None and not fits and not allowed(f"{what}/", allow_missing):
        expected = " or ".join(map(str, split.count))
        cure = f"get all of it, correct `count`, or put '{what}/*' into download.allow_missing"
        pairs = f"{count} pairs" if there == count else f"{there} images, {there - count} of them without a pair,"
        return Finding(what, "unfit", f"{folder}: {pairs} where the catalogue expects {expected}; {cure}")
    if not count:
        reasons = "".join(f"\n    {problem.name}: {problem.reason}" for problem in found.problems[:_REASONS])
        return Finding(what, "unfit", f"{folder}: no pair of an image and a mask of the same name{reasons}")
    alone = f", {len(found.problems)} files without their other half" if found.problems else ""
    images = [item.image for item in found.items if item.image.is_file()]
    # Said here and judged by the import, as broken pictures are: download.allow_missing may excuse them.
    nowhere = f", {count - len(images)} of the images a link that leads nowhere" if len(images) < count else ""
    size = sum(image.stat().st_size for image in images)
    return Finding(what, "there", f"{folder}: {count} pairs{alone}{nowhere}", size)


def _in_archives(what: str, dataset: Dataset, name: SplitName, store: ArchiveCache) -> Finding:
    texts, needs, mirror = [], 0, store.mirror
    state: State = "there"
    for archive in dataset.splits[name].archives:
        path = store.find(archive, dataset.base)
        if path is not None:
            size = path.stat().st_size
            if archive.size not in (None, size):
                return Finding(what, "unfit", f"{path}: {size:,} bytes, expected {archive.size:,}; another version?")
            try:
                with reading(path):
                    needs += expanded_size(path)
            except (DataError, InputError) as error:
                return Finding(what, "unfit", str(error))
            texts.append(str(path))
        elif archive.locations:
            state = "to fetch"
            needs += 2 * (archive.size or 0)
            size_text = f", {_megabytes(archive.size)}" if archive.size else ""
            texts.append(f"{archive.locations[0]}{size_text}; licence: {dataset.licence}")
        else:
            place = (
                f"{mirror}/{Path(archive.path).name}, or unpacked as {mirror}/{dataset.name}/"
                if mirror
                else (f"{dataset.base / archive.path}, or into a folder that download.mirror names")
            )
            homepage = f" ({dataset.homepage})" if dataset.homepage else ""
            return Finding(what, "missing", f"no address is listed{homepage}; put the archive at {place}")
    return Finding(what, state, "; ".join(texts), needs)


def _bases(settings: Download, catalogue: Catalogue, root: Path) -> Iterator[Finding]:
    for key in ("policy", "segmenter"):
        what = f"model {getattr(settings, key)}"
        try:
            source = models.resolve(getattr(settings, key), key, catalogue, root)
        except DataError as error:
            yield Finding(what, "missing", str(error))
            continue
        if source.folder is not None:
            files = [path for path, is_folder in walk(source.folder) if not is_folder and path.is_file()]
            size = sum(path.stat().st_size for path in files) if source.outside else 0
            yield Finding(what, "there", str(source.folder), size)
        elif models.cached(source):
            yield Finding(what, "there", f"{source}, in the hub's cache")
        elif fault := models.unreachable(source):
            yield Finding(what, "missing", f"{source}: {fault}")
        else:
            yield Finding(what, "to fetch", f"{source}, from the Hugging Face hub")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
