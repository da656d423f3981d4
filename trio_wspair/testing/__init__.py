"""Tools for testing code that uses WebSockets, and other Trio code.

`open_test_client()` is a client of an application on its real server, without a
network: it makes requests, keeps cookies, and opens WebSockets with a record.
`open_recorded_pair()` is a pair with such a record. `cancel_at_every_step()` cancels an
operation wherever that is possible, `FaultyStream` is a network that breaks in the way
you choose, a `ScriptedPeer` is a server or a client that misbehaves,
`open_asgi_websocket()` is a client of any ASGI application, `check_websocket_pair()`
tries whether a transport keeps the promises, and `hibernate_after_every_event()` makes
Durable Objects forget all they may forget.
"""

from trio_wspair._rules.exports import name_public_module as _name_public_module

from ._asgi import open_asgi_websocket
from ._client import OpenClient, TestClient, TestWebSocket, open_test_client
from ._entries import Entry, FailedStep
from ._record import ConversationError, Record
from ._recorded import RecordedWebSocket, open_recorded_pair
from ._replay import GoldenRecord, replay, replay_file
from ._requests import RequestError, TestResponse
from ._scripted_peer import ScriptedPeer, open_scripted_client, open_scripted_server
from ._streams import FaultyStream
from ._suite import check_websocket_pair
from ._sweep import Attempt, cancel_at_every_step, hibernate_after_every_event

__all__ = (
    "Attempt",
    "ConversationError",
    "Entry",
    "FailedStep",
    "FaultyStream",
    "GoldenRecord",
    "OpenClient",
    "Record",
    "RecordedWebSocket",
    "RequestError",
    "ScriptedPeer",
    "TestClient",
    "TestResponse",
    "TestWebSocket",
    "cancel_at_every_step",
    "check_websocket_pair",
    "hibernate_after_every_event",
    "open_asgi_websocket",
    "open_recorded_pair",
    "open_scripted_client",
    "open_scripted_server",
    "open_test_client",
    "replay",
    "replay_file",
)

_name_public_module(globals())
