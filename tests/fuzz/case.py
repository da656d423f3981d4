"""What an attack is, and what it has come to."""

from typing import Literal

import attrs

from fuzz.network import Ending
from fuzz.takers import TakerName, Taking
from trio_wspair import HandshakeError
from trio_wspair.testing._scripted_peer import UPGRADE, accept_key, head

GOOD_REQUEST = head(*UPGRADE)
ACCEPT = b"@" * 28
"""Stands for what a server has to answer to the key of a client."""
GOOD_ANSWER = head(
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Accept: {ACCEPT.decode()}",
    start="HTTP/1.1 101 Switching Protocols",
)


@attrs.frozen
class Case:
    """What one side sends, and who takes the messages on the other."""

    side: Literal["server", "client"]
    """Who is attacked."""
    chunks: tuple[bytes, ...]
    """What it is sent, piece by piece; `ACCEPT` in it is filled in."""
    ending: Ending = "eof"
    taker: TakerName = "listener"
    patient: bool = False
    """A chunk comes only when the one before has had all its effects."""
    limit: int = 1000
    """The bytes that a message may have."""
    room: int = 2**20
    """The bytes that may wait to be taken."""


@attrs.frozen
class Seen:
    """What a case has come to."""

    received: bytes
    """What the side under attack has been sent."""
    sent: bytes
    """What it has sent itself."""
    takings: list[Taking]
    """What the application has heard, for each half that it has taken."""
    refusal: HandshakeError | None = None
    """Why a client has no half."""
    hung_up: bool = False
    """A silent peer had to hang up in the end, or it might have taken for ever."""


def with_accept(template: bytes, request: bytes) -> bytes:
    """Put what has to be answered to a request into a template of the answer."""
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    return template.replace(ACCEPT, accept_key(key.decode()).encode())
