"""The errors by which connections of every kind end."""

from trio_wspair._rules.errors import ConnectionClosedError, ProtocolError

__all__ = ("lost", "too_big")


def lost(
    # The words of workerd for it.
    why: str = "WebSocket disconnected without sending Close frame.",
) -> ConnectionClosedError:
    """Return the error for a connection that is gone."""
    return ConnectionClosedError(1006, why, was_clean=False)


def too_big(max_bytes: int) -> ProtocolError:
    """Return the error for a message with more bytes than these."""
    return ProtocolError(1009, f"a message has more than {max_bytes} bytes")
