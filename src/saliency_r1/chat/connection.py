"""From the environment to an HTTP client: the key, proxies, and excerpts of replies that never show the key."""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from importlib.util import find_spec

import httpx

from saliency_r1.chat.errors import ChatError

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
            proxy=_proxy(address),
            trust_env=False,  # its proxies are read here: httpx stumbles over [::1] in NO_PROXY
        )
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


def _proxy(address: httpx.URL) -> str | None:
    """The proxy that the environment names for an address; none for this machine's own."""
    host = address.host.strip("[]")
    if _is_loopback(host):
        return None
    proxies = urllib.request.getproxies_environment()
    # NO_PROXY writes an IPv6 address with or without brackets.
    exempt = {"no": proxies.get("no", "").replace("[", "").replace("]", "")}
    if urllib.request.proxy_bypass_environment(host, exempt):  # type: ignore[attr-defined]
        return None
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if proxy and proxy.startswith("socks") and find_spec("socksio") is None:
        raise ChatError(
            f"the environment names a SOCKS proxy for {address.host} (ALL_PROXY or {address.scheme.upper()}_PROXY), "
            "which needs `pip install socksio`; or name the host in NO_PROXY"
        )
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
