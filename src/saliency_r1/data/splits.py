"""The import of one split of a data set: from its archives, or from a folder, to stored pairs and their index."""

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from saliency_r1.data import attributes
from saliency_r1.data.archives import DamagedArchive, check_space, expanded_size, extract
from saliency_r1.data.catalogue import DatasetSplit
from saliency_r1.data.earlier import Earlier, Memory, index_path, pairs_path
from saliency_r1.data.errors import DataError, listed
from saliency_r1.data.fetch import ArchiveCache
from saliency_r1.data.importers import LAYOUTS, Found, Item, Problem, keep_listed, locate
from saliency_r1.data.places import settle, unpacked
from saliency_r1.data.store import Imported, Place, import_item
from saliency_r1.data.table import INDEX
from saliency_r1.inputs.errors import InputError
from saliency_r1.inputs.find import nfc, reading, shown, walk
from saliency_r1.inputs.text import read_text
from saliency_r1.runtime.files import atomic_folder, link, link_tree, write_json
from saliency_r1.runtime.stage import progress

_WORKERS = min(4, os.cpu_count() or 2)  # threads: decoding and hashing release the interpreter's lock
_IN_FLIGHT = 128  # images; bounds memory whatever the size of a data set


@dataclass
class Importer:
    """Imports splits into `folder`, reusing what `memories` know of earlier imports.

    The first is about the folder that will be replaced, the second about what was imported well by a run that failed.
    """

    store: ArchiveCache
    allow_missing: Sequence[str]
    memories: tuple[Memory, Memory]
    folder: Path
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, part: DatasetSplit) -> pl.DataFrame:
        """The index of one split (`table.INDEX`), its pairs stored under `datasets/<data set>/<split>`."""
        unpacked = self._unpacked(part)
        if unpacked is not None:
            key = _fingerprint(part, _listing(unpacked))
            index = self._reused(part, key)
            return self._imported(part, key, unpacked, shutil.copyfile) if index is None else index
        known = [archive.sha256 for archive in part.split.archives]
        if None not in known and (index := self._reused(part, _fingerprint(part, known))) is not None:
            return index
        return self._from_archives(part)

    def _unpacked(self, part: DatasetSplit) -> Path | None:
        """A folder that holds the split as it is: the catalogue's `folder`, or `<mirror>/<data set>`."""
        if part.split.folder is not None:
            folder = part.dataset.base / part.split.folder
            if not folder.is_dir():
                raise DataError(f"{folder}: the folder of {part} does not exist; correct `folder` in the catalogue")
            return folder
        return unpacked(part.dataset, part.split_name, self.store.mirror) if self.store.mirror is not None else None

    def _from_archives(self, part: DatasetSplit) -> pl.DataFrame:
        """Obtain, verify, extract and import; hashes not known in advance are recorded once all of it went well."""
        dataset, wanted = part.dataset, part.split.archives
        store = self.store.of(dataset.name)

        def announce() -> None:
            print(f"{part}: fetching; licence: {dataset.licence}. {dataset.terms or ''}".rstrip(), flush=True)

        files = [store.obtain(archive, dataset.base, announce) for archive in wanted]
        digests = [store.digest(archive, file) for archive, file in zip(wanted, files)]
        key = _fingerprint(part, digests)
        if (index := self._reused(part, key)) is not None:
            return index
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".unpacked-") as name:
            scratch = Path(name)
            for archive, file in zip(wanted, files):
                try:
                    check_space(scratch, expanded_size(file), f"unpacking {part}")
                    extract(file, scratch, archive.expands_to)
                except DamagedArchive:
                    store.discard(file)
                    raise
            index = self._imported(part, key, scratch, link)
        if not self.reports[str(part)]["missing"]:  # of an incomplete one the right version would be refused later
            for archive, file, digest in zip(wanted, files, digests):
                store.remember(archive, file, digest)
        described = [{"path": a.path, "sha256": d} for a, d in zip(wanted, digests)]
        self.reports[str(part)]["archives"] = described
        return index

    def _reused(self, part: DatasetSplit, key: str) -> pl.DataFrame | None:
        """The earlier import of the split, linked into the new folder, if it had the same key and is still whole."""
        recalled = (memory.recall(str(part)) for memory in self.memories)
        earlier = next((one for one in recalled if one is not None and one.key == key and one.whole), None)
        if earlier is None:
            return None
        report = earlier.report  # what it lacks must be excused by today's parameters
        excused = self._excused(part, [Problem(**problem) for problem in report["missing"]])
        self._counted(part, report["images"], excused, len(report["dropped_as_empty"]))
        earlier.take_all(pairs_path(self.folder, str(part)))
        self._keep(part, key, earlier.index, report)
        print(f"{part}: {len(earlier.index)} images, unchanged", flush=True)
        return earlier.index

    def _keep(self, part: DatasetSplit, key: str, index: pl.DataFrame, report: dict[str, Any]) -> None:
        """Write the index of an import, and note what it is of."""
        path = index_path(self.folder, str(part))
        path.parent.mkdir(parents=True, exist_ok=True)
        index.write_parquet(path)
        self.reports[str(part)] = report
        self.memories[0].note(str(part), key, _reading(part), report)

    def keep(self) -> None:
        """Put what was imported so far where the second memory looks for it."""
        noted, kept = self.memories
        with atomic_folder(kept.previous) as folder:
            link_tree(self.folder, folder)
        kept.take_over(noted)
        kept.write()

    def _imported(self, part: DatasetSplit, key: str, source: Path, place: Place) -> pl.DataFrame:
        """Find, open, check and store every pair of `source`; anything missing that is not excused stops the stage."""
        found = _find(part, source)
        target = pairs_path(self.folder, str(part))
        work: Callable[[Item], Imported | Problem] = partial(
            import_item, layout=LAYOUTS[part.dataset.layout], rule=part.dataset.mask, target=target, place=place
        )
        earlier = self.memories[0].recall(str(part))
        if earlier is not None and earlier.reading == _reading(part):
            work = partial(_taken_or_imported, earlier, target, work)
        objects = found.objects | attributes.read(part, source, [item.name for item in found.items]) or None
        rows, problems, dropped = [], list(found.problems), []
        for result in progress(_in_order(work, found.items), len(found.items), str(part)):
            if isinstance(result, Imported) and (fault := attributes.disagreement(part, result, objects)):
                result = Problem(result.name, fault)
            if isinstance(result, Problem):
                problems.append(result)
            elif result.instances == 0 and part.dataset.mask.empty == "drop":
                dropped.append(result.name)
                for path in (result.image, result.mask):
                    (target / path).unlink()
            else:
                rows.append(_row(result, objects))
        excused = self._excused(part, problems)
        if found.crowds:
            print(f"{part}: {found.crowds} crowds (iscrowd 1) are left out, as in COCO's measures", flush=True)
        self._counted(part, len(rows), excused, len(dropped))
        index = pl.DataFrame(rows, INDEX)
        if not part.dataset.mask.may_be_empty and not index["instances"].sum():
            raise DataError(
                f"{part}: all {len(index)} masks are empty; correct `mask` of {part.dataset.name} in the catalogue, or "
                "say there that it is so: mask: {empty: keep}"
            )
        _say_turned(part, index)
        if earlier is not None:
            print(f"{part}: {earlier.has(index)} of {len(index)} pairs unchanged", flush=True)
        report = {
            "content": _content(index),
            "licence": part.dataset.licence,
            "verified": part.dataset.verified,
            "images": len(rows),
            "empty": index.filter(instances=0)["name"].to_list(),
            "oriented": index.filter("oriented")["name"].to_list(),
            "turned_masks": index.filter("turned")["name"].to_list(),
            "dropped_as_empty": dropped,
            "missing": [{"name": problem.name, "reason": problem.reason} for problem in problems],
            "unlisted": found.unlisted,
            "crowds": found.crowds,
        }
        self._keep(part, key, index, report)
        return index

    def _excused(self, part: DatasetSplit, problems: Sequence[Problem]) -> int:
        """How many problems `allow_missing` excuses; `DataError` if it does not excuse them all."""
        serious = [problem for problem in problems if not allowed(f"{part}/{problem.name}", self.allow_missing)]
        if serious:
            record = self.store.cache / "problems.json"
            write_json(record, [{"image": f"{part}/{problem.name}", "reason": problem.reason} for problem in serious])
            lines = listed([f"{part}/{problem.name}: {problem.reason}" for problem in serious])
            raise DataError(
                f"{part}: {len(serious)} images cannot be imported:\n{lines}\nMend the data set, or name them in "
                f"download.allow_missing to do without them ({record} has the whole list)"
            )
        return len(problems)

    def _counted(self, part: DatasetSplit, images: int, excused: int, dropped: int) -> None:
        """Compare the number of images with the catalogue's; a set may be counted with or without its empty ones."""
        expected = part.split.count
        if images + excused == 0:
            raise DataError(f"{part}: no image found; correct images and masks of the split in the catalogue")
        if (
            expected
            and not {images + excused, images + excused + dropped} & set(expected)
            and not allowed(f"{part}/", self.allow_missing)
        ):
            raise DataError(
                f"{part}: {images + excused} images, the catalogue expects {' or '.join(map(str, expected))}; get the "
                f"complete data set, correct `count`, or put '{part}/*' into download.allow_missing"
            )


