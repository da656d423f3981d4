"""The rules of `fuzz.judging` accept right results, and find wrong ones."""

from typing import Any

import pytest

from fuzz.applications import Observed
from fuzz.case import GOOD_ANSWER, GOOD_REQUEST, Case, Seen, with_accept
from fuzz.frames import MASK, Frame
from fuzz.judging import judge_client, judge_server
from trio_wspair import CloseEvent, ErrorEvent, HandshakeError, ProtocolError
from trio_wspair.testing._scripted_peer import (
    CLOSE,
    TEXT,
    UPGRADE,
    accept_key,
    head,
)

OPEN = head(
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Accept: {accept_key('dGhlIHNhbXBsZSBub25jZQ==')}",
    start="HTTP/1.1 101 Switching Protocols",
)
CLOSED = CloseEvent(1000, "", was_clean=True)
BROKEN = ErrorEvent("", ProtocolError(1002, "no"))
HI, BYE = b"\x81\x02hi", b"\x88\x02\x03\xe8"


HELLO = (
    Frame(TEXT, b"hi", mask=MASK).encode() + Frame(CLOSE, BYE[2:], mask=MASK).encode()
)


def verdict(sent: bytes, heard: list[Any]) -> str:
    """Judge a server that was sent "hi" and a Close."""
    data = GOOD_REQUEST + HELLO
    case = Case("server", (data,))
    return judge_server(case, Seen(data, sent, [Observed(heard)]))


def test_the_judge_accepts_a_right_result() -> None:
    assert verdict(OPEN + HI + BYE, ["hi", CLOSED]) == "clean 1000"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"hi",
        OPEN,
        OPEN + HI,
        OPEN + BYE,
        OPEN + BYE + HI,
        OPEN + HI + BYE[:-1],
        OPEN + HI + BYE + BYE,
        OPEN + HI + BYE + b"\x8a\0",
        OPEN + HI + b"\x88\x02\x03\xe9",
        OPEN + HI + b"\x8a\0" + BYE,
        OPEN + HI + HI + BYE,
        OPEN + b"\x01\x02hi" + BYE,
        OPEN + b"\x81\x82\0\0\0\0hi" + BYE,
        OPEN.replace(b"s3p", b"s3q") + HI + BYE,
        OPEN.replace(b"101", b"400"),
    ],
)
def test_the_judge_finds_wrong_bytes(sent: bytes) -> None:
    with pytest.raises(AssertionError):
        verdict(sent, ["hi", CLOSED])


@pytest.mark.parametrize(
    "heard",
    [
        [],
        ["hi"],
        [CLOSED],
        ["hi", CLOSED, CLOSED],
        ["hi", CLOSED, "hi"],
        ["hi", "hi", CLOSED],
        ["hi", BROKEN, CLOSED],
        ["hi", BROKEN, CloseEvent(1006, "", was_clean=False)],
        ["hi", CloseEvent(1006, "", was_clean=False)],
        ["hi", CloseEvent(1001, "", was_clean=True)],
    ],
)
def test_the_judge_finds_wrong_events(heard: list[Any]) -> None:
    with pytest.raises(AssertionError):
        verdict(OPEN + HI + BYE, heard)


def test_the_judge_finds_the_refusal_of_a_valid_request() -> None:
    case = Case("client", (GOOD_ANSWER,))
    request = head(*UPGRADE)
    answer = with_accept(GOOD_ANSWER, request)
    seen = Seen(answer, request, [], HandshakeError("no"))
    with pytest.raises(AssertionError):
        judge_client(case, seen)
