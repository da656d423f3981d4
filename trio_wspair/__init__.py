"""WebSocketPair for Trio: two connected WebSockets, in memory or on the network.

The public names of the pair, of HTTP, and of servers and clients. More are in
`trio_wspair.hibernation`, `trio_wspair.transports`, `trio_wspair.asgi`,
`trio_wspair.testing` and `trio_wspair.inspector`.
"""

from ._client.connecting import connect as connect, open_websocket as open_websocket
from ._client.reconnecting import reconnecting as reconnecting
from ._http.messages import (
    FetchHandler as FetchHandler,
    Headers as Headers,
    Request as Request,
    Response as Response,
)
from ._http.origin import same_origin as same_origin
from ._pair.instruments import (
    ConnectionInfo as ConnectionInfo,
    Instrument as Instrument,
    use_instrument as use_instrument,
)
from ._pair.pair import (
    WebSocketPair as WebSocketPair,
    open_websocket_pair as open_websocket_pair,
)
from ._pair.websocket import (
    CloseEvent as CloseEvent,
    ErrorEvent as ErrorEvent,
    MessageEvent as MessageEvent,
    WebSocket as WebSocket,
    broadcast as broadcast,
)
from ._rules.codes import CloseCode as CloseCode
from ._rules.errors import (
    BufferFullError as BufferFullError,
    ConnectionClosedError as ConnectionClosedError,
    HandshakeError as HandshakeError,
    InvalidStateError as InvalidStateError,
    ProtocolError as ProtocolError,
    RequestBodyError as RequestBodyError,
    WebSocketError as WebSocketError,
)
from ._rules.exports import name_public_module as _name_public_module
from ._rules.state import ReadyState as ReadyState
from ._server.application import Application as Application
from ._server.serving import Server as Server, serve as serve
from ._version import __version__ as __version__

__all__ = (
    "Application",
    "BufferFullError",
    "CloseCode",
    "CloseEvent",
    "ConnectionClosedError",
    "ConnectionInfo",
    "ErrorEvent",
    "FetchHandler",
    "HandshakeError",
    "Headers",
    "Instrument",
    "InvalidStateError",
    "MessageEvent",
    "ProtocolError",
    "ReadyState",
    "Request",
    "RequestBodyError",
    "Response",
    "Server",
    "WebSocket",
    "WebSocketError",
    "WebSocketPair",
    "broadcast",
    "connect",
    "open_websocket",
    "open_websocket_pair",
    "reconnecting",
    "same_origin",
    "serve",
    "use_instrument",
)

_name_public_module(globals())
