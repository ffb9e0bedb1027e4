"""What the environment says of the way to an address: its proxy, and the certificates that are believed.

httpx itself stumbles over [::1] in NO_PROXY, so it is told these and reads nothing.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.request
from importlib.util import find_spec

import httpx


class ProxyError(ValueError):
    """A proxy, or a file of certificates, that the environment names and that cannot be used."""


def proxy_for(address: httpx.URL) -> str | None:
    """The proxy that the environment names for an address; none for this machine's own. Raises `ProxyError`."""
    host = address.host.strip("[]")
    if _is_loopback(host):
        return None
    proxies = urllib.request.getproxies_environment()
    # NO_PROXY writes an IPv6 address with or without brackets.
    exempt = {"no": proxies.get("no", "").replace("[", "").replace("]", "")}
    port = address.port or {"http": 80, "https": 443}.get(address.scheme)
    named = (host, f"{host}:{port}")  # an entry may be of one port
    if any(urllib.request.proxy_bypass_environment(one, exempt) for one in named):  # type: ignore[attr-defined]
        return None
    if _within(host, exempt["no"]):
        return None
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if proxy and proxy.startswith("socks") and find_spec("socksio") is None:
        raise ProxyError(
            f"the environment names a SOCKS proxy for {address.host} (ALL_PROXY or {address.scheme.upper()}_PROXY), "
            "which needs `pip install socksio`; or name the host in NO_PROXY"
        )
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def certificates() -> ssl.SSLContext:
    """The certificates that servers are asked for: SSL_CERT_FILE or SSL_CERT_DIR, else the usual ones.

    Raises `ProxyError` for a file that cannot be read.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        name = os.environ.get("SSL_CERT_FILE", "")
        raise ProxyError(f"SSL_CERT_FILE = {name!r} holds no certificates: {error.strerror or error}") from None


def _is_loopback(host: str) -> bool:
    try:
        number = ipaddress.ip_address(host)
        return number.is_loopback or number.is_unspecified  # servers say that they listen on 0.0.0.0
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _within(host: str, exempt: str) -> bool:
    """Whether a host is an address of one of the networks of NO_PROXY, such as 10.0.0.0/8."""
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in exempt.split(","):
        try:
            if "/" in entry and number in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
