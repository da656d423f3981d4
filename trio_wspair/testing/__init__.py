"""Tools for testing code that uses WebSockets, and other Trio code.

`cancel_at_every_step()` cancels an operation wherever that is possible,
`FaultyStream` is a network that breaks in the way you choose, and
`open_asgi_websocket()` is a client of any ASGI application, without a network.
"""

from ._asgi import open_asgi_websocket
from ._faults import FaultyStream
from ._sweep import Attempt, cancel_at_every_step

__all__ = ("Attempt", "FaultyStream", "cancel_at_every_step", "open_asgi_websocket")
