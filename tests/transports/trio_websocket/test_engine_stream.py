"""`EngineStream` and the connections on it, over streams in memory."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock

from trio_wspair.transports.io._sockets import linger
from trio_wspair.transports.trio_websocket._engine_stream import EngineStream

CLOSE = b"\x88\x02\x03\xe8"
"""A Close, as trio-websocket would write it."""


Memory = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


def streams() -> tuple[Memory, Memory]:
    """Return the two ends of a network in memory."""
    return trio.testing.memory_stream_pair()


@asynccontextmanager
async def running(
    stream: trio.abc.Stream, *, request: bytes = b"", received: bytes = b""
) -> AsyncGenerator[EngineStream]:
    """Open an engine stream."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            engine_stream = EngineStream(
                stream, nursery, request=request, received=received
            )
            try:
                yield engine_stream
            finally:
                engine_stream.frame_writer.stop()  # The task of the stream is shielded.


class Blocked(trio.abc.Stream):
    """A network that takes nothing until the test allows it."""

    def __init__(self) -> None:
        self.taken = bytearray()
        self.room = trio.Event()
        self.sending = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sending = len(data)
        await self.room.wait()
        self.taken += data

    async def wait_send_all_might_not_block(self) -> None:
        await self.room.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        del max_bytes
        await trio.sleep_forever()
        return b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


# -- the engine stream ---------------------------------------------------------


async def test_frames_reach_the_network_in_order(
    autojump_clock: MockClock,
) -> None:
    near, far = streams()
    async with running(near) as engine_stream:
        engine_stream.frame_writer.write(b"a")
        engine_stream.frame_writer.write(b"b")
        await engine_stream.send_all(b"c")
        engine_stream.frame_writer.write(b"d")
        await engine_stream.frame_writer.flush()
        assert await far.receive_some(100) == b"abcd"
        await engine_stream.frame_writer.flush()


async def test_a_close_of_the_engine_is_swallowed(autojump_clock: MockClock) -> None:
    near, far = streams()
    async with running(near) as engine_stream:
        await engine_stream.send_all(b"pong")
        assert not engine_stream.engine_sent_close
        with trio.testing.assert_checkpoints():
            await engine_stream.send_all(CLOSE)
        assert engine_stream.engine_sent_close
        await engine_stream.frame_writer.flush()
        assert await far.receive_some(100) == b"pong"


async def test_after_the_last_frames_nothing_more_is_accepted(
    autojump_clock: MockClock,
) -> None:
    near, far = streams()
    async with running(near) as engine_stream:
        engine_stream.frame_writer.write(b"last", last=True)
        engine_stream.frame_writer.write(b"too late")
        await engine_stream.send_all(b"pong")
        await engine_stream.frame_writer.flush()
        assert await far.receive_some(100) == b"last"


async def test_a_cancellation_does_not_stop_a_pending_write(
    autojump_clock: MockClock,
) -> None:
    stream = Blocked()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            engine_stream = EngineStream(stream, nursery)
            engine_stream.frame_writer.write(b"a" * 1000)
            await trio.testing.wait_all_tasks_blocked()
            assert stream.sending == 1000
            nursery.cancel_scope.cancel()
            engine_stream.frame_writer.write(b"b" * 1000)
            stream.room.set()
            with trio.move_on_after(5, shield=True):
                await engine_stream.frame_writer.flush()
            engine_stream.frame_writer.stop()
    assert stream.taken == b"a" * 1000 + b"b" * 1000


async def test_a_cancelled_flush_leaves_the_frames_queued(
    autojump_clock: MockClock,
) -> None:
    stream = Blocked()
    async with running(stream) as engine_stream:
        engine_stream.frame_writer.write(b"a")
        with trio.move_on_after(1) as scope:
            await engine_stream.frame_writer.flush()
        assert scope.cancelled_caught
        stream.room.set()
        await engine_stream.frame_writer.flush()
        assert stream.taken == b"a"


async def test_a_broken_network_raises_in_all_waiting_tasks(
    autojump_clock: MockClock,
) -> None:
    near, far = streams()
    async with running(near) as engine_stream:
        await far.aclose()
        engine_stream.frame_writer.write(b"a")
        with pytest.raises(trio.BrokenResourceError):
            await engine_stream.frame_writer.flush()
        await engine_stream.send_all(
            b"pong"
        )  # trio-websocket gets the error by reading.
        engine_stream.frame_writer.write(b"never blocks")


async def test_a_stopped_stream_does_not_block(
    autojump_clock: MockClock,
) -> None:
    stream = Blocked()
    async with running(stream) as engine_stream:
        engine_stream.frame_writer.write(b"x" * 2**19)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:

            async def flush() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await engine_stream.frame_writer.flush()

            nursery.start_soon(flush)
            nursery.start_soon(flush)
            await trio.testing.wait_all_tasks_blocked()
            engine_stream.frame_writer.stop()


async def test_the_response_is_sent_before_the_frames_that_came_early(
    autojump_clock: MockClock,
) -> None:
    near, far = streams()
    await far.send_all(b"more")
    async with running(near, request=b"request", received=b"received") as engine_stream:
        with trio.testing.assert_checkpoints():
            assert await engine_stream.receive_some(100) == b"request"
        with trio.move_on_after(1) as scope:
            await engine_stream.receive_some(100)
        assert scope.cancelled_caught, "the frames wait for the 101"
        await engine_stream.send_all(b"101")
        assert await engine_stream.receive_some(100) == b"received"
        assert await engine_stream.receive_some(100) == b"more"
        await far.aclose()
        assert await engine_stream.receive_some(100) == b""


async def test_reading_from_a_broken_network_ends(
    autojump_clock: MockClock,
) -> None:
    near, _ = streams()
    async with running(near) as engine_stream:
        await near.aclose()
        assert await engine_stream.receive_some(10) == b""
        await engine_stream.wait_gone()


async def test_the_engine_cannot_close_the_network(autojump_clock: MockClock) -> None:
    near, far = streams()
    async with running(near) as engine_stream:
        await engine_stream.wait_send_all_might_not_block()
        with trio.testing.assert_checkpoints():
            await engine_stream.aclose()
        engine_stream.frame_writer.write(b"still here")
        assert await far.receive_some(100) == b"still here"


async def test_wait_gone_discards_until_the_end(autojump_clock: MockClock) -> None:
    near, far = streams()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(60):
            nursery.start_soon(EngineStream(near, nursery).wait_gone)
            await far.send_all(bytes(2**20))
            await trio.testing.wait_all_tasks_blocked()
            await far.aclose()


async def test_linger_ends_its_direction_and_waits_for_the_peer(
    autojump_clock: MockClock,
) -> None:
    near, far = streams()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(60):
            nursery.start_soon(linger, near)
            assert await far.receive_some(10) == b""
            await far.send_all(b"unread")
            await far.aclose()
        await near.aclose()


async def test_linger_works_on_a_network_without_half_close(
    autojump_clock: MockClock,
) -> None:
    stream = Blocked()
    with trio.move_on_after(1) as scope:
        await linger(stream)
    assert scope.cancelled_caught


async def test_linger_on_a_broken_network_returns(autojump_clock: MockClock) -> None:
    near, far = streams()
    with trio.fail_after(60):
        await near.aclose()
        await linger(near)
        await far.aclose()
