"""Finding pictures in folders, and opening nothing but files.

Hidden files and folders, and those that systems leave behind, are passed over. Links are followed: a file behind a link
counts as the place where the link lies, and a link into a folder above itself adds nothing. Names are the same if they
are the same letters, however a file system has written them (NFC, NFD) and in whatever case.
"""

from __future__ import annotations

import contextlib
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from saliency_r1.inputs.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif"})
# Pictures as well, which nothing here opens: they are found, so that they are refused by name, and not left out.
UNREAD = frozenset({".heic", ".heif", ".jp2", ".jxl", ".pbm", ".pgm", ".pnm", ".ppm", ".tga", ".dng", ".svg", ".npy"})

# What macOS, Synology and Windows leave in folders beside what begins with a point.
_LITTER = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def nfc(name: str) -> str:
    """A name as composed letters, as most systems write it; macOS writes `é` as two."""
    return unicodedata.normalize("NFC", name)


def key(name: str) -> str:
    """What two names share if they mean the same file: composed letters without case."""
    return nfc(nfc(name).casefold())


def shown(name: str | Path) -> str:
    """A name that can be printed and stored; bytes that are not UTF-8 are written `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name in _LITTER


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture; says nothing about what is in the file."""
    return path.suffix.lower() in SUFFIXES and not hidden(path.name)


def pictures_among(paths: Iterable[Path]) -> list[Path]:
    """The pictures among some files, sorted; those in a format that is `UNREAD` where none that is read has the name.

    Phones leave `a.heic` beside `a.jpg`; one that stands alone is meant, and its reader says that it cannot be read.
    """
    found, others = [], []
    for path in paths:
        if is_picture(path):
            found.append(path)
        elif path.suffix.lower() in UNREAD and not hidden(path.name):
            others.append(path)
    names = {path.with_suffix("") for path in found} if others else set()
    return sorted(found + [path for path in others if path.with_suffix("") not in names])


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that lie in a folder itself, sorted by name. Raises `OSError` as the system gives it."""
    return pictures_among(folder.iterdir())


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, linked ones too, sorted by name."""
    return sorted(path for path in folder.iterdir() if not hidden(path.name) and path.is_dir())


def pictures_below(folder: Path) -> list[Path]:
    """The pictures in a folder and all folders below, sorted by path."""
    return pictures_among(path for path, is_folder in walk(folder) if not is_folder)


def walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Everything in a folder and below, hidden names excepted, and whether it is a folder; in no particular order.

    A link into a folder above itself is passed over: what it leads to is read already. Raises `OSError`.
    """
    yield from _walk(folder, {_identity(folder)})


def _walk(folder: Path, above: set[tuple[int, int]]) -> Iterator[tuple[Path, bool]]:
    with os.scandir(folder) as entries:
        visible = [(folder / entry.name, _is_folder(entry)) for entry in entries if not hidden(entry.name)]
    for path, is_folder in visible:
        if not is_folder:
            yield path, False
        elif (here := _identity(path)) not in above:
            yield path, True
            yield from _walk(path, above | {here})


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link in a circle does not."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say in an `InputError` that the system does not give what is read here, by the name it says or else by `path`."""
    try:
        yield
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else path
        reason = error.strerror or error
        raise InputError(f"{shown(name)} cannot be read ({reason}); check its owner, permissions and disk") from error


def _why_missing(path: Path) -> str:
    if path.is_symlink():
        return "a link that leads nowhere"
    if path.parts[:1] in (("http:",), ("https:",)):
        return "an address, and nothing is fetched here: save the file and give its path"
    return "missing"


def require_file(path: Path) -> None:
    """Raise `InputError` unless `path` is a file, or leads to one; nothing is opened, so that a pipe hangs nobody.

    A name that is not UTF-8 is refused as well: no table, page or terminal could say it.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{shown(path)} is {_why_missing(path)}") from None
    except (OSError, ValueError) as error:  # a circle of links, a folder that may not be entered, a NUL in the name
        raise InputError(f"{shown(path)} cannot be reached ({error})") from None
    if not stat.S_ISREG(mode):
        raise InputError(f"{shown(path)} is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, expected a file")
    if shown(path) != str(path):
        raise InputError(f"{shown(path)}: the name is not UTF-8; rename the file, for example with convmv")
