"""`replay()`: the client's part of a recorded conversation, played once more.

Knows what a record says about both halves, and what a test client can do; times and
tasks don't matter.
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
    """What the fixture `golden_record` is."""

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
    """Play the client's part of a recorded conversation, and check what is answered.

    A test client sends and closes as the first half of the record did: each time as
    soon as it has received what that half had received before. The handler has to say
    the same messages in the same order, and to close with the same code and reason.
    When it says them does not matter, nor how long a client of it had to wait.

    A record of the server's side alone will do, such as one from ``with
    use_instrument(record): await serve(...)``. One that ends before the close is
    checked as far as it goes.

    Args:
        record: What was said when it was right. Of the handshake it knows nothing.
        app: The handler or another application, as for `serve()`.
        path: As for `open_test_client()`.
        over: As there.
        options: As there.

    Returns:
        The new record.

    Raises:
        ConversationError: The handler says something else. The text shows both
            conversations.
        HandshakeError: As from `open_test_client()`, and what the handler raises.
    """
    check_options("replay", options, ReplayOptions)
    names = record.names
    async with open_test_client(app, path, over=over, names=names, **options) as client:
        try:
            for entry in _part_of_client(record):
                await _play(entry, client)
        except ConversationError as exc:
            exc.add_note(f"\nThe record says:\n\n{record}")
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
    """Play a conversation from a file that `Record.to_json()` has written.

    The file of a conversation that is right is made once, with a test client::

        Path("greeting.json").write_text(client.record.to_json(), encoding="utf-8")

    Args:
        file: The file.
        app: As for `replay()`.
        path: As there.
        over: As there.
        update: Take what the handler says now as right: write the file anew if it
            says something else.
        options: As for `replay()`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no record.
        ConversationError: As from `replay()`, which also raises the rest; or what
            would be written has ended with 1006.
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
        await _play_freely(record, client, options.get("within", DEFAULT_WITHIN))
    _check_end(client.record, record)
    if _part_of_client(client.record) != _part_of_client(record):
        _write(where, client.record)


def _check_end(new: Record, old: Record) -> None:
    """Check that a new record has not ended badly, unless the old one has, too.

    Raises:
        ConversationError: It has: that is hardly what is right now.
    """
    ended = [e for e in new.entries if e.half == new.names[0] and e.code == 1006]
    if ended and not any(e.code == 1006 for e in old.entries):
        what = f"the conversation has ended with 1006, {ended[0].reason!r}"
        raise ConversationError(f"{what}: it was not written\n\n{new}", new)


# Not in a thread: virtual time would not wait for it.


def _read(file: Path) -> Record:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        msg = (
            f"there is no record of a conversation in {file}. Make it from one that "
            "is right: write what the test client's record.to_json() returns there"
        )
        raise FileNotFoundError(msg) from exc
    return Record.from_json(text)


def _write(file: Path, record: Record) -> None:
    file.write_text(record.to_json(), encoding="utf-8")


def _part_of_client(record: Record) -> list[Entry]:
    """Return what the client has done and heard, up to its end."""
    first, second = record.names
    theirs = [entry for entry in record.entries if entry.half == second]
    part = [entry for entry in record.entries if entry.half == first]
    part = [entry for entry in part or _mirrored(theirs) if entry.what != "accept"]
    ends = [number for number, entry in enumerate(part) if entry.what == "closed"]
    end = ends[0] if ends else len(part)
    heard = sum(entry.what == "receive" for entry in part[:end])
    sent = [attrs.evolve(e, what="receive") for e in theirs if e.what == "send"]
    # What it was sent and has not taken was said all the same.
    return [
        _essence(entry) for entry in (*part[:end], *sent[heard:], *part[end : end + 1])
    ]


def _mirrored(entries: Sequence[Entry]) -> list[Entry]:
    """Return what the other side of a good connection has done and heard."""
    # Of what comes after an abnormal end, the other side does not hear.
    heard = takewhile(lambda entry: entry.was_clean is not False, entries)
    return [
        attrs.evolve(entry, what=_MIRRORED[entry.what])
        for entry in heard
        if entry.what != "accept"
    ]


def _essence(entry: Entry) -> Entry:
    """Return an entry without what may be different the next time."""
    reason = entry.reason if entry.code != 1006 else ""
    return Entry(0, "", entry.what, entry.message, entry.code, reason)


async def _play(entry: Entry, client: RecordedWebSocket) -> None:
    """Do what the client has done, or hear what it has heard.

    Raises:
        ConversationError: Something else is heard.
    """
    if entry.what == "receive":
        assert entry.message is not None
        await client.expect(entry.message)
    elif entry.what == "closed":
        reason = entry.reason if entry.code != 1006 else None
        await client.expect_close(entry.code, reason)
    else:
        _say(entry, client)


async def _play_freely(
    record: Record, client: RecordedWebSocket, within: float
) -> None:
    """Do what the client has done, whatever is heard meanwhile."""
    with suppress(WebSocketError):  # It may end at another place than before.
        for entry in _part_of_client(record):
            if entry.what in ("send", "close"):
                _say(entry, client)
                continue
            with trio.move_on_after(within):
                await client.receive()
                while entry.what == "closed":
                    await client.receive()


def _say(entry: Entry, client: WebSocket) -> None:
    if entry.message is not None:
        client.send(entry.message)
    elif entry.code == 1005:
        client.close()
    else:
        client.close(entry.code, entry.reason)
