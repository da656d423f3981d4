"""The tree of exceptions, their attributes and texts."""

import copy
import pickle

import pytest

from trio_wspair import (
    BufferFullError,
    ConnectionClosedError,
    HandshakeError,
    InvalidStateError,
    ProtocolError,
    RequestBodyError,
    WebSocketError,
)
from trio_wspair._rules.errors import message_too_big
from trio_wspair.hibernation import DurableObjectResetError

EXAMPLES: list[WebSocketError] = [
    WebSocketError("something"),
    InvalidStateError("too late"),
    BufferFullError("full"),
    ConnectionClosedError(3000, "enough", was_clean=True),
    ProtocolError(1009, "a message of 5 bytes is too long"),
    HandshakeError("refused", status=403, headers=(("A", "1"),), body=b"no"),
    DurableObjectResetError("aborted"),
]
by_name = pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)


@by_name
def test_every_error_is_caught_as_a_websocket_error(error: WebSocketError) -> None:
    with pytest.raises(WebSocketError):
        raise error


@by_name
def test_only_misuse_is_a_runtime_error(error: WebSocketError) -> None:
    assert isinstance(error, RuntimeError) is isinstance(error, InvalidStateError)


@by_name
def test_no_error_is_an_os_error_or_a_value_error(error: WebSocketError) -> None:
    assert not isinstance(error, (OSError, ValueError, TypeError))


@pytest.mark.parametrize(
    "kind",
    [InvalidStateError, BufferFullError, ConnectionClosedError, ProtocolError],
)
def test_the_branches_of_the_tree_do_not_catch_each_other(
    kind: type[WebSocketError],
) -> None:
    caught = [type(error) for error in EXAMPLES if isinstance(error, kind)]
    assert caught == [kind]


@pytest.mark.parametrize(
    "error",
    [*EXAMPLES, RequestBodyError(413, "too large")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("way", ["copy", "pickle"])
def test_errors_survive_copying_and_pickling(error: Exception, way: str) -> None:
    packed = pickle.dumps(error)
    twin = copy.copy(error) if way == "copy" else pickle.loads(packed)  # noqa: S301
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)


def test_connection_closed_shows_code_reason_and_cleanness() -> None:
    error = ConnectionClosedError(1006, "gone", was_clean=False)
    assert (error.code, error.reason, error.was_clean) == (1006, "gone", False)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            ConnectionClosedError(1000, "", was_clean=True),
            "the connection has closed cleanly with code 1000",
        ),
        (
            ConnectionClosedError(3000, "enough", was_clean=True),
            "the connection has closed cleanly with code 3000: enough",
        ),
        (
            ConnectionClosedError(1006, "", was_clean=False),
            "the connection has closed abnormally with code 1006",
        ),
        (
            ConnectionClosedError(1006, "no answer", was_clean=False),
            "the connection has closed abnormally with code 1006: no answer",
        ),
    ],
)
def test_the_text_of_connection_closed_is_a_sentence(
    error: ConnectionClosedError, text: str
) -> None:
    assert str(error) == text


def test_a_protocol_error_shows_the_problem_and_the_code_sent() -> None:
    error = ProtocolError(1009, "a message of 5 bytes is too long")
    assert error.code == 1009
    assert str(error) == "a message of 5 bytes is too long (closed with 1009)"


def test_a_handshake_error_has_the_response_of_the_server() -> None:
    error = HandshakeError("no", status=403, headers=(("A", "1"),), body=b"sorry")
    assert str(error) == "no"
    assert (error.status, error.headers, error.body) == (403, (("A", "1"),), b"sorry")


def test_a_handshake_error_without_a_response_has_no_status() -> None:
    error = HandshakeError("the server said nothing")
    assert (error.status, error.headers, error.body) == (None, (), b"")


@pytest.mark.parametrize("status", range(100, 600))
def test_another_attempt_may_help_after_some_statuses(status: int) -> None:
    passing = {408, 425, 429, *range(500, 600)} - {501, 505}
    error = HandshakeError("no", status=status, headers=(), body=b"")
    assert error.retryable is (status in passing)


def test_a_message_above_the_limit_is_closed_with_1009() -> None:
    error = message_too_big(5)
    assert error.code == 1009
    assert "more than 5 bytes" in str(error)
