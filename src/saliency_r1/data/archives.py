"""Safe extraction of zip and tar archives.

An archive is a stranger's list of file names. Members that climb out of the folder, are absolute, are links or
devices, come twice, or expand beyond the declared bound are refused by name, and so is an archive that is damaged.
What is hidden is passed over, as it is in folders; of several archives that are unpacked into one folder, two may hold
the same file.
"""

import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, Self

from saliency_r1.data.errors import DataError
from saliency_r1.inputs.find import hidden
from saliency_r1.runtime.messages import printable

_CHUNK = 1 << 20
# Images hardly compress, so an archive of them expands little; uncompressed bitmaps reach about 20. A bomb has 1,000.
_DEFAULT_EXPANSION = 30
_DEFAULT_ALLOWANCE = 64 << 20
# What the libraries stumble over in bytes that are not what their headers say: names that are no text, places before
# the beginning of the file.
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
    *(struct.error, ValueError, OverflowError),
)
_UNSUPPORTED = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "rar", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x07\x08": "split zip"}
_UTF8_FLAG = 0x800  # of a zip's member: its name is UTF-8


class DamagedArchive(DataError):
    """An archive that is truncated, or none at all."""


Member = tuple[str, int, IO[bytes]]  # name, declared size in bytes, content


def extract(archive: Path, target: Path, bound: int | None = None) -> None:
    """Unpack an archive into a folder. `bound` is the largest total size in bytes of what comes out.

    Raises `DataError` with the names of archive and member; `target` may then hold a part of the content.
    """
    bound = bound or archive.stat().st_size * _DEFAULT_EXPANSION + _DEFAULT_ALLOWANCE
    seen: set[PurePosixPath] = set()
    written = 0
    try:
        with closing(_members(archive)) as members:
            for name, size, content in members:
                path = _checked(archive, name)
                if any(map(hidden, path.parts)):
                    continue
                if path in seen:
                    raise DataError(f"{archive}: member {name!r} comes twice; repack the archive")
                seen.add(path)
                if written + size > bound:
                    raise _too_large(archive, name, bound)
                for length in _write(content, target / path, f"{archive}: member {name!r}"):
                    written += length
                    if written > bound:  # the declared size was a lie
                        raise _too_large(archive, name, bound)
    except DataError:
        raise
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except NotImplementedError as error:
        # Windows packs more than 2 GB with Deflate64, which Python does not know.
        raise DataError(
            f"{archive}: packed by a method that is not read here ({error}; Deflate64?). It may well be sound: unpack "
            "it with the program that made it and put the folder under download.mirror, or pack it again"
        ) from error


