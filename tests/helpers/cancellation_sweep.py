"""The cancellation sweep: an operation is cancelled at each step, then it is checked.

Everything runs in virtual time, so grace periods cost nothing. On a real network, the
clock jumps when no task has run for a moment.
"""

import gc
import os
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Final, Literal, TypeVar

import attrs
import trio
import trio.testing
from trio._core._run import _r as scheduler_random
from trio.testing import MockClock

from trio_wspair import (
    CloseEvent,
    ErrorEvent,
    MessageEvent,
    ReadyState,
    Server,
    WebSocket,
)
from trio_wspair.testing import Attempt, ScriptedPeer, cancel_at_every_step
from trio_wspair.testing._scripted_peer import (
    PONG,
    Said,
    accept_key,
    head,
)

T = TypeVar("T")
Operation = Callable[[Attempt], Awaitable[None]]
"""Sets something up, cancels a part of it by ``with attempt:``, and checks."""
Listening = Literal["sync", "async", "slow", "stubborn", "endless"]
LISTENING: Final[tuple[Listening, ...]] = ("sync", "async", "slow", "stubborn")
"""Listeners that return at once, that yield a few times, that take longer than the
`close_grace` of their half, and that do so under a shield. Endless ones yield for each
message, and wait for ever at the end."""
QUICK: Final = {"sync", "async"}
"""The listeners that return within `close_grace`."""
REST: Final = 60.0
"""Seconds of virtual time after which everything is at rest."""
Role = Literal["client", "server"]
ROLES: Final[tuple[Role, ...]] = ("client", "server")
Wire = Literal["memory", "tcp", "tls"]
_IDLE: Final = 0.005
"""Seconds of silence after which nothing more comes on the loopback interface."""
_LONG: Final = 1.5
"""Seconds: more than the `close_grace` of a pair."""
_LEFT_OVER: Final = (
    WebSocket,
    trio.Nursery,
    trio.SocketStream,
    trio.SSLStream,
    trio.StapledStream,
    trio.MemorySendChannel,
    trio.MemoryReceiveChannel,
)
"""The types of objects that an operation makes, and must not leave behind."""


# -- running -------------------------------------------------------------------------


def sweep(operation: Operation, *, seeds: int = 3, idle: float = 0.0) -> None:
    """Cancel an operation at each of its steps, under several orders of Trio's tasks.

    Args:
        operation: What to run, once for each step.
        seeds: How many orders of tasks are tried.
        idle: Seconds of real time after which the clock jumps; 0 without a network.
    """

    deadline = 0.0

    async def main(seed: int) -> None:
        nonlocal deadline
        cancelled = 0
        trio.lowlevel.spawn_system_task(take_shields_away)
        objects = new_objects(*_LEFT_OVER)
        for attempt in cancel_at_every_step():
            scheduler_random.seed(seed)
            tasks, files = all_tasks(), open_files()
            deadline = trio.current_time() + 1000
            try:
                with trio.fail_at(deadline):
                    await operation(attempt)
                assert all_tasks() == tasks
                assert open_files() == files
                assert new_objects(*_LEFT_OVER) == objects
            except BaseException as exc:
                exc.add_note(f"under seed {seed}, in {attempt!r}")
                raise
            cancelled += attempt.cancelled
        assert cancelled, "nothing was ever cancelled"

    async def take_shields_away() -> None:
        """Fail an attempt that hangs under a shield, by taking the shield away."""
        while True:
            await trio.sleep_until(deadline + 1)
            if trio.current_time() > deadline:
                break
        for scope in new_objects(trio.CancelScope):
            scope.shield = False

    with only_new_objects():
        for seed in range(seeds):
            trio.run(main, seed, clock=MockClock(autojump_threshold=idle))


def all_tasks() -> set[trio.lowlevel.Task]:
    """Return every task, including Trio's own."""
    found = set[trio.lowlevel.Task]()
    root = trio.lowlevel.current_root_task()
    waiting = [root] if root is not None else []
    while waiting:
        task = waiting.pop()
        found.add(task)
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks
    return found


