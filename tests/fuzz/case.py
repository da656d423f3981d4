"""The description of an attack, and what was observed."""

from typing import Literal

import attrs

from fuzz.applications import ApplicationName, Observed
from fuzz.network import Ending
from trio_wspair import HandshakeError
from trio_wspair.testing._scripted_peer import UPGRADE, accept_key, head

GOOD_REQUEST = head(*UPGRADE)
ACCEPT = b"@" * 28
"""A placeholder for the `Sec-WebSocket-Accept` of the client's key."""
GOOD_ANSWER = head(
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Accept: {ACCEPT.decode()}",
    start="HTTP/1.1 101 Switching Protocols",
)


@attrs.frozen
class Case:
    """The bytes that the attacker sends, and the application on the other side."""

    side: Literal["server", "client"]
    """The side under attack."""
    chunks: tuple[bytes, ...]
    """The pieces that the side receives; `ACCEPT` in them is replaced."""
    ending: Ending = "eof"
    application: ApplicationName = "listener"
    patient: bool = False
    """Whether each chunk is sent only after all effects of the previous one."""
    limit: int = 1000
    """The value of `max_message_bytes`."""
    room: int = 2**20
    """The value of `receive_buffer_bytes`."""


@attrs.frozen
class Seen:
    """What was observed in a case."""

    received: bytes
    """The bytes that the side under attack received."""
    sent: bytes
    """The bytes that the side under attack sent."""
    observed: list[Observed]
    """The events of the application, for each half that it has accepted."""
    refusal: HandshakeError | None = None
    """The error that `connect()` raised."""
    hung_up: bool = False
    """Whether the attacker, after silence, had to end the connection."""


def with_accept(template: bytes, request: bytes) -> bytes:
    """Fill the `Sec-WebSocket-Accept` for a request into a template of the response."""
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    return template.replace(ACCEPT, accept_key(key.decode()).encode())