def _write(content: IO[bytes], destination: Path, member: str) -> Iterator[int]:
    """Write a member, or compare it with the file that an archive before has put there; yields how many bytes came."""
    differs = DataError(f"{member} is not the file of this name that an archive before holds; repack one of them")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        there = destination.is_file()
        with open(destination, "rb" if there else "xb") as file:
            while chunk := content.read(_CHUNK):
                yield len(chunk)
                if not there:
                    file.write(chunk)
                elif file.read(len(chunk)) != chunk:
                    raise differs
            if there and file.read(1):
                raise differs
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(f"{member} is both a file and a folder, here or in an archive before; repack it") from error


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to begin what the disk cannot hold: `needed` bytes, and a little for what else goes on."""
    free = shutil.disk_usage(folder).free
    if needed + _DEFAULT_ALLOWANCE > free:
        raise DataError(
            f"{folder}: {purpose} needs {needed / 1e6:,.0f} MB and the disk has {free / 1e6:,.0f} MB free; "
            "make room or put the project on another disk"
        )


def expanded_size(archive: Path) -> int:
    """Roughly how many bytes an archive's content takes, without unpacking it: exact for zip, a guess for others.

    Raises `DamagedArchive` for what is no archive, and for a zip whose list of members, at its end, cannot be read.
    """
    if _kind(archive) == "zip":
        try:
            with zipfile.ZipFile(archive) as file:
                return sum(info.file_size for info in file.infolist())
        except _DAMAGE as error:
            raise _damaged(archive, error) from error
    return int(1.2 * archive.stat().st_size)


def _members(archive: Path) -> Generator[Member, None, None]:
    """The regular files of an archive; whatever else it holds (folders aside) is refused."""
    match _kind(archive):
        case "zip":
            return _zip_members(archive)
        case "tar":
            return _tar_members(archive)
        case other:
            raise DataError(
                f"{archive}: {other} archives are not read; unpack it by hand and zip the content again, or put the "
                "unpacked folder under download.mirror"
            )


def _kind(archive: Path) -> str:
    """`zip`, `tar`, or an archive that is not read, by how it begins. Raises `DamagedArchive` for anything else."""
    with open(archive, "rb") as file:
        start = file.read(512)
    for magic, kind in _UNSUPPORTED.items():
        if start.startswith(magic):
            return kind
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if start.startswith((b"\x1f\x8b", b"\xfd7zXZ", b"BZh")) or start[257:262] == b"ustar":
        return "tar"
    looks = "an HTML page" if start.lstrip()[:5].lower() in (b"<!doc", b"<html") else f"bytes {start[:40]!r}"
    raise DamagedArchive(f"{archive}: expected a zip or tar archive, found {looks}; delete it and fetch it again")


def _zip_members(archive: Path) -> Generator[Member, None, None]:
    with zipfile.ZipFile(archive) as file:
        # Programs of old .NET write `\` between the parts of a path; it is checked as what it means.
        named = [(name.replace("\\", "/"), sure, info) for info in file.infolist() for name, sure in [_name(info)]]
        if guessed := [name for name, sure, _ in named if not sure]:
            print(
                f"{archive.name}: {len(guessed)} names are not in UTF-8 and are read in code page 437, such as "
                f"{printable(guessed[0])}; if that is not its name, pack it again with names in UTF-8",
                flush=True,
            )
        for name, _, info in named:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"{archive}: member {name!r} is a link or a device; repack it with plain files")
            if info.flag_bits & 1:
                raise DataError(f"{archive}: member {name!r} is encrypted; repack it without a password")
            if name.endswith("/"):
                _checked(archive, name)
                continue
            with file.open(info) as content:
                yield name, info.file_size, content


def _name(info: zipfile.ZipInfo) -> tuple[str, bool]:
    """A member's name, and whether that is sure: macOS and others write UTF-8 and do not say so.

    Python reads what is not said to be UTF-8 in code page 437.
    """
    if info.flag_bits & _UTF8_FLAG or info.filename.isascii():
        return info.filename, True
    try:
        return info.filename.encode("cp437").decode("utf-8"), True
    except UnicodeEncodeError:  # a newer Python has found the name in an extra field
        return info.filename, True
    except UnicodeDecodeError:
        return info.filename, False


class _Header(tarfile.TarInfo):
    """The head of a member, read more strictly than tarfile does: that takes whatever is no head, or that nothing is
    left, for the end of the archive, and a truncated one for a whole one of fewer members.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf == bytes(tarfile.BLOCKSIZE):  # as an archive ends
                raise
            raise tarfile.ReadError(f"{error} where the next member or the end is expected") from None


def _tar_members(archive: Path) -> Generator[Member, None, None]:
    # A stream: members come in order, memory does not grow.
    with tarfile.open(archive, "r|*", tarinfo=_Header) as file:
        for info in file:
            if info.isdir():
                _checked(archive, info.name)
                continue
            content = file.extractfile(info) if info.isreg() else None
            if content is None:
                raise DataError(f"{archive}: member {info.name!r} is a link or a device; repack it with plain files")
            yield info.name, info.size, content
            file.members = []  # type: ignore[attr-defined]  # else the stream remembers every header


def _checked(archive: Path, name: str) -> PurePosixPath:
    """A member's path inside the target folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or "\\" in name or "\0" in name or name[1:2] == ":":
        raise DataError(f"{archive}: member {name!r} has an absolute or foreign path; repack it with relative ones")
    if ".." in path.parts:
        raise DataError(f"{archive}: member {name!r} climbs out of its folder; do not use this archive")
    return path


def _damaged(archive: Path, error: Exception) -> DamagedArchive:
    return DamagedArchive(
        f"{archive}: truncated or damaged ({type(error).__name__}: {error}); delete it and fetch it anew"
    )


def _too_large(archive: Path, name: str, bound: int) -> DataError:
    return DataError(
        f"{archive}: with member {name!r} the content exceeds {bound:,} bytes; if that is right, declare its size as "
        "expands_to in the catalogue"
    )
