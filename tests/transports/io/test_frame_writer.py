"""`FrameWriter`, on sockets and on other streams."""

import os
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from trio_wspair.transports.io._frame_writer import FrameWriter
from trio_wspair.transports.io._sockets import SocketIO, StreamIO, network_io

MUCH = bytes(range(256)) * 2**14
"""More bytes than the buffers of a socket hold."""

Ends = tuple[trio.abc.Stream, trio.abc.Stream]


def sockets() -> Ends:
    near, far = (trio.socket.from_stdlib_socket(one) for one in socket.socketpair())
    return trio.SocketStream(near), trio.SocketStream(far)


def memory() -> Ends:
    return trio.testing.lockstep_stream_pair()


with_ends = pytest.mark.parametrize("join", [sockets, memory])
Join = Callable[[], Ends]


@asynccontextmanager
async def frame_writer(
    join: Join,
) -> AsyncGenerator[tuple[FrameWriter, trio.abc.Stream, trio.abc.Stream]]:
    """Give a frame writer, and the two ends of its network."""
    near, far = join()
    with trio.fail_after(5):
        async with near, far, trio.open_nursery() as nursery:
            frame_writer = FrameWriter(network_io(near), nursery)
            yield frame_writer, near, far
            frame_writer.stop()


async def read(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.receive_some()
    return data


async def test_a_socket_is_used_directly_and_other_streams_are_not() -> None:
    near, far = sockets()
    assert isinstance(near, trio.SocketStream)
    assert isinstance(far, trio.SocketStream)
    assert isinstance(network_io(near), SocketIO)
    assert isinstance(network_io(memory()[0]), StreamIO)
    await near.aclose()
    await far.aclose()


@with_ends
async def test_g1_large_and_small_frames_arrive_in_order(join: Join) -> None:
    async with frame_writer(join) as (out, _, far):
        out.write(b"little")
        out.write(MUCH)
        out.write(b"end", last=True)
        out.write(b"too late")
        size = len(MUCH) + 9
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.flush)
            assert await read(far, size) == b"little" + MUCH + b"end"
        with trio.move_on_after(0.01):
            assert await far.receive_some() == b""


@with_ends
async def test_g5_a_cancelled_flush_tears_no_frame(join: Join) -> None:
    async with frame_writer(join) as (out, _, far):
        with trio.move_on_after(0):
            out.write(MUCH)
            await out.flush()
        out.write(b"end")
        assert await read(far, len(MUCH) + 3) == MUCH + b"end"
        await out.flush()


@with_ends
async def test_g9_of_several_waiting_pongs_only_the_newest_is_sent(join: Join) -> None:
    async with frame_writer(join) as (out, _, far):
        out.write_pong(b"at once")
        out.write(MUCH)
        for number in range(1000):
            out.write_pong(b"pong %d" % number)
        out.write(b"more")
        expected = b"at once" + MUCH + b"more" + b"pong 999"
        assert await read(far, len(expected)) == expected
        await out.flush()
        out.write_pong(b"and another")
        assert await read(far, 11) == b"and another"


@with_ends
async def test_a_waiting_pong_is_sent_without_another_frame(join: Join) -> None:
    async with frame_writer(join) as (out, _, far):
        out.write(MUCH)
        await trio.testing.wait_all_tasks_blocked()
        out.write_pong(b"pong")
        assert await read(far, len(MUCH) + 4) == MUCH + b"pong"


@with_ends
async def test_no_pong_follows_the_last_frame(join: Join) -> None:
    async with frame_writer(join) as (out, near, far):
        out.write(MUCH)
        out.write_pong(b"pong")
        out.write(b"last", last=True)
        out.write_pong(b"pong")
        assert await read(far, len(MUCH) + 4) == MUCH + b"last"
        await out.flush()
        out.write_pong(b"pong")
        await near.aclose()
        assert await far.receive_some() == b""


@with_ends
async def test_flush_raises_when_the_peer_has_gone(join: Join) -> None:
    async with frame_writer(join) as (out, _, far):
        out.write(MUCH)
        async with trio.open_nursery() as nursery:

            async def flush() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await out.flush()

            nursery.start_soon(flush)
            await trio.testing.wait_all_tasks_blocked()
            await far.aclose()
        out.write(b"nothing happens")
        out.write_pong(b"nothing either")
        with pytest.raises(trio.BrokenResourceError):
            await out.flush()


async def test_a_socket_whose_peer_has_gone_raises_at_once() -> None:
    async with frame_writer(sockets) as (out, _, far):
        await far.aclose()
        out.write(b"not received")
        with pytest.raises(trio.BrokenResourceError):
            await out.flush()


@with_ends
async def test_a_stop_ends_waiting_flushes(join: Join) -> None:
    async with frame_writer(join) as (out, _, _far):
        out.write(MUCH)

        async def flush() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await out.flush()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            await trio.testing.wait_all_tasks_blocked()
            out.stop()


@with_ends
async def test_receive_returns_empty_bytes_at_every_kind_of_end(join: Join) -> None:
    async with frame_writer(join) as (_, near, far):
        port = network_io(near)
        await far.send_all(b"data") if join is sockets else None
        if join is sockets:
            assert await port.receive() == b"data"
        await far.aclose()
        assert await port.receive() == b""
        await near.aclose()
        assert await port.receive() == b""


async def test_after_a_spurious_wakeup_the_socket_is_waited_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fails = iter([True])

    def read(fd: int, size: int) -> bytes:
        if next(fails, False):
            raise BlockingIOError
        return b"data"

    async with frame_writer(sockets) as (_, near, far):
        await far.send_all(b"data")
        monkeypatch.setattr(os, "read", read)
        assert await network_io(near).receive() == b"data"
