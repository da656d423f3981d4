"""How long a connection waits for its peer, and how much it holds."""

import attrs

from trio_wspair._checks import check_limit, check_seconds

__all__ = ("Limits",)


@attrs.frozen
class Limits:
    """What may be set for a connection; see `couple()`.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """

    close_grace: float = 5.0
    receive_buffer_bytes: int = 2**20
    ping_interval: float = 20.0
    ping_timeout: float = 20.0

    def __attrs_post_init__(self) -> None:
        check_seconds("close_grace", self.close_grace)
        check_limit("receive_buffer_bytes", self.receive_buffer_bytes)
        check_seconds("ping_interval", self.ping_interval)
        check_seconds("ping_timeout", self.ping_timeout)