def allowed(wanted: str, patterns: Sequence[str]) -> bool:
    """Whether `download.allow_missing` excuses `<data set>/<split>/<name>`; without a name, the split's number."""
    return any(nfc(wanted) == nfc(one) or fnmatchcase(nfc(wanted), nfc(one)) for one in patterns)


def _taken_or_imported(
    earlier: Earlier, target: Path, work: Callable[[Item], Imported | Problem], item: Item
) -> Imported | Problem:
    return earlier.take(item, target) or work(item)


def _content(index: pl.DataFrame) -> str:
    """A hash of all that was stored, by name: what the stages that read the pairs depend on."""
    return hashlib.sha256(json.dumps(index.select("name", "stored").rows()).encode()).hexdigest()


def _reading(part: DatasetSplit) -> str:
    """What the catalogue says about reading a pair."""
    rule = part.dataset.mask
    return json.dumps([part.dataset.layout, rule.model_dump(mode="json"), rule.may_be_empty, rule.has_threshold])


def _fingerprint(part: DatasetSplit, content: Any) -> str:
    """A key that changes with the bytes, and with what the catalogue says about finding and reading them."""
    entry = part.split.model_dump(mode="json", exclude={"archives", "folder"})
    known = [part.labels, part.dataset.licence, part.dataset.verified, _reading(part), entry, content]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _listing(folder: Path) -> list[tuple[str, int, int, int]]:
    """Name, size and times of every file: enough to see that somebody's folder changed.

    Programs that copy or restore set the time of change themselves; the system's own (ctime) is out of their reach.
    """
    files = sorted(path for path, is_folder in walk(folder) if not is_folder and path.is_file())
    return [
        (shown(path.relative_to(folder)), (s := path.stat()).st_size, s.st_mtime_ns, s.st_ctime_ns) for path in files
    ]


