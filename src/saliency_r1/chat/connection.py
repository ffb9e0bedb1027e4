"""From the environment to an HTTP client: the key, proxies, and excerpts of replies that never show the key."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import httpx

from saliency_r1.chat.errors import ChatError
from saliency_r1.runtime.proxies import ProxyError, certificates, proxy_for

KEY = "OPENAI_API_KEY"
LONGEST = 10  # timeouts until an answer that goes on coming must be whole
LARGEST = 1 << 26  # bytes of an answer, thousands of times what a model says


class _Limited(httpx.SyncByteStream):
    """The content of a reply, for at most so many seconds and `LARGEST` bytes.

    httpx's own timeout begins anew with every byte that comes, and it keeps all of them.
    """

    def __init__(self, content: httpx.SyncByteStream, seconds: float) -> None:
        self.content, self.seconds = content, seconds

    def __iter__(self) -> Iterator[bytes]:
        end = time.monotonic() + self.seconds
        size = 0
        for part in self.content:
            size += len(part)
            if size > LARGEST:
                raise httpx.ReadError(f"the answer was not whole after {LARGEST >> 20} MiB")
            if time.monotonic() > end:
                raise httpx.ReadTimeout(f"the answer was not whole after {self.seconds:.0f} s")
            yield part

    def close(self) -> None:
        self.content.close()


def connect(url: str, timeout: float, section: str) -> httpx.Client:
    """A client for `url`. Raises `ChatError` for an address, a key or a proxy that cannot be used."""
    address = _address(url, section)
    key = read_key()

    def limit(response: httpx.Response) -> None:
        if isinstance(response.stream, httpx.SyncByteStream):
            response.stream = _Limited(response.stream, LONGEST * timeout)

    try:
        return httpx.Client(
            base_url=url.partition("?")[0].rstrip("/") + "/",
            params=address.params,  # such as Azure's api-version, which belongs behind the whole path
            timeout=timeout,
            event_hooks={"response": [limit]},
            headers={"Authorization": f"Bearer {key}"} if key else {},
            proxy=proxy_for(address),
            verify=certificates() if address.scheme == "https" else True,  # a broken file is of no matter to http
            trust_env=False,
        )
    except ProxyError as error:
        raise ChatError(str(error)) from None
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise ChatError(f"{section}.url = {shown(url)!r} cannot be reached this way: {error}") from None


def shown(url: str) -> str:
    """An address as it may be shown: without the user, the password and the query that it may hold."""
    scheme, slashes, rest = url.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return scheme + slashes + host.rpartition("@")[2] + slash + path


def where(url: str) -> str:
    """An address as messages name it, with the proxy that stands before it, if any."""
    proxy = proxy_for(httpx.URL(url))
    return shown(url) + (f" (through the proxy {shown(proxy)})" if proxy else "")


def read_key() -> str | None:
    """The key, without the white space that files and shells leave around it; `ChatError` for what is no key."""
    key = os.environ.get(KEY, "").strip()
    strange = [(place, char) for place, char in enumerate(key, 1) if not "!" <= char <= "~" or char in "\"'"]
    if strange:
        place, char = strange[0]
        raise ChatError(
            f"{KEY} holds a character that no key has (U+{ord(char):04X} at place {place} of {len(key)}); "
            "was it copied with quotation marks, a line break or the word Bearer? The key itself is not shown"
        )
    return key or None


def excerpt(text: str) -> str:
    """The beginning of a reply on one line, without the key, should a server echo it."""
    line = " ".join(text.split())
    key = os.environ.get(KEY, "").strip()
    return (line.replace(key, "***") if key else line)[:200]


def status(response: httpx.Response) -> str:
    """What a server answered instead of an answer, with the beginning of its reasons."""
    reasons = excerpt(response.text)
    return f"status {response.status_code}" + (f": {reasons}" if reasons else "")


def key_trouble(response: httpx.Response) -> str | None:
    """What is wrong with the key, as the reply to a question for the list of models tells it; None where nothing is.

    A status of 403 proves nothing: a key may be allowed to ask questions and not to see the list.
    """
    if not read_key() and response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return f"wants a key; set {KEY}: {status(response)}"
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return f"does not take the key in {KEY}: {status(response)}"
    return None


def _address(url: str, section: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ChatError(f"{section}.url = {shown(url)!r} is no address: {error}") from None
    if address.scheme not in ("http", "https") or not address.host or url.split() != [url]:
        raise ChatError(f"{section}.url = {shown(url)!r}, expected http:// or https:// and a host")
    return address
