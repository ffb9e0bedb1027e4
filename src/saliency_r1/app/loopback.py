"""Who may ask the page: a browser on this machine, for the page itself, and no other website in that browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

_HOSTS = ("127.0.0.1", "localhost")  # with whatever port: a tunnel may end at another one
_REFUSED = b"saliency-r1 app answers on this machine alone, and no other website\n"

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Loopback:
    """An ASGI application around another: 403 for a foreign name of the host, and for a request of a foreign website.

    A website can let its name lead to 127.0.0.1, and any can let a browser send there; `Host` and `Origin` tell.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Hand a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket") or is_own(scope["headers"]):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(_REFUSED)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSED})


def is_own(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request names this machine by loopback, and comes from the page itself where it says whence."""
    given = {name.lower(): value.decode("latin-1").lower() for name, value in headers}
    host = given.get(b"host", "")
    return host.partition(":")[0] in _HOSTS and given.get(b"origin", f"http://{host}") == f"http://{host}"
