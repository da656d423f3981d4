"""`couple()`: a half on one side, a connection on the other, and the pumps between.

Knows the `Connection` protocol and halves, no network and no trio-websocket. What
the wire says is passed to the other half of the pair and back, Closes included;
only when one side fails is something said here. The pumps are a `Reader` and a
`Writer`; how long they wait for the peer is up to their `Patience`, and what is known
of all that is in a `Conversation`. Here is how they begin, and what comes after them.
"""

import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._pair.verbs import home_of
from trio_wspair._pair.websocket import CloseEvent, WebSocket
from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ConnectionClosedError
from trio_wspair._rules.limits import Limits
from trio_wspair._rules.state import Failure, Operation, check_thread
from trio_wspair._tasks.nurseries import let_others_clean_up
from trio_wspair._tasks.timers import Alarms

from ._connection import Connection, extensions_of
from ._conversation import Conversation
from ._patience import Patience
from ._reader import Reader
from ._writer import Writer

__all__ = ("Coupling", "couple")


async def couple(
    half: WebSocket,
    connection: Connection,
    *,
    close_grace: float = 5.0,
    receive_buffer_bytes: int = 2**20,
    ping_interval: float = 20.0,
    ping_timeout: float = 20.0,
) -> CloseEvent:
    """Join a half with a connection, until both have closed or one has failed.

    What arrives is sent to the other half of the pair, and what that half sends goes
    out. The connection is always ended in the end. Cancelled, it says Close 1001
    after what was sent before, and waits `close_grace` seconds for the answer.

    Always a checkpoint.

    Args:
        half: A half that nobody has accepted.
        connection: An open connection.
        close_grace: Seconds for the closing handshake, from our Close on.
        receive_buffer_bytes: Reading stops while the other half has so much that it
            has not taken.

        ping_interval: Seconds between two pings (RFC 6455, section 5.5.2), where the
            connection has them; `math.inf` for none.
        ping_timeout: Seconds in which something has to be heard after a ping, or the
            connection has failed. A pause in reading doesn't count.

    Returns:
        How the connection ended.

    Raises:
        InvalidStateError: The half was taken before, or its Trio run is in another
            thread.
        TypeError: An argument is of another type.
        ValueError: An argument is out of range.
    """
    limits = Limits(
        close_grace=close_grace,
        receive_buffer_bytes=receive_buffer_bytes,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
    )
    return await Coupling(half, limits).run(connection)


class Coupling:
    """A half that was given to a connection, which may still be on its way.

    Raises:
        InvalidStateError: The half was taken before, or its Trio run is in another
            thread.
    """

    def __init__(self, socket: WebSocket, limits: Limits) -> None:
        check_thread(home_of(socket).thread, "Giving this half to a connection")
        self.conversation = Conversation(socket)
        self.half = self.conversation.half
        self._limits = limits
        self.half.state.take(Operation.COUPLE)

    # None of these tasks runs the user's code: Ctrl-C is for those that do.

    @enable_ki_protection
    async def run(
        self, connection: Connection, alarms: Alarms | None = None
    ) -> CloseEvent:
        """Pump until both sides have closed or one has failed; see `couple()`.

        Without `alarms` it keeps its own.
        """
        conversation = self.conversation
        patience = Patience(conversation, connection, self._limits)
        writer = Writer(conversation, connection, patience)
        reader = Reader(conversation, connection, self._limits, patience, writer)
        self.half.link.extensions = extensions_of(connection)
        finished = False
        try:
            async with trio.open_nursery() as nursery:
                if alarms is None:
                    alarms = Alarms()
                    nursery.start_soon(alarms.run)
                patience.start(nursery, alarms)
                writer.start(nursery)
                try:
                    await reader.read()
                finally:
                    writer.stop()
                    patience.stop()
                nursery.cancel_scope.cancel(reason="the connection has ended")
            finished = True
        finally:  # Bounded by the grace, twice.
            await let_others_clean_up()  # noqa: ASYNC102 - shielded, two steps
            try:
                if not finished:
                    await self._say_goodbye(patience.deadline, writer, reader)  # noqa: ASYNC102 - shielded
            finally:
                await self._end(connection)  # noqa: ASYNC102 - shielded
        return conversation.close_event()

    def stop(self, code: int, reason: str) -> None:
        """Say Close, after what is queued, as if the other half had."""
        self.half.inbox.put_end(Close(code, reason))

    # -- after the pumps ----------------------------------------------------------

    async def _say_goodbye(
        self, deadline: float, writer: Writer, reader: Reader
    ) -> None:
        """Send what is queued and a Close, if there was none, and hear the answer."""
        conversation = self.conversation
        half = self.half
        end = min(deadline, trio.current_time() + self._limits.close_grace)
        with trio.CancelScope(deadline=end, shield=True):
            if conversation.failure is None and half.state.close_received is None:
                said = half.inbox.end
                close = said if isinstance(said, Close) else Close(1001)
                try:
                    await writer.send_rest(close)
                except ConnectionClosedError:
                    return
            if conversation.failure is None and conversation.heard is None:
                await reader.read()

    async def _end(self, connection: Connection) -> None:
        """End the connection, so that what was sent last arrives if it can."""
        half = self.half
        breach = self.conversation.breach
        try:
            with trio.move_on_after(self._limits.close_grace, shield=True):
                if breach is not None:
                    await connection.aclose(breach.code, breach.args[1])
                elif half.state.closed and not half.inbox.lost:
                    await connection.aclose(1000, "")
        finally:
            connection.abort()
            half.outbox.put_end(Failure("the connection was aborted"))
            half.fail(Failure("the connection has ended"))
            if self.conversation.clean:  # Our Close was answered: all has arrived.
                half.inbox.release_all()
            half.inbox.close()
            half.release()
            half.outbox.wake_consumer()  # A half-open one needn't say Close any more.
