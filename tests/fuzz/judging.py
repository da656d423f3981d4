"""Checks the rules for a connection that has ended, by its bytes and its events."""

import re

from fuzz.applications import LAST_MESSAGE, OWN_CODE, Observed
from fuzz.case import GOOD_ANSWER, GOOD_REQUEST, Case, Seen, with_accept
from fuzz.reference import Broken, Clean, End, Expected, Vanished, expected
from trio_wspair import CloseEvent, ErrorEvent, ProtocolError
from trio_wspair.testing._scripted_peer import Said, accept_key, read_frame

STATUSES = {101, 400, 408, 426, 431, 501, 505}
"""The statuses that a server may send; `_server/test_serving.py` tests when."""
ANSWER = re.compile(
    rb"HTTP/1\.1 (\d{3}) [ -~]*\r\n((?:[!#-'*+.0-9A-Z^-z|~-]+: [ -~]*\r\n)*)\r\n"
)
END_OF_HEAD = re.compile(rb"\n\r?\n")
INTERIM = re.compile(rb"(HTTP/1\.1 1(?!01)\d\d [ -~]*\r\n(X: [ -~]*\r\n)*\r\n)*")
"""The interim responses before the response to a client."""
MAX_REQUEST, MAX_ANSWER = 2**15, 2**16
"""The most bytes of a head."""


def judge_server(case: Case, seen: Seen) -> str:
    """Check what a server has done; return the name of the outcome.

    Raises:
        AssertionError: The server has broken a rule.
    """
    if not seen.sent:
        assert case.ending != "silence", "no answer, not even 408 after the timeout"
        request = seen.received.lstrip(b"\r\n")
        complete = END_OF_HEAD.search(request) is not None
        assert not complete or case.ending == "reset", "no answer to a request"
        return "no answer"
    answer = ANSWER.match(seen.sent)
    assert answer is not None, f"the response is not HTTP: {seen.sent[:200]!r}"
    rest = seen.sent[answer.end() :]
    if answer[1] == b"101":
        accept = header(answer, b"Sec-WebSocket-Accept").decode()
        keys = re.findall(rb"[A-Za-z0-9+/]{22}==", seen.received)
        assert accept in [accept_key(key.decode()) for key in keys], "a wrong key"
        lines = len(seen.received) - len(seen.received.lstrip(b"\r\n"))
        start = END_OF_HEAD.search(seen.received, lines)  # RFC 9112, section 2.2.
        assert start is not None, "101 to an invalid head"
        assert start.end() - lines <= MAX_REQUEST, "a head that is too large"
        return judge_frames(case, seen, seen.received[start.end() :], rest)
    assert not seen.hung_up, "a useless connection is kept"
    assert int(answer[1]) in STATUSES, f"status {answer[1]!r}"
    assert not seen.received.startswith(GOOD_REQUEST), "a good request is refused"
    assert not seen.observed, "a half, but no 101"
    assert header(answer, b"Connection").startswith(b"close"), "it doesn't close"
    length = int(header(answer, b"Content-Length"))
    request = seen.received.lstrip(b"\r\n")
    if request.startswith(b"HEAD ") and END_OF_HEAD.search(request):
        length = 0  # RFC 9110, section 9.3.2
    assert len(rest) == length, f"a body of {len(rest)} bytes, not of {length}"
    return f"status {int(answer[1])}"


def header(answer: re.Match[bytes], name: bytes) -> bytes:
    """Return the value of a header; check that it occurs exactly once."""
    values = re.findall(rb"(?i)(?:^|\n)%s: (.*)\r\n" % name, answer[2])
    assert len(values) == 1, f"{name!r} occurs {len(values)} times"
    value: bytes = values[0]
    return value


def judge_client(case: Case, seen: Seen) -> str:
    """Check what a client has done; return the name of the outcome.

    Raises:
        AssertionError: The client has broken a rule.
    """
    if not seen.sent:
        assert case.ending == "reset", "no request"
        assert seen.refusal is not None, "a WebSocket without a request"
        return "no request"
    request, end, rest = seen.sent.partition(b"\r\n\r\n")
    assert request.startswith(b"GET / HTTP/1.1\r\n"), "an odd request"
    assert end, "half a request"
    if seen.refusal is None:
        head, frames = head_and_frames(seen.received)
        accept = with_accept(GOOD_ANSWER, request + end).split()[-1]
        assert accept in head, "a WebSocket without the right key"
        assert len(head) <= MAX_ANSWER, "a head that is too large"
        return judge_frames(case, seen, frames, rest)
    assert not seen.hung_up, "a useless connection is kept"
    assert str(seen.refusal), "no reason"
    assert not seen.observed, "a half, but no WebSocket"
    assert not rest, "frames are sent without a WebSocket"
    good = with_accept(GOOD_ANSWER, request + end)
    answer = INTERIM.sub(b"", seen.received, count=1)
    assert not answer.startswith(good), f"a good answer: {seen.refusal}"
    return f"refused, status {seen.refusal.status}"