def _find(part: DatasetSplit, source: Path) -> Found:
    try:
        with reading(source):
            return _found(part, source)
    except (DataError, InputError) as error:
        raise DataError(f"{part}: {error}") from None


def _found(part: DatasetSplit, source: Path) -> Found:
    split = settle(source, part.split, part.split_name)
    for what in ("images", "masks"):
        if (found_as := getattr(split, what)) != (stated := getattr(part.split, what)):
            print(f"{part}: {what} are read from {found_as} (there is no {stated})", flush=True)
    found = LAYOUTS[part.dataset.layout].find(source, split)
    if part.split.names is not None:
        names = read_text(locate(source, part.split.names)).splitlines()
        if not any(name.strip() for name in names):
            raise DataError(f"{part.split.names} lists no name, expected one a line")
        found = keep_listed(found, names)
    return found


def _say_turned(part: DatasetSplit, index: pl.DataFrame) -> None:
    """Say on what the masks of turned images were taken to lie: nothing in the files tells it where sizes agree."""
    oriented, turned = (int(index[column].sum()) for column in ("oriented", "turned"))
    if oriented:
        print(
            f"{part}: {oriented} images are turned upright (EXIF); {turned} of their masks lie on the stored pixels "
            f"and are turned along, {oriented - turned} are taken as drawn upright; mask: {{orientation: stored}} or "
            "{orientation: upright} in the catalogue decides it for all",
            flush=True,
        )


def _row(result: Imported, objects: dict[str, list[dict[str, Any]]] | None) -> dict[str, Any]:
    row = {column: getattr(result, column) for column in INDEX if column != "objects"}
    mine = None if objects is None else json.dumps(objects.get(result.name, []), ensure_ascii=False)
    return row | {"objects": mine}


def _in_order(work: Callable[[Item], Imported | Problem], items: Iterable[Item]) -> Iterator[Imported | Problem]:
    """Results in the order of the items, a bounded number of them under way."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        pending: deque[Future[Imported | Problem]] = deque()
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= _IN_FLIGHT:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
