"""From the environment to an HTTP client: the key, proxies, and excerpts of replies that never show the key."""

from __future__ import annotations

import os

import httpx

from saliency_r1.chat.errors import ChatError
from saliency_r1.runtime.proxies import ProxyError, proxy_for

KEY = "OPENAI_API_KEY"


def connect(url: str, timeout: float, section: str) -> httpx.Client:
    """A client for `url`. Raises `ChatError` for an address, a key or a proxy that cannot be used."""
    address = _address(url, section)
    key = read_key()
    try:
        return httpx.Client(
            base_url=url.rstrip("/") + "/",
            timeout=timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            proxy=proxy_for(address),
            trust_env=False,  # its proxies are read here: httpx stumbles over [::1] in NO_PROXY
        )
    except ProxyError as error:
        raise ChatError(str(error)) from None
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise ChatError(f"{section}.url = {url!r} cannot be reached this way: {error}") from None


def read_key() -> str | None:
    """The key, without the white space that files and shells leave around it; `ChatError` for what is no key."""
    key = os.environ.get(KEY, "").strip()
    strange = [(place, char) for place, char in enumerate(key, 1) if not "!" <= char <= "~"]
    if strange:
        place, char = strange[0]
        raise ChatError(
            f"{KEY} holds a character that no key has (U+{ord(char):04X} at place {place} of {len(key)}); "
            "was it copied with quotation marks or a line break? The key itself is not shown"
        )
    return key or None


def excerpt(text: str) -> str:
    """The beginning of a reply on one line, without the key, should a server echo it."""
    line = " ".join(text.split())
    key = os.environ.get(KEY, "").strip()
    return (line.replace(key, "***") if key else line)[:200]


def _address(url: str, section: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ChatError(f"{section}.url = {url!r} is no address: {error}") from None
    if address.scheme not in ("http", "https") or not address.host or url.split() != [url]:
        raise ChatError(f"{section}.url = {url!r}, expected http:// or https:// and a host")
    return address
