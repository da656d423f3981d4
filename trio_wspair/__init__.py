"""WebSocketPair for Trio: two connected WebSockets, in memory or on the network."""

from ._codes import CloseCode as CloseCode
from ._errors import (
    BufferFullError as BufferFullError,
    ConnectionClosedError as ConnectionClosedError,
    HandshakeError as HandshakeError,
    InvalidStateError as InvalidStateError,
    ProtocolError as ProtocolError,
    WebSocketError as WebSocketError,
)
from ._pair import (
    WebSocketPair as WebSocketPair,
    open_websocket_pair as open_websocket_pair,
)
from ._socket import (
    CloseEvent as CloseEvent,
    ErrorEvent as ErrorEvent,
    MessageEvent as MessageEvent,
    WebSocket as WebSocket,
)
from ._state import ReadyState as ReadyState
