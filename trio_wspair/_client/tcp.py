"""TCP to a host, with errors that name each address that was tried.

Knows names, addresses and sockets. `open_tcp()` is "happy eyeballs" (RFC 8305), as
`trio.open_tcp_stream()` is; but it takes every name that DNS has (with underscores,
too), and it can tell what it was waiting for when its time has run out.
"""

import os
import socket
from typing import Final

import attrs
import trio
from trio.lowlevel import enable_ki_protection

__all__ = ("Progress", "look_up", "open_tcp", "reason_of", "unreachable")

_DELAY: Final = 0.25
"""Seconds until the next address is tried beside (RFC 8305, section 8)."""
_NOT_FOUND: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)})


@attrs.define
class Progress:
    """What an attempt to connect is waiting for, in words, for when it takes too long.

    The words end the sentence "no WebSocket at example.com within 10 s: ...".
    """

    waiting_for: str = ""


@attrs.frozen
class Address:
    """One that a name stands for."""

    family: int
    address: tuple[str | int | bytes, ...]
    """As the operating system takes it."""

    def __str__(self) -> str:
        return str(self.address[0])


async def look_up(
    host: str, port: int, *, family: int = socket.AF_UNSPEC
) -> list[Address]:
    """Return the addresses of a host, in the order in which to try them.

    Args:
        host: A name in ASCII, or an address.
        port: For the addresses.
        family: To have addresses of one kind only.

    Raises:
        socket.gaierror: There are none.
    """
    try:
        # As bytes: of a str, Trio makes IDNA 2008, which has no underscores.
        found = await trio.socket.getaddrinfo(
            host.encode("ascii"), port, family=family, type=socket.SOCK_STREAM
        )
    except socket.gaierror as exc:
        reason = exc.strerror or str(exc)
        missing = "was not found" if exc.errno in _NOT_FOUND else "can't be looked up"
        msg = f'the name "{host}" {missing}: {reason}'
        raise socket.gaierror(exc.errno, msg) from exc
    addresses = [Address(family, address) for family, _, _, _, address in found]
    addresses = list(dict.fromkeys(addresses))
    # The second is of the other kind, if there is one (RFC 8305, section 4).
    other = next((a for a in addresses if a.family != addresses[0].family), None)
    if other is not None:
        addresses.remove(other)
        addresses.insert(1, other)
    return addresses


async def open_tcp(
    host: str, port: int, *, progress: Progress, what: str = ""
) -> trio.SocketStream:
    """Connect to a host.

    Args:
        host: A name in ASCII, or an address.
        port: The port.
        progress: Where to keep what is being waited for.
        what: What stands before the host in an error, such as ``"the proxy "``.

    Raises:
        OSError: It can't be reached. The text has the host, the port, and what became
            of each address.
    """
    progress.waiting_for = f'the name "{host}" was not looked up yet'
    addresses = await look_up(host, port)
    attempts = _Attempts(addresses, progress)
    winner = await attempts.run()
    if winner is not None:
        return trio.SocketStream(winner)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    outcomes = attempts.outcomes
    if len(outcomes) == 1 and host in outcomes:
        reasons = outcomes[host]
    else:
        reasons = "; ".join(f"{address}: {why}" for address, why in outcomes.items())
    msg = f"can't reach {what}{where}: {reasons}"
    errors = attempts.errors
    cause = errors[0] if len(errors) == 1 else ExceptionGroup(msg, errors)
    numbers = {error.errno for error in errors}
    if len(numbers) == 1:
        raise unreachable(errors[0], msg) from cause
    raise OSError(msg) from cause


def unreachable(error: OSError, message: str) -> OSError:
    """Return an error of the same kind with another text."""
    if error.errno is None:
        return OSError(message)
    if isinstance(error, socket.gaierror):
        return socket.gaierror(error.errno, message)
    return OSError(error.errno, message)  # Which makes the subclass of this number.


def reason_of(error: OSError) -> str:
    """Return what an error of the operating system means, to go on a sentence with."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    text = os.strerror(error.errno)
    return text[:1].lower() + text[1:]


class _Attempts:
    """Connecting to several addresses, until one of them answers."""

    def __init__(self, addresses: list[Address], progress: Progress) -> None:
        self._addresses = addresses
        self._progress = progress
        self._winner: trio.socket.SocketType | None = None
        self.outcomes: dict[str, str] = {}
        """What became of each address that was tried."""
        self.errors: list[OSError] = []

    async def run(self) -> trio.socket.SocketType | None:
        """Return a socket that is connected, or `None`."""
        try:
            async with trio.open_nursery() as nursery:
                for address in self._addresses:
                    failed = trio.Event()
                    nursery.start_soon(self._attempt, address, failed, nursery)
                    with trio.move_on_after(_DELAY):
                        await failed.wait()
        except BaseException:
            if self._winner is not None:
                self._winner.close()
            raise
        return self._winner

    @enable_ki_protection  # Else Ctrl-C could lose a socket that was just connected.
    async def _attempt(
        self, address: Address, failed: trio.Event, nursery: trio.Nursery
    ) -> None:
        self._note(address, "no answer")
        try:
            sock = trio.socket.socket(address.family, socket.SOCK_STREAM)
            try:
                await sock.connect(address.address)
            except BaseException:
                sock.close()
                raise
        except OSError as exc:
            # A traceback would refer to this, and keep all until it is collected.
            self.errors.append(exc.with_traceback(None))
            self._note(address, reason_of(exc))
            failed.set()
            return
        if self._winner is not None:  # In the same step of the scheduler.
            sock.close()
            return
        self._winner = sock
        nursery.cancel_scope.cancel(reason="another address has answered")

    def _note(self, address: Address, outcome: str) -> None:
        self.outcomes[str(address)] = outcome
        each = (f"{address}: {why}" for address, why in self.outcomes.items())
        self._progress.waiting_for = "; ".join(each)
