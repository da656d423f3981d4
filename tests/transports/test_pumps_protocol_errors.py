"""A protocol error of the peer: earlier messages are answered, then 1002 is sent."""

from contextlib import suppress

import pytest
from network import OneEnd

from trio_wspair import ConnectionClosedError, MessageEvent

RESERVED = 3
"""A reserved opcode."""


async def test_messages_before_a_protocol_error_are_answered(
    one_end: OneEnd,
) -> None:
    async with one_end() as (half, peer):

        @half.on("message")
        async def echo(event: MessageEvent) -> None:
            half.send(event.data)
            await half.drain()

        half.accept()
        await peer.send(peer.text_frame("good"), peer.frame(RESERVED))
        assert await peer.receive() == "good"
        said = await peer.receive()
        assert isinstance(said, tuple)
        assert said[0] == 1002


@pytest.mark.parametrize("time", range(5))  # The order was a race once.
async def test_g4_a_close_after_a_protocol_error_does_not_hide_it(
    one_end: OneEnd, time: int
) -> None:
    async with one_end() as (half, peer):
        half.accept(pull=True)
        await peer.send(peer.text_frame("good"), peer.frame(RESERVED))
        with suppress(ConnectionClosedError):
            while True:
                half.send(await half.receive())
        half.close(1000)
        assert await peer.receive() == "good"
        said = await peer.receive()
        assert isinstance(said, tuple)
        assert said[0] == 1002


async def test_g12_a_protocol_error_reaches_the_peer_although_the_puller_does_not_pull(
    one_end: OneEnd,
) -> None:
    async with one_end(close_grace=0.2) as (half, peer):
        half.accept(pull=True)
        await peer.send(peer.text_frame("good"), peer.frame(RESERVED))
        said = await peer.receive()
        assert isinstance(said, tuple)
        assert said[0] == 1002
