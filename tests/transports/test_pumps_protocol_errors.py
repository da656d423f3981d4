"""A peer that breaks the protocol: what came before is answered, then 1002 is told."""

from contextlib import suppress

import pytest
from network import OneEnd

from trio_wspair import ConnectionClosedError, MessageEvent

RESERVED = 3
"""An opcode that nobody may use."""


async def test_what_came_before_a_breach_of_the_protocol_is_answered(
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


@pytest.mark.parametrize("time", range(5))  # It was a race.
async def test_g4_a_close_after_a_breach_of_the_protocol_does_not_hide_it(
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


async def test_g12_a_puller_that_does_not_pull_does_not_keep_a_breach_secret(
    one_end: OneEnd,
) -> None:
    async with one_end(close_grace=0.2) as (half, peer):
        half.accept(pull=True)
        await peer.send(peer.text_frame("good"), peer.frame(RESERVED))
        said = await peer.receive()
        assert isinstance(said, tuple)
        assert said[0] == 1002
