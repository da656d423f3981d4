"""`couple()`: joins a half with a connection.

Knows the `Connection` protocol and halves; no network and no engine.

Theory of operation: `Coupling.run()` starts two pumps. The `Reader` delivers what
arrives on the connection to the other half of the pair; it runs in the task that called
`run()`. The `Writer` sends what the other half sends, in the task of the sender or in a
task of the nursery of `run()`. Both pass Closes on unchanged. `PeerTimeouts` limits the
time that the pumps wait for the peer, and `Conversation` holds the facts that all three
share.

The reader returns when both sides have closed or the connection has failed. It is
cancelled when the writer has sent the second of the two Closes, when the peer exceeds
a timeout, or when the caller is cancelled. After a cancellation of the caller, `run()`
sends the messages that are still queued and a Close, and waits for the answer. At last
it always ends the connection. Everything after the pumps is shielded from cancellation,
and `close_grace` limits its time.
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
from trio_wspair._tasks.timers import Timers

from ._connection import Connection, extensions_of
from ._conversation import Conversation, PeerTimeouts
from ._pumps import Reader, Writer

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
    """Join a half with a connection, until both sides have closed or one has failed.

    What arrives is delivered to the other half of the pair, and what that half sends
    goes to the network. The connection has always ended when `couple()` returns. When
    cancelled, `couple()` sends what is queued and Close 1001, and waits up to
    `close_grace` seconds for the answer.

    Always a checkpoint.

    Args:
        half: A half that has not been accepted.
        connection: An open connection.
        close_grace: Seconds for the closing handshake, counted from the Close that
            the other half sends.
        receive_buffer_bytes: Reading stops while the queue of the other half holds more
            bytes than this.
        ping_interval: Seconds between two pings (RFC 6455, section 5.5.2), if the
            connection supports pings; `math.inf` for none.
        ping_timeout: The connection fails if the peer sends nothing for this many
            seconds after a ping. Time in which reading is stopped does not count.

    Returns:
        The close event that says how the connection has ended.

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
    """A half that was given to a connection. The connection may not be open yet.

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

    # KeyboardInterrupt must not interrupt a pump. It can interrupt the listeners that
    # run in the reader's task: `Dispatcher.uncork()` lets it through.

    @enable_ki_protection
    async def run(
        self, connection: Connection, timers: Timers | None = None
    ) -> CloseEvent:
        """Run the pumps until both sides have closed or one has failed.

        See `couple()`. `timers` makes the calls of the timeouts; if it is `None`, a
        task of this coupling does that.
        """
        conversation = self.conversation
        timeouts = PeerTimeouts(conversation, connection, self._limits)
        writer = Writer(conversation, connection, timeouts)
        reader = Reader(conversation, connection, self._limits, timeouts, writer)
        self.half.link.extensions = extensions_of(connection)
        finished = False
        try:
            async with trio.open_nursery() as nursery:
                if timers is None:
                    timers = Timers()
                    nursery.start_soon(timers.run)
                timeouts.start(nursery, timers)
                writer.start(nursery)
                try:
                    await reader.read()
                finally:
                    writer.stop()
                    timeouts.stop()
                nursery.cancel_scope.cancel(reason="the connection has ended")
            finished = True
        finally:  # Takes at most twice the `close_grace`.
            await let_others_clean_up()  # noqa: ASYNC102 - shielded, two steps
            try:
                if not finished:
                    await self._close_after_pumps(timeouts.deadline, writer, reader)  # noqa: ASYNC102 - shielded
            finally:
                await self._end(connection)  # noqa: ASYNC102 - shielded
        return conversation.close_event()

    def stop(self, code: int, reason: str) -> None:
        """Send a Close after what is queued, as if the other half had sent it."""
        self.half.inbox.put_end(Close(code, reason))

    # -- after the pumps ----------------------------------------------------------

    async def _close_after_pumps(
        self, deadline: float, writer: Writer, reader: Reader
    ) -> None:
        """Send what is queued and a Close, then wait for the peer's Close.

        Does nothing after a failure, and sends no second Close.
        """
        conversation = self.conversation
        half = self.half
        end = min(deadline, trio.current_time() + self._limits.close_grace)
        with trio.CancelScope(deadline=end, shield=True):
            if conversation.failure is None and half.state.close_received is None:
                queued = half.inbox.end
                close = queued if isinstance(queued, Close) else Close(1001)
                try:
                    await writer.send_rest(close)
                except ConnectionClosedError:
                    return
            if conversation.failure is None and conversation.close_received is None:
                await reader.read()

    async def _end(self, connection: Connection) -> None:
        """End the connection, if possible in such a way that all messages arrive."""
        half = self.half
        error = self.conversation.protocol_error
        try:
            with trio.move_on_after(self._limits.close_grace, shield=True):
                if error is not None:
                    await connection.aclose(error.code, error.args[1])
                elif half.state.closed and not half.inbox.lost:
                    await connection.aclose(1000, "")
        finally:
            connection.abort()
            half.outbox.put_end(Failure("the connection was aborted"))
            half.fail(Failure("the connection has ended"))
            if self.conversation.clean:  # The peer has received all messages.
                half.inbox.release_all()
            half.inbox.close()
            half.release()
            # If the other half is half-open, it can end now, without sending a Close.
            half.outbox.wake_consumer()
