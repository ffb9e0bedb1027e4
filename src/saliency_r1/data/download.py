"""From catalogue entries to the sample table: fetch, verify, extract, import, and keep test images out of training.

artifacts/download/
    datasets/<data set>/<split>/{images,masks}/...
    index/<data set>/<split>.parquet   one row an image, with hash and thumbnail
    models/{policy,segmenter}/
    table.parquet                      one row a sample
    report.json                        what was imported, from what, and what was not and why
    versions.json                      of the packages it ran with
"""

import contextlib
import errno
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from saliency_r1.data import models
from saliency_r1.data.catalogue import Catalogue, DatasetSplit
from saliency_r1.data.earlier import Memory
from saliency_r1.data.errors import DataError, Unreachable
from saliency_r1.data.fetch import ArchiveCache, Patience
from saliency_r1.data.leaks import find_leaks
from saliency_r1.data.splits import Importer
from saliency_r1.data.survey import refuse, survey
from saliency_r1.data.table import INDEX, SCHEMA, evenly_spaced, samples
from saliency_r1.params import Download
from saliency_r1.runtime.files import atomic_folder, held, remove, write_json
from saliency_r1.runtime.versions import write_versions

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def download(settings: Download, root: Path, out: Path, patience: Patience | None = None) -> pl.DataFrame:
    """Import what `settings` names into `out` and return the sample table (`table.SCHEMA`).

    `root` is the folder that relative paths of the settings start from; what is fetched is kept in
    `root/runs/download`. Splits and pairs that an earlier `out` already holds unchanged are linked, not imported again
    (those that a limit has left out are); `out` becomes what a first run would leave. Raises `DataError` for everything
    a person can mend; `out` then holds what it held before.
    """
    catalogue = Catalogue.load(root / settings.catalogue)
    parts = [DatasetSplit(dataset, split) for dataset, split in catalogue.select(settings.datasets)]
    bases = {key: models.resolve(getattr(settings, key), key, catalogue, root) for key in ("policy", "segmenter")}
    cache = root / "runs" / "download"
    mirror = root / settings.mirror if settings.mirror else None
    with _explained(out, cache):
        cache.mkdir(parents=True, exist_ok=True)
        with held(cache / "lock"):
            refuse(survey(settings, root))
            memory, kept = Memory(cache / "imports.json", out), Memory(cache / "kept.json", cache / "kept")
            with atomic_folder(out) as folder:
                store = ArchiveCache(cache, mirror, patience or Patience(), catalogue.contested)
                importer = Importer(store, settings.allow_missing, (memory, kept), folder)
                table, leaks = _import(settings, parts, importer)
                report: dict[str, Any] = {"imports": importer.reports, "leaks": leaks.to_dicts(), "models": {}}
                for key, source in bases.items():
                    report["models"][key] = models.provide(source, folder / "models" / key)
                write_json(folder / "report.json", report)
                write_versions(folder)
            memory.write()
            remove(kept.previous)
    return table


def _import(settings: Download, parts: Sequence[DatasetSplit], importer: Importer) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Import the splits, write the sample table, and return it with the list of leaks."""
    indexes, leaks = _without_leaks(_import_all(parts, importer))
    tables = [samples(index, *part.labels, settings.cosod_chunk) for part, index in indexes.items()]
    table = pl.concat([pl.DataFrame(schema=SCHEMA), *(evenly_spaced(part, settings.limit) for part in tables)])
    if (twice := table.filter(table["sample_id"].is_duplicated())["sample_id"]).len():
        raise DataError(f"the sample id {twice[0]} comes twice; rename one of the two data sets or groups")
    if settings.limit is not None:
        _keep_only(table, importer.folder)
    table.write_parquet(importer.folder / "table.parquet")
    return table, leaks


def _import_all(parts: Sequence[DatasetSplit], importer: Importer) -> dict[DatasetSplit, pl.DataFrame]:
    """The index of every split. Where some cannot be imported, the others are kept for the next run.

    Raises one `DataError` with what is wrong with each.
    """
    indexes, faults = {}, []
    kind: type[DataError] = Unreachable  # as long as every fault is one that may go away by itself
    for part in parts:
        try:
            indexes[part] = importer.run(part)
        except DataError as error:
            faults.append(str(error))
            kind = kind if isinstance(error, Unreachable) else DataError
            remove(importer.folder / "datasets" / str(part))  # what was stored before it failed
    if not faults:
        return indexes
    if indexes:
        importer.keep()
        faults.append(f"What was imported well is kept, and linked by the next run: {', '.join(map(str, indexes))}")
    raise kind("\n".join(faults))


def _keep_only(table: pl.DataFrame, folder: Path) -> None:
    """Delete the images and masks that no sample of the table has: a trial need not keep the whole of a data set."""
    kept = {name for column in ("images", "masks") for names in table[column] for name in names}
    for path in (folder / "datasets").rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in kept:
            path.unlink()


def _without_leaks(indexes: dict[DatasetSplit, pl.DataFrame]) -> tuple[dict[DatasetSplit, pl.DataFrame], pl.DataFrame]:
    """The indexes without the images that also stand in a split nearer to the test, and the list of those images."""
    labels = ("dataset", "split", "name")
    labelled = {
        part: index.with_columns(dataset=pl.lit(part.dataset.name), split=pl.lit(part.split_name)).select(
            *labels, *(column for column in INDEX if column not in labels)
        )
        for part, index in indexes.items()
    }
    leaks = find_leaks(pl.concat(labelled.values()))
    kept = {}
    for part, index in indexes.items():
        mine = leaks.filter(dataset=part.dataset.name, split=part.split_name)
        if mine.is_empty():
            kept[part] = index
            continue
        what = "kept, as keep_leaks says" if part.dataset.keep_leaks else "left out"
        twins = ", ".join(sorted({twin.rpartition("/")[0] for twin in mine["twin"]}))
        print(f"{part}: {len(mine)} images have a twin in {twins}: {what} (report.json lists them)", flush=True)
        kept[part] = (
            index if part.dataset.keep_leaks else index.join(mine, on="name", how="anti", maintain_order="left")
        )
    return kept, leaks


@contextlib.contextmanager
def _explained(out: Path, cache: Path) -> Iterator[None]:
    """Say what to do about a file system that does not take what is written, or does not give what is read.

    Written are the folder of results, what is aside of it, and the cache.
    """
    try:
        yield
    except OSError as error:
        named = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str)]
        written = [path for path in named if any(map(partial(_on_one_path, path), (out.parent, cache)))]
        where = (written or named or [out])[0]
        if error.errno in _FULL:
            raise DataError(f"{where}: the disk is full; make room and run again. {out} is as it was before") from error
        if named and not written and error.errno in (*_FORBIDDEN, errno.EIO):
            raise DataError(
                f"{where}: cannot be read ({error.strerror}); check its owner, permissions and disk"
            ) from error
        if error.errno in _FORBIDDEN:
            raise DataError(
                f"{where}: cannot be written ({error.strerror}); check its owner and permissions"
            ) from error
        raise


def _on_one_path(one: Path, other: Path) -> bool:
    """Whether one of two is the other, or lies below it."""
    one, other = one.absolute(), other.absolute()
    return one.is_relative_to(other) or other.is_relative_to(one)
