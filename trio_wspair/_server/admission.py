"""How many connections a server has, in all and of each client; who is turned away.

Pure counting: knows addresses as text, and nothing of streams and answers. A place is
held for a block, so that it is free again however the block is left.

A client is what one subscriber of an access provider usually has: one IPv4 address, or
the /64 of an IPv6 address (RFC 6177), whose remaining bits a host chooses as it likes.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_address
from typing import Final

from trio_wspair._rules.limits import Limits

__all__ = ("MAX_REFUSALS", "RETRY_AFTER_SECONDS", "Admission", "client_key")

MAX_REFUSALS: Final = 64
"""Connections that are told at the same time that there is no place for them."""
RETRY_AFTER_SECONDS: Final = 5

_NETWORK_BYTES: Final = 8


def client_key(address: str) -> bytes | None:
    """Return what the addresses of one client have in common; `None` if unknown.

    An IPv4 address that is mapped into IPv6 is that IPv4 address.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return None  # That of a Unix socket, or what a proxy doesn't tell.
    if isinstance(ip, IPv4Address):
        return ip.packed
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.packed
    return ip.packed[:_NETWORK_BYTES]


class Admission:
    """The places of a server.

    Args:
        limits: How many there are.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._clients: Counter[bytes] = Counter()
        self.connections = 0
        """Those that are being served."""
        self.refusals = 0
        """Those that are being turned away; they have no place."""

    @property
    def full(self) -> bool:
        """Whether all places are taken."""
        return self.connections >= self._limits.max_connections

    @contextmanager
    def connection(self) -> Generator[None, None, None]:
        """Take one of the places for the block."""
        self.connections += 1
        try:
            yield
        finally:
            self.connections -= 1

    @contextmanager
    def client(self, address: str) -> Generator[bool, None, None]:
        """Take one of a client's places for the block, if there is one.

        Yields:
            Whether there was one. A client whose address is unknown always has one.
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
        """Count a connection that is being turned away, for the block.

        Yields:
            Whether it may be told so; otherwise too many others are being told.
        """
        if self.refusals >= MAX_REFUSALS:
            yield False
            return
        self.refusals += 1
        try:
            yield True
        finally:
            self.refusals -= 1