def head_and_frames(data: bytes) -> tuple[bytes, bytes]:
    """Return the head of the 101, after interim responses, and the bytes after it."""
    while (end := END_OF_HEAD.search(data)) is not None:
        head, data = data[: end.end()], data[end.end() :]
        if re.match(rb"HTTP/\d\.\d 101\b", head):
            return head, data
    msg = "a WebSocket without a 101"
    raise AssertionError(msg)


# -- after the handshake --------------------------------------------------------


def judge_frames(case: Case, seen: Seen, received: bytes, sent: bytes) -> str:
    """Check the conversation after a handshake."""
    is_server = case.side == "server"
    wanted = expected(received, masked=is_server, limit=case.limit)
    said, rest = read_frames(sent, masked=not is_server)
    assert not rest or case.ending == "reset", f"torn: {rest[:40]!r}"
    closes = [code for one in said if (code := close_code(one)) is not None]
    (observed,) = seen.observed
    end = judge_events(case, observed, wanted, closes)
    assert end in wanted.ends, f"it has ended with {end}, not {wanted.ends}"
    assert not seen.hung_up or end == Vanished(), "a useless connection is kept"
    judge_sent(case, said, wanted, end)
    assert closes in closes_for(case, wanted, end), f"{closes} is sent after {end}"
    return f"{type(end).__name__} {getattr(end, 'code', '')}".strip().lower()


def read_frames(data: bytes, *, masked: bool) -> tuple[list[Said], bytes]:
    """Return the contents of the whole frames, and the remaining bytes."""
    said: list[Said] = []
    while (found := read_frame(data, masked=masked)) is not None:
        said.append(found[0])
        data = data[found[1] :]
    return said, data


def close_code(said: Said) -> int | None:
    """Return the code of a Close, `None` for anything else."""
    return said[0] if isinstance(said, tuple) and isinstance(said[0], int) else None


def judge_events(
    case: Case, observed: Observed, wanted: Expected, closes: list[int]
) -> End:
    """Check the events: messages, at most one error, one close; return the end."""
    heard = list(observed.heard)
    assert heard, "no close event"
    closed = heard.pop()
    assert isinstance(closed, CloseEvent), f"the last event is not a close: {closed!r}"
    error = heard.pop() if heard and isinstance(heard[-1], ErrorEvent) else None
    assert heard == wanted.messages, f"got {heard!r}, not {wanted.messages!r}"
    if case.application == "puller":
        quiet = closed.code in {1000, 1001, 1005}
        assert observed.raised == ([] if quiet else [closed.code]), "wrong iteration"
    if closed.was_clean:
        assert error is None, f"an error, and a clean close: {error!r}"
        return Clean(closed.code, closed.reason)
    assert closed.code == 1006, f"{closed.code} is not clean"
    if case.application == "puller":  # A puller gets no error event.
        # After a reset, the peer gets no Close, so nothing shows why it ended.
        if case.ending == "reset" and not closes:
            return next(end for end in wanted.ends if not isinstance(end, Clean))
        return Broken(closes[0]) if closes else Vanished()
    if isinstance(error, ErrorEvent) and isinstance(error.error, ProtocolError):
        return Broken(error.error.code)
    if isinstance(error, ErrorEvent):
        assert isinstance(error.error, TimeoutError), f"an unexpected error: {error!r}"
        waits = case.application == "closer" and case.ending == "silence"
        assert waits, f"a timeout without a silent peer: {error!r}"
    return Vanished()


def judge_sent(case: Case, said: list[Said], wanted: Expected, end: End) -> None:
    """Check that the frames sent are whole, in order, and end with the Close."""
    echoes = [one for one in said if isinstance(one, (str, bytes))]
    pongs = [one[1] for one in said if isinstance(one, tuple) and one[0] == "pong"]
    right = list(wanted.messages) if case.application != "closer" else []
    if case.application == "half-open" and isinstance(end, Clean):
        right.append(LAST_MESSAGE)
    assert echoes == right[: len(echoes)], f"sent {echoes!r}, not {right!r}"
    if end == Broken(1009):  # More pings may be answered before the limit is noticed.
        pongs = pongs[: len(wanted.pings)]
    assert pongs == wanted.pings[: len(pongs)], f"{pongs!r} for {wanted.pings!r}"
    if not isinstance(end, Vanished) and case.ending != "reset":
        assert len(echoes) == len(right), f"sent only {echoes!r} of {right!r}"
        all_pongs = len(pongs) >= wanted.sure_pings
        assert all_pongs or case.application == "closer", "a ping without its pong"
    assert all(close_code(one) is None for one in said[:-1]), f"after a Close: {said}"


def closes_for(case: Case, wanted: Expected, end: End) -> list[list[int]]:
    """Return the Closes that our side may send, as lists of their codes."""
    closes_first = case.application == "closer" and wanted.messages
    if isinstance(end, Clean):
        own = closes_first or case.application == "half-open"
        right = [[OWN_CODE]] if own else [[end.code]]
    else:  # The peer's error may be noticed before or after our Close.
        right = [[end.code] if isinstance(end, Broken) else []]
        right += [[OWN_CODE]] if closes_first else []
    if case.ending == "reset":
        right.append([])
    return right
