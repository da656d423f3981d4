"""The pump from a connection to its half.

Knows how to receive, and whom it wakes with what it passes on: what the other half
says to that is sent in the same task if it can be.
"""

from collections.abc import Sequence

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from trio_wspair._rules.codes import Close
from trio_wspair._rules.errors import ConnectionClosedError, ProtocolError
from trio_wspair._rules.limits import Limits
from trio_wspair._rules.messages import size_of
from trio_wspair._rules.state import Failure

from ._connection import Connection, Item, answers_close
from ._conversation import Conversation
from ._patience import Patience
from ._writer import Writer

__all__ = ("Reader",)


@attrs.define(slots=True, eq=False)
class Reader:
    """Passes on what arrives."""

    _conversation: Conversation
    _connection: Connection
    _limits: Limits
    _patience: Patience
    _writer: Writer

    @enable_ki_protection
    async def read(self) -> None:
        """Pass on what arrives, until nothing more can."""
        conversation = self._conversation
        half = conversation.half
        writer = self._writer
        grace = self._limits.close_grace
        try:
            while True:
                self._pass_on(await self._connection.receive())
                if conversation.heard is not None and writer.ends_without_task():
                    await writer.write()
                else:
                    writer.send_now()
                if conversation.heard is not None and half.state.closed:
                    return
                if half.outbox.weight > self._limits.receive_buffer_bytes:
                    await self._wait_for_room()
        except ConnectionClosedError as exc:
            conversation.fail(Failure(exc.reason))
            if conversation.heard is not None:
                # It may still listen: the other half has some time to answer.
                with trio.move_on_after(grace):
                    await writer.written.wait()
        except ProtocolError as exc:
            # Its traceback would hold us in a cycle, until the collector comes.
            conversation.fail(Failure(str(exc), exc.with_traceback(None)))
            with trio.move_on_after(grace):
                await self._wait_for_answers()

    def _pass_on(self, items: Sequence[Item]) -> None:
        """Let the other half take these, and send what it says to that.

        All of it in this task if it can be done without waiting: a task switch takes
        longer than most listeners.
        """
        half = self._conversation.half
        received = self._conversation.received
        dispatcher = half.outbox.dispatcher
        self._writer.corked = True
        if dispatcher is not None:
            dispatcher.cork()
        for item in items:
            if isinstance(item, Close):
                self._hear(item)
            else:
                size = size_of(item)
                received.messages += 1
                received.bytes += size
                half.deliver(item, size)
        if dispatcher is not None:
            dispatcher.uncork()
        self._writer.corked = False

    def _hear(self, close: Close) -> None:
        """Pass the peer's Close on."""
        half = self._conversation.half
        self._conversation.heard = close
        self._patience.forget_pings()
        if answers_close(self._connection):
            half.peer.end_half_open()
        if half.inbox.late:
            # The other half did not know of our Close, in Coupling.stop().
            self._conversation.fail(Failure("what was sent last came too late"))
        half.send_close(close)

    async def _wait_for_answers(self) -> None:
        """Wait until the other half has heard all, and what it said to that is sent.

        What came before a breach of the protocol was good, and may be answered.
        """
        half = self._conversation.half
        inbox = half.inbox
        while not self._writer.failed and (inbox.weight or not half.peer.closed):
            await inbox.wait_progress()

    async def _wait_for_room(self) -> None:
        outbox = self._conversation.half.outbox
        limit = self._limits.receive_buffer_bytes
        self._patience.pause()
        while outbox.weight > limit and not self._writer.failed:
            await outbox.wait_progress()
        self._patience.resume()
