"""`replay()`: the client's part of a recorded conversation, played again.

Knows what a record contains, and what a test client can do. Times and tasks are
ignored.
"""

from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from os import PathLike
from pathlib import Path
from typing import Final, Protocol, Unpack

import attrs
import trio

from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.errors import WebSocketError
from trio_wspair._server.application import Application

from ._client import open_test_client
from ._entries import Entry, What
from ._record import ConversationError, Record
from ._recorded import DEFAULT_WITHIN, RecordedWebSocket
from ._requests import ReplayOptions, Transport, check_options

__all__ = ("GoldenRecord", "replay", "replay_file")

_MIRRORED: Final[dict[What, What]] = {
    "send": "receive",
    "receive": "send",
    "close": "closed",
    "closed": "close",
}


class GoldenRecord(Protocol):
    """The type of the fixture `golden_record`."""

    async def __call__(
        self,
        app: Application,
        name: str,
        path: str = "/",
        **options: Unpack[ReplayOptions],
    ) -> None:
        """Check an application against a file; see `replay_file()`."""
        ...


async def replay(
    record: Record,
    app: Application,
    path: str = "/",
    *,
    over: Transport = "memory",
    **options: Unpack[ReplayOptions],
) -> Record:
    """Play the client's part of a recorded conversation, and check the handler's part.

    A test client sends and closes as the first half of the record did: each time as
    soon as it has received what that half had received before. The handler has to send
    the same messages in the same order, and to close with the same code and reason.
    Times are not compared.

    The record may have only the server's half, such as one from ``with
    use_instrument(record): await serve(...)``. If it ends before the close, only the
    recorded part is checked.

    Args:
        record: A correct conversation. It doesn't contain the handshake.
        app: The handler or another application, as for `serve()`.
        path: As for `open_test_client()`.
        over: As for `open_test_client()`.
        options: As for `open_test_client()`.

    Returns:
        The new record.

    Raises:
        ConversationError: The handler sends something else. The text shows both
            conversations.
        HandshakeError: As from `open_test_client()`.
        Exception: An exception of the handler, as from `open_test_client()`.
    """
    check_options("replay", options, ReplayOptions)
    names = record.names
    async with open_test_client(app, path, over=over, names=names, **options) as client:
        try:
            for entry in _part_of_client(record):
                await _play(entry, client)
        except ConversationError as exc:
            exc.add_note(f"\nThe recorded conversation is:\n\n{record}")
            raise
    return client.record


async def replay_file(
    file: str | PathLike[str],
    app: Application,
    path: str = "/",
    *,
    over: Transport = "memory",
    update: bool = False,
    **options: Unpack[ReplayOptions],
) -> None:
    """Play a conversation from a file with the text of `Record.to_json()`.

    Make the file once from a correct conversation, with a test client::

        Path("greeting.json").write_text(client.record.to_json(), encoding="utf-8")

    Args:
        file: The file.
        app: As for `replay()`.
        path: As for `replay()`.
        over: As for `replay()`.
        update: Don't check the handler, but write the file again if the handler sends
            something else.
        options: As for `replay()`.

    Raises:
        FileNotFoundError: The file doesn't exist.
        ValueError: The file doesn't contain a record.
        ConversationError: As from `replay()`; or, with `update`, the new conversation
            has ended with 1006.
        Exception: Other exceptions, as from `replay()`.
    """
    check_options("replay_file", options, ReplayOptions)
    where = Path(file)
    record = _read(where)
    if not update:
        await replay(record, app, path, over=over, **options)
        return
    check_options("replay", options, ReplayOptions)
    names = record.names
    async with open_test_client(app, path, over=over, names=names, **options) as client:
        await _play_unchecked(record, client, options.get("within", DEFAULT_WITHIN))
    _check_end(client.record, record)
    if _part_of_client(client.record) != _part_of_client(record):
        _write(where, client.record)


def _check_end(new: Record, old: Record) -> None:
    """Check that a new conversation has not ended with 1006, unless the old one has.

    Raises:
        ConversationError: It has, so it is hardly a correct one.
    """
    ended = [e for e in new.entries if e.half == new.names[0] and e.code == 1006]
    if ended and not any(e.code == 1006 for e in old.entries):
        what = f"the conversation has ended with 1006, {ended[0].reason!r}"
        msg = f"{what}: the file was left as it is\n\n{new}"
        raise ConversationError(msg, new)


# Files are not read in a thread: a clock in virtual time would not wait for it.


def _read(file: Path) -> Record:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        msg = (
            f"the record {file} doesn't exist. Make it from a correct conversation: "
            "write the result of the test client's record.to_json() to this file"
        )
        raise FileNotFoundError(msg) from exc
    return Record.from_json(text)


def _write(file: Path, record: Record) -> None:
    file.write_text(record.to_json(), encoding="utf-8")


def _part_of_client(record: Record) -> list[Entry]:
    """Return the entries of the client, up to its end."""
    first, second = record.names
    handlers = [entry for entry in record.entries if entry.half == second]
    part = [entry for entry in record.entries if entry.half == first]
    part = [entry for entry in part or _mirrored(handlers) if entry.what != "accept"]
    ends = [number for number, entry in enumerate(part) if entry.what == "closed"]
    end = ends[0] if ends else len(part)
    received = sum(entry.what == "receive" for entry in part[:end])
    sent = [attrs.evolve(e, what="receive") for e in handlers if e.what == "send"]
    # Messages that the client has not taken were sent all the same: expect them, too.
    expected = (*part[:end], *sent[received:], *part[end : end + 1])
    return [_comparable(entry) for entry in expected]


def _mirrored(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries of the other half of a perfect connection."""
    # The other half receives nothing that comes after an unclean end.
    arrived = takewhile(lambda entry: entry.was_clean is not False, entries)
    return [
        attrs.evolve(entry, what=_MIRRORED[entry.what])
        for entry in arrived
        if entry.what != "accept"
    ]


def _comparable(entry: Entry) -> Entry:
    """Return an entry without the fields that differ from run to run."""
    reason = entry.reason if entry.code != 1006 else ""
    return Entry(0, "", entry.what, entry.message, entry.code, reason)


async def _play(entry: Entry, client: RecordedWebSocket) -> None:
    """Do what the client did, or expect what it received.

    Raises:
        ConversationError: It receives something else.
    """
    if entry.what == "receive":
        assert entry.message is not None
        await client.expect(entry.message)
    elif entry.what == "closed":
        reason = entry.reason if entry.code != 1006 else None
        await client.expect_close(entry.code, reason)
    else:
        _send(entry, client)


async def _play_unchecked(
    record: Record, client: RecordedWebSocket, within: float
) -> None:
    """Do what the client did, whatever it receives."""
    with suppress(WebSocketError):  # It may be closed earlier than before.
        for entry in _part_of_client(record):
            if entry.what in ("send", "close"):
                _send(entry, client)
                continue
            with trio.move_on_after(within):
                await client.receive()
                while entry.what == "closed":
                    await client.receive()


def _send(entry: Entry, client: WebSocket) -> None:
    if entry.message is not None:
        client.send(entry.message)
    elif entry.code == 1005:
        client.close()
    else:
        client.close(entry.code, entry.reason)
