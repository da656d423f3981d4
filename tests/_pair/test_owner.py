"""Owners: which halves end with a request, an object's instance or a nursery."""

import attrs
import pytest
import trio
from pairs import bounded
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_wspair import InvalidStateError, ReadyState, WebSocketPair
from trio_wspair._pair.dispatcher import NurseryHome
from trio_wspair._pair.owner import Owner
from trio_wspair._pair.verbs import move


def kept_owner(nursery: trio.Nursery) -> Owner:
    """Return the owner of a nursery, made as for a request."""
    owner = Owner(nursery)
    owner.keep()
    return owner


@bounded
async def test_an_untaken_half_that_was_given_ends_with_its_owner(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        owner = kept_owner(nursery)
        client, server = WebSocketPair(nursery)
        client.accept(pull=True)
        owner.give(server)
        owner.end()
        assert server.ready_state is ReadyState.CLOSED
        event = await client.wait_closed()
        assert (event.code, event.was_clean) == (1006, False)
        owner.forget()


@bounded
async def test_an_untaken_half_gets_a_close_that_came_before_its_owner_ended(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        owner = kept_owner(inner)
        client, server = WebSocketPair(outer)
        move(server, NurseryHome(inner, 1.0))
        client.accept(pull=True)
        owner.give(server)
        owner.end()
        event = await client.wait_closed()
        assert (event.code, event.was_clean) == (1001, True)
        owner.forget()


@bounded
async def test_a_half_that_was_moved_to_another_home_does_not_end_with_the_owner(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        owner = kept_owner(inner)
        client, server = WebSocketPair(outer)
        home = NurseryHome(inner, 1.0)
        move(server, home)
        owner.give(server)
        move(server, attrs.evolve(home, nursery=outer))
        owner.give(WebSocketPair(inner)[0])  # The owner no longer has the first half.
        owner.end()
        owner.forget()
        server.accept(pull=True)
        client.accept(pull=True)
        client.send("still there")
        assert await server.receive() == "still there"
        await client.aclose()


@bounded
async def test_a_half_that_joins_after_the_end_ends_with_the_next_call(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        owner = kept_owner(nursery)
        owner.end()
        _, late = WebSocketPair(nursery)
        owner.give(late)
        assert "OPEN" in repr(late)
        owner.end()
        assert "CLOSED" in repr(late)
        owner.forget()


@bounded
async def test_after_the_end_no_half_can_join_until_the_owner_is_forgotten(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        owner = kept_owner(nursery)
        client, server = WebSocketPair(nursery)
        client.accept()
        owner.end()
        await wait_all_tasks_blocked()
        with pytest.raises(InvalidStateError, match="going down"):
            server.accept()
        owner.forget()
        late, _ = WebSocketPair(nursery)
        late.accept()
        nursery.cancel_scope.cancel()


@bounded
async def test_an_owner_outlasts_its_dispatcher(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        owner = kept_owner(nursery)
        for _ in range(2):
            client, server = WebSocketPair(nursery)
            client.accept()
            server.accept()
            assert owner.dispatcher is not None
            client.close()
            await server.wait_closed()
            await wait_all_tasks_blocked()
            assert owner.dispatcher is None
            assert Owner.of(nursery) is owner
        owner.forget()
        assert Owner.of(nursery) is not owner
        Owner.of(nursery).forget()


@bounded
async def test_a_nursery_that_has_ended_takes_no_half_and_keeps_its_owner() -> None:
    async with trio.open_nursery() as nursery:
        owner = kept_owner(nursery)
        client, _ = WebSocketPair(nursery)
    with pytest.raises(InvalidStateError, match="nursery of this half has ended"):
        client.accept()
    assert Owner.of(nursery) is owner
    owner.forget()