def open_files() -> set[str]:
    """Return the open descriptors of this process, with what each refers to."""
    names = set[str]()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # The descriptor that lists the folder.
            names.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    return names


@contextmanager
def only_new_objects() -> Iterator[None]:
    """Hide existing objects from the collector, which makes collecting fast."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def new_objects(*types: type[T]) -> list[T]:
    """Return the live objects of exactly these types."""
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) in types]


def open_channels() -> list[trio.MemoryChannelStatistics]:
    """Return the statistics of the memory channels with an open end."""
    channels = new_objects(trio.MemoryReceiveChannel)
    known = [channel.statistics() for channel in channels]
    return [it for it in known if it.open_send_channels + it.open_receive_channels]


# -- listening -----------------------------------------------------------------------


@attrs.define
class EventLog:
    """Listeners for all events of a half, and the events that they got."""

    half: WebSocket
    listening: Listening
    pulled: bool = attrs.field(default=False, kw_only=True)
    """Its messages go to `receive()`."""
    messages: list[str | bytes] = attrs.field(factory=list[str | bytes])
    ends: list[ErrorEvent | CloseEvent] = attrs.field(
        factory=list[ErrorEvent | CloseEvent]
    )
    busy: bool = False
    """Whether a listener is running."""

    def __attrs_post_init__(self) -> None:
        if self.listening == "sync":
            self.half.onmessage = None if self.pulled else self._log
            self.half.onerror = self._log
            self.half.onclose = self._log
        else:
            self.half.onmessage = None if self.pulled else self._log_slowly
            self.half.onerror = self._log_slowly
            self.half.onclose = self._log_slowly

    def _log(self, event: MessageEvent | ErrorEvent | CloseEvent) -> None:
        assert not self.busy, "G8: listeners of one half never overlap"
        if isinstance(event, MessageEvent):
            assert not self.ends, "G2: the end comes last"
            self.messages.append(event.data)
        else:
            self.ends.append(event)

    async def _log_slowly(self, event: MessageEvent | ErrorEvent | CloseEvent) -> None:
        self._log(event)
        self.busy = True
        try:
            if self.listening == "endless" and self.ends:
                await trio.sleep_forever()
            elif self.listening in {"async", "endless"}:
                for _ in range(3):
                    await trio.lowlevel.checkpoint()
            else:
                with trio.CancelScope(shield=self.listening == "stubborn"):
                    await trio.sleep(_LONG)
        finally:
            self.busy = False

    def close_event(self) -> CloseEvent:
        """Check that the half has ended as G2 demands; return its close event."""
        assert self.half.ready_state is ReadyState.CLOSED
        assert not self.busy
        *errors, close = self.ends
        assert isinstance(close, CloseEvent), self.ends
        assert [type(error) for error in errors] in ([], [ErrorEvent])
        if not close.was_clean:
            assert close.code == 1006
        else:
            assert not errors
        return close


# -- the other end of a network --------------------------------------------------------


@attrs.define
class Peer:
    """A good peer: it answers pings, Closes, and messages that don't end in ``!``.

    It runs until the other end closes the connection, and fails if a frame is torn.
    """

    role: Role
    greetings: tuple[str, ...] = ()
    """The messages that it sends when the connection opens."""
    received: list[Said] = attrs.field(factory=list[Said])
    """The messages and control frames that it got."""
    opened: bool = False
    """Whether the opening handshake is complete."""
    two_messages: trio.Event = attrs.field(factory=trio.Event)
    """Set when two messages have come."""

    async def run(self, stream: trio.abc.Stream) -> None:
        """Serve the connection until the other end has closed it."""
        peer = ScriptedPeer(stream, masks=self.role == "client")
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._open(peer)
            for greeting in self.greetings if self.opened else ():
                await peer.send(peer.text_frame(greeting))
        while self.opened and (received := await peer.receive()) is not None:
            assert self.close is None, "nothing comes after a Close"
            self.received.append(received)
            if len(self.texts) == 2:
                self.two_messages.set()
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._answer(peer, received)
        await trio.aclose_forcefully(stream)

    async def _open(self, peer: ScriptedPeer) -> None:
        if self.role == "client":
            self.opened = (await peer.handshake()).startswith("HTTP/1.1 101 ")
            return
        key = re.search(r"(?i)\r\nsec-websocket-key: (\S+)\r\n", await peer.read_head())
        if key is not None:
            answer = (
                "Upgrade: websocket",
                "Connection: Upgrade",
                f"Sec-WebSocket-Accept: {accept_key(key[1])}",
            )
            await peer.send(head(*answer, start="HTTP/1.1 101 Switching Protocols"))
            self.opened = True

    async def _answer(self, peer: ScriptedPeer, received: Said) -> None:
        match received:
            case str(text) if not text.endswith("!"):
                await peer.send(peer.text_frame(f"{text[:20]}!"))
            case ("ping", bytes(payload)):
                await peer.send(peer.frame(PONG, payload))
            case (int(code), str(reason)):
                await peer.send(peer.close_frame(code, reason))
                if self.role == "server":  # The server ends TCP first.
                    await peer.stream.aclose()
            case _:
                pass

    @property
    def close(self) -> int | None:
        """The code of the Close that it got, if any."""
        for received in self.received[-1:]:
            if isinstance(received, tuple) and isinstance(received[0], int):
                return received[0]
        return None

    @property
    def texts(self) -> list[Said]:
        """The text messages that it got."""
        return [received for received in self.received if isinstance(received, str)]


@attrs.define
class Wiring:
    """How two ends are connected."""

    wire: Wire
    server: ssl.SSLContext | None
    """The context of the server, with TLS."""
    client: ssl.SSLContext | None
    """The context of the client."""

    def sweep(self, operation: Operation) -> None:
        """Sweep an operation that uses this network."""
        if self.wire == "memory":
            sweep(operation, seeds=2)
        else:
            sweep(operation, seeds=1, idle=_IDLE)

    def secured(self, role: Role, stream: trio.abc.Stream) -> trio.abc.Stream:
        """Return the stream, or TLS on top of it."""
        context = self.client if role == "client" else self.server
        if context is None:
            return stream
        return trio.SSLStream(
            stream,
            context,
            server_hostname="127.0.0.1",
            server_side=role == "server",
            https_compatible=True,
        )

    async def streams(self, role: Role) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        """Return two connected streams: one for this role, and one for its peer."""
        if self.wire == "memory":
            return trio.testing.memory_stream_pair()
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            client = await trio.open_tcp_stream(*listener.socket.getsockname())
            server = await listener.accept()
        ends = self.secured("client", client), self.secured("server", server)
        return ends if role == "client" else ends[::-1]

    @asynccontextmanager
    async def peers(self) -> AsyncGenerator[tuple[str, list[Peer]]]:
        """Run a server of such peers, which have to end without being cancelled."""
        peers: list[Peer] = []

        async def run(stream: trio.SocketStream) -> None:
            peer = Peer("server")
            peers.append(peer)
            await peer.run(self.secured("server", stream))

        async with trio.open_nursery() as conversations, trio.open_nursery() as nursery:
            listeners = await nursery.start(
                partial(
                    trio.serve_tcp,
                    run,
                    0,
                    host="127.0.0.1",
                    handler_nursery=conversations,
                )
            )
            port = listeners[0].socket.getsockname()[1]
            yield f"{'wss' if self.client else 'ws'}://127.0.0.1:{port}/", peers
            nursery.cancel_scope.cancel()

    async def visit(self, server: Server, peer: Peer) -> None:
        """Connect a peer to a server, if that still listens."""
        with suppress(OSError):
            stream = await trio.open_tcp_stream(*server.addresses[0])
            await peer.run(self.secured("client", stream))
