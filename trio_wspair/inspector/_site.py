"""`Site`: the page and its WebSocket, for whoever may see them.

Payloads belong to this process and its peers. Pages of other sites must not read them,
whatever name they have given to this machine (DNS rebinding), and what is in them must
not become part of the page.
"""

import hashlib
import re
from base64 import b64encode
from importlib import resources
from typing import Final
from urllib.parse import urlsplit

from trio_wspair._http.messages import Request, Response
from trio_wspair._http.origin import same_origin
from trio_wspair._pair.pair import WebSocketPair

from ._connections import Connections
from ._watcher import Watcher

__all__ = ("Site",)

_FOLDER: Final = resources.files("trio_wspair.inspector")
_PAGE: Final = (_FOLDER / "page.html").read_text("utf-8")
_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def _hash_of(element: str) -> str:
    """Return the hash of what is in an element of the page, for its policy."""
    found = re.search(f"<{element}>(.*?)</{element}>", _PAGE, re.DOTALL)
    assert found is not None
    digest = hashlib.sha256(found[1].encode()).digest()
    return f"'sha256-{b64encode(digest).decode()}'"


_HEADERS: Final = {
    "Content-Type": "text/html;charset=UTF-8",
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash_of('script')}",
            f"style-src {_hash_of('style')}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ]
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Site:
    """What a browser gets.

    Args:
        connections: What the page shows.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.port: int | None = None
        """Where it is served; nobody gets anything before that is known."""

    async def fetch(self, request: Request) -> Response:
        """Answer a request."""
        if not self._is_for_us(request):
            return Response(f"Open http://127.0.0.1:{self.port}/\n", status=403)
        if request.path == "/":
            return Response(_PAGE, headers=_HEADERS)
        if request.path != "/ws":
            return Response("There is nothing here.\n", status=404)
        if not same_origin(request):
            return Response("This is for its own page only.\n", status=403)
        if not request.wants_websocket:
            return Response("A WebSocket, please.\n", status=426)
        client, server = WebSocketPair()
        request.nursery.start_soon(Watcher(server, self._connections).run)
        return Response(None, status=101, web_socket=client)

    def _is_for_us(self, request: Request) -> bool:
        """Return whether the client knows this place by a name of this machine."""
        url = urlsplit(request.url)
        return url.hostname in _NAMES and (url.port or 80) == self.port
