"""Tools for testing code that uses WebSockets, and other Trio code.

- `open_test_client()`: a client of an application on its real server, without a
  network. It makes requests, keeps cookies, and opens WebSockets with a record.
- `open_recorded_pair()`: a pair with such a record.
- `replay()`: a check of an application against a recorded conversation.
- `cancel_at_every_step()`: cancels an operation at each of its steps in turn.
- `FaultyStream`: a network that fails in the way that you choose.
- `ScriptedPeer`: a server or a client that misbehaves.
- `open_asgi_websocket()`: a client of any ASGI application.
- `check_websocket_pair()`: checks a transport against the guarantees.
- `hibernate_after_every_event()`: makes Durable Objects hibernate as often as possible.
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
