"""Small helpers for files that must be whole or absent: folders, JSON, hashes, links.

A stage writes so:

    with atomic_folder(Path("artifacts/download")) as folder:
        write_json(folder / "report.json", {...})
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

_NUMBERS = itertools.count()  # of the files that this process writes aside; no two of them share a name


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty sibling folder that takes the place of `path` when the block ends well.

    When the block fails, or the process dies, `path` keeps what it held: nobody ever sees a half-written folder. A
    second process that writes the same folder waits. Where `path` is a link, what it leads to is replaced. Raises
    `OSError` as the file system gives it.
    """
    path = Path(os.path.realpath(path) if os.path.islink(path) else path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new, old, lock = (path.with_name(f".{path.name}.{end}") for end in ("new", "old", "lock"))
    with held(lock):
        _recover(path, old)
        for leftover in (new, old):
            remove(leftover)
        new.mkdir()
        try:
            yield new
            if path.exists():
                path.rename(old)
            new.rename(path)
        except BaseException:
            _recover(path, old)
            shutil.rmtree(new, ignore_errors=True)
            raise
        remove(old)


def _recover(path: Path, old: Path) -> None:
    """Undo a replacement that stopped between its two renames."""
    if old.exists() and not path.exists():
        old.rename(path)


@contextlib.contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; wait for another process that holds it, and say so.

    The lock belongs to the process, not to the file: it is gone when its holder dies, however it dies.
    """
    guard = FileLock(lock)
    try:
        guard.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process that holds {lock}", file=sys.stderr, flush=True)
        guard.acquire()
    try:
        yield
    finally:
        guard.release()


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented UTF-8 JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all; half a pair (of a file's name that is no UTF-8) as its escape."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a file beside `path` that takes its place when the block ends well, and goes when it does not.

    Where `path` is a link, the link is replaced and not what it leads to. The suffix stays: writers of pictures ask it.
    A device or a pipe (`/dev/stdout`) is never replaced: the content is written into it.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            aside = Path(scratch, f"content{path.suffix}")
            yield aside
            with path.open("wb") as stream:
                stream.write(aside.read_bytes())
        return
    aside = path.with_name(f".{os.getpid()}.{next(_NUMBERS)}.partial{path.suffix}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hexadecimal digits; memory does not grow with the file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Give a file a second name, or copy it where the file system cannot; symbolic links are followed.

    The two may share their bytes, so neither may be changed in place (nothing in this project does).
    """
    try:
        os.link(os.path.realpath(source) if os.path.islink(source) else source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        shutil.copyfile(source, target)  # another file system, or one without hard links


def link_tree(source: Path, target: Path) -> None:
    """`link` for every file below a folder, hidden ones excepted."""
    shutil.copytree(source, target, copy_function=link, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)


def remove(path: Path) -> None:
    """Delete a folder with all it holds, if it exists; of a link to one the link alone."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
