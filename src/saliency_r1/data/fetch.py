"""Getting one file: from local copies first, then from the listed locations in order.

A location is `https://...`, `gdrive:<file id>`, `hf:<owner>/<dataset>[@<revision>]/<path>` or `doi:<doi>/<file>`. What
arrives is believed only when its size and SHA-256 are right; where the catalogue cannot know them, they are recorded at
the first download and enforced from then on.
"""

import contextlib
import errno
import ftplib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from socket import gaierror
from typing import Self
from urllib.parse import quote

import httpx

from saliency_r1.data.archives import check_space, expanded_size
from saliency_r1.data.catalogue import Archive
from saliency_r1.data.errors import BUSY, DataError, Unreachable, may_pass
from saliency_r1.data.models import hub_errors
from saliency_r1.runtime.files import link, sha256, write_json
from saliency_r1.runtime.proxies import certificates, proxy_for
from saliency_r1.runtime.replies import retry_after
from saliency_r1.runtime.stage import progress

_CHUNK = 1 << 20
_UNREACHED = (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH)  # of the network, all others are of the disk


class FetchError(DataError):
    """A location that did not give the file."""


class _Interrupted(FetchError):
    """A fetch that may go better the next time."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """How long to put up with a bad connection. Times in seconds; the pause doubles from attempt to attempt."""

    attempts: int = 5
    timeout: float = 30.0
    pause: float = 1.0
    longest_pause: float = 60.0


@dataclass
class ArchiveCache:
    """Where archives are looked for and kept.

    `mirror` is a folder of local copies, `cache` the folder of what was fetched and of the sizes and hashes recorded.
    `dataset` is whose archives they are (see `of`), `contested` the paths that archives of several data sets have. Use
    it under a lock: two processes that append to one partial file ruin it.
    """

    cache: Path
    mirror: Path | None = None
    patience: Patience = field(default_factory=Patience)
    contested: frozenset[str] = frozenset()
    dataset: str = ""

    def of(self, dataset: str) -> Self:
        """The same places for the archives of a data set: many are called `data.zip`."""
        return replace(self, dataset=dataset)

    def find(self, archive: Archive, base: Path) -> Path | None:
        """The file that `obtain` would take without fetching, not verified."""
        places = (*self._copies(archive, base), self._place(archive))
        return next(filter(Path.is_file, places), None)

    def obtain(self, archive: Archive, base: Path, announce: Callable[[], None] = lambda: None) -> Path:
        """The verified local file of an archive; `announce` is called before anything crosses the network.

        Raises `DataError` when a local copy is not what the catalogue says, or when no location gives the file.
        """
        local = self._copies(archive, base)
        for path in local:
            if path.is_file():
                self.verify(archive, path)
                return path
        cached = self._place(archive)
        if cached.is_file():
            try:
                self.verify(archive, cached)
                return cached
            except DataError as error:
                if not self._fetched_here(cached):
                    raise DataError(f"{error} (it was put there by hand, so it is left alone)") from None
                cached.unlink()
        if archive.locations:
            announce()
        failures, later = [], False
        for location in archive.locations:
            try:
                self._fetch(location, cached, archive.size)
                self._note(cached)
                self.verify(archive, cached)
                expanded_size(cached)  # where no hash is known, this tells a page or half a zip from the file
                return cached
            except DataError as error:
                if self._fetched_here(cached):
                    cached.unlink()
                failures.append(f"  {location}: {error}")
                later = later or isinstance(error, Unreachable)
        tried = "\n".join(failures) or "  the catalogue lists no location"
        raise (Unreachable if later else DataError)(
            f"{archive.path}: not found as {', '.join(map(str, local))} and not to be had from\n{tried}\n"
            f"Fetch it by hand and put it into the folder named by download.mirror as {Path(archive.path).name}."
        )

    def verify(self, archive: Archive, path: Path) -> None:
        """Compare a file with what the catalogue, or else an earlier import, says about it."""
        expected = self._expected(archive)
        stated = archive.sha256 or archive.size
        cure = _CURE if stated else f"put the first one back, or take its entry out of {self._record}"
        size = path.stat().st_size
        if expected["size"] not in (None, size):
            raise DataError(
                f"{path}: {size:,} bytes, expected {expected['size']:,}; truncated or another version: {cure}"
            )
        if expected["sha256"] is not None and (found := sha256(path)) != expected["sha256"]:
            raise DataError(
                f"{path}: sha256 {found}, expected {expected['sha256']}; damaged or another version: {cure}"
            )

    def digest(self, archive: Archive, path: Path) -> str:
        """The SHA-256 of a verified file."""
        return archive.sha256 or str(self._recorded(archive).get("sha256") or sha256(path))

    def remember(self, archive: Archive, path: Path, digest: str) -> None:
        """Record size and hash of a file that turned out to be good, so that it cannot change unnoticed."""
        known = self._known()
        if archive.sha256 is None and not self._recorded(archive):
            known[self._keys(archive)[0]] = {"size": path.stat().st_size, "sha256": digest}
            write_json(self._record, known)
            print(f"{archive.path}: the catalogue has no hash; sha256 {digest} is recorded and enforced from now on")

    def discard(self, path: Path) -> None:
        """Drop a fetched file that turned out to be damaged, so that the next run fetches it anew."""
        if self._fetched_here(path):
            path.unlink()

    def _copies(self, archive: Archive, base: Path) -> list[Path]:
        """Where somebody may have put an archive."""
        mirrored = [] if self.mirror is None else [self.mirror / archive.path, self.mirror / Path(archive.path).name]
        return list(dict.fromkeys([base / archive.path, *mirrored]))

    def _keys(self, archive: Archive) -> list[str]:
        """What an archive is called in the cache and its record: by its data set, and as once, by its path alone."""
        if not self.dataset:
            return [archive.path]
        once = [] if archive.path in self.contested else [archive.path]
        return [f"archives/{self.dataset}/{archive.path}", *once]

    def _place(self, archive: Archive) -> Path:
        """Where a fetched archive is kept; `DataError` where that is not inside of the cache."""
        places = [self.cache / key for key in self._keys(archive)]
        place = next(filter(Path.is_file, places), places[0])
        if not place.resolve().is_relative_to(self.cache.resolve()):
            raise DataError(f"{archive.path}: lies outside of {self.cache}; take the link out that leads there")
        return place

    def _note(self, path: Path) -> None:
        """Remember that a file of the cache was fetched by us, and may be replaced by us."""
        write_json(self._notes, self._noted() | {path.relative_to(self.cache).as_posix(): _stamp(path)})

    def _fetched_here(self, path: Path) -> bool:
        """Whether a file was fetched by us and is not one that somebody has put in its place."""
        if not path.is_relative_to(self.cache) or not path.is_file():
            return False
        return self._noted().get(path.relative_to(self.cache).as_posix()) == _stamp(path)

    @property
    def _notes(self) -> Path:
        return self.cache / "fetched.json"

    def _noted(self) -> dict[str, list[int]]:
        return json.loads(self._notes.read_text(encoding="utf-8")) if self._notes.is_file() else {}

    @property
    def _record(self) -> Path:
        return self.cache / "known.json"

    def _known(self) -> dict[str, dict[str, int | str]]:
        return json.loads(self._record.read_text(encoding="utf-8")) if self._record.is_file() else {}

    def _expected(self, archive: Archive) -> dict[str, int | str | None]:
        recorded = self._recorded(archive)
        return {key: getattr(archive, key) or recorded.get(key) for key in ("size", "sha256")}

    def _recorded(self, archive: Archive) -> dict[str, int | str]:
        """What an earlier import has noted about an archive; nothing where the catalogue names another version."""
        known = self._known()
        recorded = next((known[key] for key in self._keys(archive) if key in known), {})
        stated = ((key, getattr(archive, key)) for key in ("size", "sha256"))
        return {} if any(value not in (None, recorded.get(key)) for key, value in stated) else recorded

    def _fetch(self, location: str, target: Path, size: int | None) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        scheme, _, rest = location.partition(":")
        match scheme:
            case "http" | "https":
                _Download(location, target, size, self.patience).run()
            case "gdrive":
                _from_drive(rest, target, self.patience)
            case "hf":
                _from_hub(rest, target)
            case "doi" | "ftp":
                _from_pooch(location, target)
            case _:
                raise FetchError("expected https:, gdrive:, hf:, doi: or ftp:")


def _stamp(path: Path) -> list[int]:
    """Inode, size and time of change: a file that is replaced has others."""
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns]


_CURE = "delete the file to have it fetched anew, or correct size and sha256 in the catalogue"


class _Download:
    """One file over HTTP: with retries, resumed where the server can, refused when it is not what was announced."""

    def __init__(self, url: str, target: Path, size: int | None, patience: Patience) -> None:
        self.url, self.target, self.size, self.patience = url, target, size, patience
        self.part = target.with_name(target.name + ".part")
        self.tag = target.with_name(target.name + ".tag")  # which version of the file the part belongs to

    def run(self) -> None:
        """Fetch into `target`. Raises `FetchError`; the part of an interrupted fetch is kept for the next run."""
        for attempt in range(1, self.patience.attempts + 1):
            try:
                self._attempt()
                self.part.replace(self.target)
                self.tag.unlink(missing_ok=True)
                return
            except (_Interrupted, httpx.HTTPError) as error:
                if attempt == self.patience.attempts:
                    raise Unreachable(f"gave up after {attempt} attempts: {_reason(error)}") from error
                pause = self.patience.pause * 2 ** (attempt - 1)
                wait = min(max(pause, getattr(error, "wait", 0.0)), self.patience.longest_pause)
                print(f"{self.target.name}: {_reason(error)}; again in {wait:.0f} s", flush=True)
                time.sleep(wait)

    def _attempt(self) -> None:
        had = self.part.stat().st_size if self.part.exists() and self.tag.exists() else 0
        headers = {"Accept-Encoding": "identity"}
        if had:
            headers |= {"Range": f"bytes={had}-", "If-Range": self.tag.read_text(encoding="utf-8")}
        with self._client() as client, client.stream("GET", self.url, headers=headers) as response:
            self._accept(response)
            resumed = response.status_code == 206 and _range_start(response) == had and self._is_of_part(response)
            if response.status_code == 206 and not resumed:
                self._forget()
                raise _Interrupted("the server sent another part than was asked for")
            start = had if resumed else 0
            length = response.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else None
            if self.size is not None and total not in (None, self.size):
                raise FetchError(f"the server announces {total:,} bytes, the catalogue says {self.size:,}")
            expected = self.size or total
            check_space(self.part.parent, (expected or 0) - start, f"fetching {self.target.name}")
            self._keep_tag(response)
            self._write(response, start, expected)

    def _client(self) -> httpx.Client:
        try:
            return httpx.Client(
                timeout=self.patience.timeout,
                proxy=proxy_for(httpx.URL(self.url)),
                verify=certificates(),
                trust_env=False,
                follow_redirects=True,
            )
        except (ValueError, httpx.InvalidURL) as error:
            raise FetchError(str(error)) from None

    def _accept(self, response: httpx.Response) -> None:
        """Refuse what is not the file: errors, and pages that say something with status 200."""
        status = response.status_code
        if status == 416:
            self._forget()
            raise _Interrupted("the server has no such part of the file")
        if status in BUSY:
            raise _Interrupted(f"HTTP status {status}", retry_after(response) or 0.0)
        if status not in (200, 206):
            raise FetchError(f"HTTP status {status} {response.reason_phrase}")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise FetchError("the server sent an HTML page, not a file (a login, consent or quota page?)")

    def _write(self, response: httpx.Response, start: int, expected: int | None) -> None:
        chunks: Iterator[bytes] = response.iter_raw(_CHUNK)
        megabytes = None if expected is None else -(-(expected - start) // _CHUNK)
        with open(self.part, "r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in progress(chunks, megabytes, f"{self.target.name} (MB)"):
                if file.tell() == 0 and chunk.lstrip()[:5].lower() in (b"<!doc", b"<html"):
                    raise FetchError("the server sent an HTML page, not a file (a login, consent or quota page?)")
                file.write(chunk)
            arrived = file.tell()
        if expected is not None and arrived < expected:
            raise _Interrupted(f"{arrived:,} of {expected:,} bytes arrived")
        if expected is not None and arrived > expected:
            self._forget()
            raise FetchError(f"{arrived:,} bytes arrived, expected {expected:,}")

    def _is_of_part(self, response: httpx.Response) -> bool:
        """Whether what comes belongs to the version that the part is of: some servers do not heed `If-Range`."""
        return not self.tag.exists() or _version(response) in ("", self.tag.read_text(encoding="utf-8"))

    def _keep_tag(self, response: httpx.Response) -> None:
        """Remember the version of the file; without one (or with a weak one) a part cannot be continued safely."""
        tag = _version(response)
        if tag and not tag.startswith("W/"):
            self.tag.write_text(tag, encoding="utf-8")
        else:
            self.tag.unlink(missing_ok=True)

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)


def _version(response: httpx.Response) -> str:
    """How the server calls this version of the file, empty where it does not."""
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")


def _range_start(response: httpx.Response) -> int:
    """The offset in `Content-Range: bytes 100-199/200`, or -1."""
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isdigit() else -1


def _reason(error: Exception) -> str:
    """An error of the network in a few words."""
    if isinstance(error, httpx.TimeoutException) or "timed out" in str(error):
        return "no answer in time"
    return str(error) or type(error).__name__


@contextlib.contextmanager
def _told(who: str, *kinds: type[Exception], refusals: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Say in an error of this module what the client of a location raises, but for what is the disk's.

    It is `Unreachable` where the network fails, or a server that is busy or over its quota: that may go away by itself.
    """
    try:
        yield
    except kinds as error:
        number = error.errno if isinstance(error, OSError) else None
        if number not in (None, *_UNREACHED) and not isinstance(error, (ConnectionError, TimeoutError, gaierror)):
            raise
        quota = "Too many users" in str(error)  # Google's words, which gdown hands on as a refusal
        kind = Unreachable if quota or may_pass(error, refusals) else FetchError
        raise kind(who + " ".join(_reason(error).split())) from error


