"""`Admission`: the number of connections of a server, in all and of each client.

Only counts: knows addresses as text, neither streams nor responses. A place is held
during a block, so it is free again when the block raises.

A client is what one subscriber of an access provider usually has: one IPv4 address, or
the /64 prefix of an IPv6 address (RFC 6177); a host chooses the other 64 bits freely.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_address
from typing import Final

from trio_wspair._rules.limits import Limits

__all__ = ("MAX_REFUSALS", "RETRY_AFTER_SECONDS", "Admission", "client_key")

MAX_REFUSALS: Final = 64
"""The most connections that get a refusal at the same time; others are dropped."""
RETRY_AFTER_SECONDS: Final = 5

_NETWORK_BYTES: Final = 8


def client_key(address: str) -> bytes | None:
    """Return the part that all addresses of one client share; `None` if unknown.

    An IPv4 address that is mapped into IPv6 counts as that IPv4 address.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return None  # A Unix socket, or unknown to the proxy.
    if isinstance(ip, IPv4Address):
        return ip.packed
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.packed
    return ip.packed[:_NETWORK_BYTES]


class Admission:
    """The places for connections of a server.

    Args:
        limits: The numbers of places.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._clients: Counter[bytes] = Counter()
        self.connections = 0
        """The connections that are being served."""
        self.refusals = 0
        """The connections that are being refused; they have no place."""

    @property
    def full(self) -> bool:
        """Whether all places are taken."""
        return self.connections >= self._limits.max_connections

    @contextmanager
    def connection(self) -> Generator[None, None, None]:
        """Take one of the places during the block."""
        self.connections += 1
        try:
            yield
        finally:
            self.connections -= 1

    @contextmanager
    def client(self, address: str) -> Generator[bool, None, None]:
        """Take one of a client's places during the block, if one is free.

        Yields:
            Whether a place was free; always true for a client with an unknown address.
        """
        most = self._limits.max_connections_per_client
        key = None if most is None else client_key(address)
        if most is None or key is None:
            yield True
            return
        if self._clients[key] >= most:
            yield False
            return
        self._clients[key] += 1
        try:
            yield True
        finally:
            self._clients[key] -= 1
            if not self._clients[key]:
                del self._clients[key]

    @contextmanager
    def refusal(self) -> Generator[bool, None, None]:
        """Count a connection that is being refused, during the block.

        Yields:
            Whether it may get an answer: not if too many others are being refused.
        """
        if self.refusals >= MAX_REFUSALS:
            yield False
            return
        self.refusals += 1
        try:
            yield True
        finally:
            self.refusals -= 1
