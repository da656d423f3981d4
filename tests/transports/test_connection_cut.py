"""Connections that are cut off: at every byte, in either direction, in every way."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, Protocol

import attrs
import pytest
import trio
from conversations import CORPUS, End, Stage, check
from network import Logged, Tls
from patched_network import Recorder, loopback_network, memory_network
from trio.testing import MockClock

from trio_wspair import serve
from trio_wspair.testing import FaultyStream
from trio_wspair.testing._scripted_peer import Said, read_frame

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("engine")]

Kind = Literal["end", "reset", "silence"]
Place = Literal["client", "server"]
Way = Literal["to the server", "to the client"]
KINDS: list[Kind] = ["end", "reset", "silence"]
WAYS: list[Way] = ["to the server", "to the client"]
ONE = "the client asks and closes"
"""The conversation whose handshake is cut, too; the others have the same."""


class Spoiler(Protocol):
    """Wraps the two ends of a connection."""

    def spoil(self, place: Place, stream: trio.abc.Stream) -> trio.abc.Stream: ...


@attrs.frozen
class Recording:
    """Records the sent bytes, without a fault."""

    sent: dict[Way, bytearray] = attrs.field(
        factory=lambda: {way: bytearray() for way in WAYS}
    )

    def spoil(self, place: Place, stream: trio.abc.Stream) -> trio.abc.Stream:
        way: Way = "to the server" if place == "client" else "to the client"
        return Recorder(stream, self.sent[way])


@attrs.frozen
class Cut:
    """Cuts the connection."""

    kind: Kind
    way: Way
    count: int
    """The number of bytes before the cut."""
    place: Place
    """The end whose stream is cut."""
    keep_open: bool = False
    """Whether closing stays unnoticed as well, as with a cut cable."""

    def spoil(self, place: Place, stream: trio.abc.Stream) -> trio.abc.Stream:
        if place != self.place:
            return stream
        sends = (place == "client") is (self.way == "to the server")
        return FaultyStream(
            stream,
            cut=self.kind,
            cut_after_sent=self.count if sends else None,
            cut_after_received=None if sends else self.count,
            keep_open=self.keep_open,
        )


def place_for(kind: Kind, count: int) -> Place:
    """Return the end to cut: in turns, and different for each kind."""
    return "client" if (count + KINDS.index(kind)) % 2 else "server"


Ends = tuple[End | None, End | None]
Play = Callable[[Spoiler], Awaitable[Ends]]


@asynccontextmanager
async def played_over(
    name: str,
    network: Any = memory_network,
    *,
    server_options: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncGenerator[Play]:
    """Give a function that plays and checks a conversation over wrapped streams."""
    stage = Stage(CORPUS[name], **options)
    spoilers: list[Spoiler] = []

    def spoil(place: Place, stream: trio.abc.Stream) -> trio.abc.Stream:
        return spoilers[-1].spoil(place, stream)

    async def play(spoiler: Spoiler) -> Ends:
        spoilers.append(spoiler)
        trio._core._run._r.seed(len(spoilers))
        try:
            with trio.fail_after(100):
                client, served = await stage.play(server)
            check_end(client, served, spoiler)
            check_end(served, client, spoiler)
        except BaseException as exc:
            exc.add_note(f"{name!r} with {spoiler}")
            raise
        return client, served

    with network(client=partial(spoil, "client"), server=partial(spoil, "server")):
        async with trio.open_nursery() as nursery:
            run = partial(serve, stage.fetch, 0, **(server_options or {}))
            server = await nursery.start(run)
            yield play
            nursery.cancel_scope.cancel()


def check_end(end: End | None, other: End | None, spoiler: Spoiler) -> None:
    """Check an end. A peer that has gone is not an error, a silent one is."""
    if end is not None:
        check(end, other)
        silent = isinstance(spoiler, Cut) and spoiler.kind == "silence"
        kinds = TimeoutError if silent else ()
        assert all(isinstance(error, kinds) for error in end.errors())


# -- at every byte: exactly which messages arrive -------------------------------------


@attrs.frozen
class Sent:
    """The bytes of one direction without a cut."""

    size: int
    head: int
    """The offset of the first frame."""
    frames: list[tuple[Said, int]]
    """The content of each frame, and the offset of its end; the Close is the last."""

    @classmethod
    def read(cls, data: bytearray, way: Way) -> "Sent":
        head = end = data.index(b"\r\n\r\n") + 4
        frames: list[tuple[Said, int]] = []
        while end < len(data):
            found = read_frame(data[end:], masked=way == "to the server")
            assert found is not None
            end += found[1]
            frames.append((found[0], end))
        return cls(len(data), head, frames)

    def counts(self, name: str) -> Iterable[int]:
        """Return the numbers of bytes to cut after: all, but few in a large message."""
        start = 0 if name == ONE else self.head
        if self.size < 1000:
            return range(start, self.size + 1)
        edges = *range(start, start + 20), *range(self.size - 20, self.size + 1)
        return *edges, *range(start + 20, self.size - 20, 4999)

    def messages_within(self, count: int) -> list[Said]:
        return [
            said
            for said, end in self.frames
            if end <= count and isinstance(said, (str, bytes))
        ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CORPUS)
async def test_g1_g2_g3_g10_a_connection_may_be_cut_off_at_every_byte(
    name: str, kind: Kind, autojump_clock: MockClock, logged: Logged
) -> None:
    async with played_over(name) as play:
        recording = Recording()
        client, served = await play(recording)
        assert client is not None
        assert served is not None
        assert client.closes()[0].was_clean
        assert served.closes()[0].was_clean
        for way, data in recording.sent.items():
            sent = Sent.read(data, way)
            for count in sent.counts(name):
                cut = Cut(
                    kind,
                    way,
                    count,
                    place_for(kind, count),
                    keep_open=kind == "silence",
                )
                client, served = await play(cut)
                receiver = client if way == "to the client" else served
                # The rest of the connection was whole until then: what had been
                # sent is delivered, and the Close if all of it has arrived.
                assert (receiver is None) is (count < sent.head), cut
                if receiver is not None:
                    assert receiver.messages() == sent.messages_within(count), cut
                    clean = receiver.closes()[0].was_clean
                    assert clean is (count == sent.size), cut


# -- a sample: TLS, and real sockets ---------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [ONE, "half-open"])
async def test_g1_g2_g3_g10_a_connection_may_be_cut_off_below_tls(
    name: str, kind: Kind, autojump_clock: MockClock, logged: Logged, tls: Tls
) -> None:
    async with played_over(
        name, server_options={"ssl_context": tls.server}, ssl_context=tls.client
    ) as play:
        recording = Recording()
        await play(recording)
        for way, data in recording.sent.items():
            size = len(data)
            for count in (*range(0, size - 80, 97), *range(size - 80, size + 5, 3)):
                place = place_for(kind, count)
                await play(Cut(kind, way, count, place, keep_open=kind == "silence"))


HASTE = {"close_grace": 0.05, "ping_interval": 0.05, "ping_timeout": 0.05}


@pytest.mark.parametrize(("kind", "step"), [("end", 7), ("reset", 7), ("silence", 43)])
@pytest.mark.parametrize("way", WAYS)
async def test_g1_g2_g3_g10_a_socket_may_be_cut_off(
    kind: Kind, step: int, way: Way, logged: Logged, no_socket_left: None
) -> None:
    hurry = {} if kind != "silence" else HASTE
    async with played_over(
        ONE,
        loopback_network,
        server_options={**hurry, "handshake_timeout": 0.2},
        connect_timeout=0.2,
        poll_seconds=0.001,
        **hurry,
    ) as play:
        for count in range(0, 170, step):
            await play(Cut(kind, way, count, place_for(kind, count)))
