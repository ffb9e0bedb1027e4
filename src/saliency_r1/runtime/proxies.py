"""The proxy for an address, as the environment says: httpx itself stumbles over [::1] in NO_PROXY."""

from __future__ import annotations

import ipaddress
import urllib.request
from importlib.util import find_spec

import httpx


class ProxyError(ValueError):
    """A proxy that the environment names and that cannot be used."""


def proxy_for(address: httpx.URL) -> str | None:
    """The proxy that the environment names for an address; none for this machine's own. Raises `ProxyError`."""
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
        raise ProxyError(
            f"the environment names a SOCKS proxy for {address.host} (ALL_PROXY or {address.scheme.upper()}_PROXY), "
            "which needs `pip install socksio`; or name the host in NO_PROXY"
        )
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