def _from_drive(file_id: str, target: Path, patience: Patience) -> None:
    """Google Drive, whose large files hide behind a page of warnings; gdown knows the way."""
    try:
        import gdown
        from gdown.exceptions import DownloadError, FileURLRetrievalError
    except ImportError:
        raise FetchError(
            "Google Drive needs the package gdown (`pip install gdown`); or fetch "
            f"https://drive.google.com/file/d/{file_id} in a browser"
        ) from None
    # A name of its own: gdown goes on from what it finds, be it another location's.
    whole = target.with_name(f"{target.name}.gdrive-{quote(file_id, safe='')}")
    with _told("Google Drive: ", DownloadError, OSError, refusals=(FileURLRetrievalError,)):
        gdown.download(
            id=file_id,
            output=str(whole),
            resume=True,
            quiet=not sys.stderr.isatty(),
            timeout=patience.timeout,
            retries=patience.attempts - 1,
        )
    whole.replace(target)


def _from_hub(address: str, target: Path) -> None:
    """A file of a data set repository on the Hugging Face hub: `owner/name[@revision]/path/in/repository`."""
    from huggingface_hub import hf_hub_download

    owner, _, rest = address.partition("/")
    name, _, path = rest.partition("/")
    name, _, revision = name.partition("@")
    if not path:
        raise FetchError("expected hf:<owner>/<dataset>[@<revision>]/<path>")
    with _told("Hugging Face hub: ", *hub_errors()):
        found = hf_hub_download(f"{owner}/{name}", path, repo_type="dataset", revision=revision or None)
    target.unlink(missing_ok=True)
    link(Path(found), target)


def _from_pooch(location: str, target: Path) -> None:
    """Archives of record (a DOI) and FTP servers, by way of pooch."""
    import pooch

    with _told("", ValueError, *ftplib.all_errors, refusals=(ftplib.error_perm,)):
        pooch.retrieve(location, known_hash=None, fname=target.name, path=target.parent)
