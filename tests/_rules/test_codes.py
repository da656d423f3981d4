"""Codes and reasons of a Close, and the order of the checks."""

import enum

import attrs
import pytest
from hypothesis import example, given, settings, strategies as st

from trio_wspair import CloseCode, ProtocolError
from trio_wspair._rules.codes import (
    MAX_REASON_BYTES,
    NORMAL_CODES,
    Close,
    check_received_close,
    checked_close,
    close_from_payload,
    payload_of_close,
    usv_string,
)

RESERVED = {1004, 1005, 1006, 1015}
TOO_LONG = "x" * 124

any_text = st.text(st.characters(), max_size=60)
"""Any text, including lone surrogates."""


# -- codes ---------------------


@pytest.mark.parametrize(
    "code",
    [
        *(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014),
        *(1016, 1999, 2000, 2999, 3000, 3999, 4000, 4999),
    ],
)
def test_codes_at_the_edges_of_every_range_may_be_sent(code: int) -> None:
    assert checked_close(code, None) == Close(code, "")


@pytest.mark.parametrize(
    "code",
    [-65536, -1000, -1, 0, 1, 999, 1004, 1005, 1006, 1015, 5000, 65535, 65536],
)
def test_codes_just_outside_and_reserved_ones_may_not_be_sent(code: int) -> None:
    with pytest.raises(ValueError, match=f"^close code {code} can't be sent: use 1000"):
        checked_close(code, None)


@given(st.integers(-10, 70_000))
@settings(max_examples=100, deadline=None)
def test_exactly_1000_to_4999_without_the_reserved_ones_may_be_sent(code: int) -> None:
    if 1000 <= code <= 4999 and code not in RESERVED:
        assert checked_close(code, "why") == Close(code, "why")
    else:
        with pytest.raises(ValueError, match="can't be sent"):
            checked_close(code, "why")


@pytest.mark.parametrize(
    "code", [True, False, 1000.0, "1000", b"1000", 1j, [1000]], ids=repr
)
def test_a_code_of_another_type_is_refused(code: object) -> None:
    with pytest.raises(TypeError, match=r"^a close code is an int such as 1000") as err:
        checked_close(code, None)  # type: ignore[arg-type]  # That is the point.
    assert repr(code) in str(err.value)


def test_no_arguments_make_a_close_without_a_code() -> None:
    assert checked_close(None, None) == Close(1005, "") == Close()


def test_a_registered_code_becomes_a_plain_int() -> None:
    close = checked_close(CloseCode.NORMAL_CLOSURE, "bye")
    assert close == Close(1000, "bye")
    assert type(close.code) is int


@pytest.mark.parametrize("code", list(CloseCode), ids=lambda code: code.name)
def test_close_code_names_can_be_sent_unless_they_are_never_sent(
    code: CloseCode,
) -> None:
    if code in RESERVED:
        with pytest.raises(ValueError, match=f"close code {int(code)} can't be sent"):
            checked_close(code, None)
    else:
        assert checked_close(code, None).code == code


def test_close_code_has_every_code_of_the_registry() -> None:
    # RFC 6455, section 7.4.1, and the IANA registry; 1004 has no meaning yet.
    assert [int(code) for code in CloseCode] == [
        *(1000, 1001, 1002, 1003, 1005, 1006, 1007),
        *(1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015),
    ]


# -- reasons ---------------------


@pytest.mark.parametrize(
    "reason",
    [
        pytest.param("", id="empty"),
        pytest.param("x" * 122, id="122"),
        pytest.param("x" * 123, id="123"),
        pytest.param("\N{EURO SIGN}" * 41, id="41 of 3 bytes"),
        pytest.param("\N{GRINNING FACE}" * 30 + "abc", id="30 of 4 bytes and 3"),
        pytest.param("\ud800" * 41, id="41 lone surrogates"),
        pytest.param("\ud83d\ude00" * 30, id="30 surrogate pairs"),
        pytest.param("a\0b", id="NUL"),
    ],
)
def test_a_reason_of_up_to_123_bytes_of_utf8_is_good(reason: str) -> None:
    close = checked_close(1000, reason)
    assert len(close.reason.encode()) <= MAX_REASON_BYTES == 123


@pytest.mark.parametrize(
    ("reason", "size"),
    [
        pytest.param("x" * 124, 124, id="124"),
        pytest.param("x" * 5000, 5000, id="5000"),
        pytest.param("\N{LATIN SMALL LETTER E WITH ACUTE}" * 62, 124, id="62 of 2"),
        pytest.param("\N{EURO SIGN}" * 41 + "x", 124, id="41 of 3 and one"),
        pytest.param("\N{GRINNING FACE}" * 31, 124, id="31 of 4"),
        pytest.param("\ud800" * 42, 126, id="42 lone surrogates"),
        pytest.param("\ud83d\ude00" * 31, 124, id="31 surrogate pairs"),
    ],
)
def test_a_longer_reason_is_refused_with_both_sizes(reason: str, size: int) -> None:
    message = f"at most 123 bytes of UTF-8, this one has {size}: send it as a message"
    with pytest.raises(ValueError, match=message):
        checked_close(1000, reason)


@given(any_text)
@settings(max_examples=100, deadline=None)
def test_a_reason_is_measured_in_bytes_as_it_is_sent(reason: str) -> None:
    sent = usv_string(reason)
    if len(sent.encode()) <= 123:
        assert checked_close(4000, reason) == Close(4000, sent)
    else:
        with pytest.raises(ValueError, match="at most 123 bytes"):
            checked_close(4000, reason)


@pytest.mark.parametrize("reason", ["why", ""])
def test_a_reason_needs_a_code_even_an_empty_one(reason: str) -> None:
    with pytest.raises(ValueError, match=r"needs a code: close\(1000, reason\)$"):
        checked_close(None, reason)


@pytest.mark.parametrize("reason", [b"why", 5, True, ["why"], object()])
def test_a_reason_of_another_type_is_refused(reason: object) -> None:
    with pytest.raises(TypeError, match=r"^a close reason is a str, not ") as caught:
        checked_close(1000, reason)  # type: ignore[arg-type]  # That is the point.
    assert type(reason).__name__ in str(caught.value)


def test_no_reason_is_an_empty_one() -> None:
    assert checked_close(1000, None) == checked_close(1000, "") == Close(1000, "")


def test_a_reason_of_a_str_subclass_becomes_the_text_that_it_contains() -> None:
    class Why(str, enum.Enum):  # noqa: UP042 - its str() is not its text
        DONE = "done"

    class Shouting(str):
        __slots__ = ()

        def __str__(self) -> str:
            return self.upper()

    for reason in (Why.DONE, Shouting("done")):
        close = checked_close(1000, reason)
        assert f"{close.reason}" == "done"
        assert type(close.reason) is str


# -- the order of the checks ---------------------


@pytest.mark.parametrize(
    ("code", "reason", "complaint"),
    [
        (999, TOO_LONG, "close code 999"),
        (1005, TOO_LONG, "close code 1005"),
        (None, TOO_LONG, "at most 123 bytes"),
        (1000, TOO_LONG, "at most 123 bytes"),
        (None, "why", "needs a code"),
    ],
)
def test_code_comes_before_length_and_length_before_the_missing_code(
    code: int | None, reason: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        checked_close(code, reason)


def test_the_code_is_checked_before_the_type_of_the_reason() -> None:
    with pytest.raises(ValueError, match="close code 999"):
        checked_close(999, 5)  # type: ignore[arg-type]  # Two mistakes at once.
    with pytest.raises(TypeError, match="a close code is an int"):
        checked_close("x", 5)  # type: ignore[arg-type]  # Two mistakes at once.


def test_the_type_of_the_reason_is_checked_before_the_missing_code() -> None:
    with pytest.raises(TypeError, match="a close reason is a str"):
        checked_close(None, 5)  # type: ignore[arg-type]  # Two mistakes at once.


# -- well-formed text ---------------------


def usv_by_the_book(text: str) -> str:
    """Convert as the Infra and Web IDL standards describe it, one unit at a time."""
    units = [0xFFFD]  # There is always a unit before.
    for char in text:
        unit = ord(char)
        if 0xDC00 <= unit <= 0xDFFF and 0xD800 <= units[-1] <= 0xDBFF:
            units[-1] = 0x10000 + ((units[-1] - 0xD800) << 10) + (unit - 0xDC00)
        else:
            units.append(unit)
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if 0xD800 <= unit <= 0xDFFF else chr(unit)
        for unit in units[1:]
    )


surrogates = st.sampled_from("\ud800\udbff\udc00\udfff")
broken_text = st.text(st.one_of(surrogates, st.characters()), max_size=12)


@given(broken_text)
@example("\ud83d")
@example("\ude00")
@example("\ud83d\ude00")
@example("\ude00\ud83d")
@example("\ud83d\ud83d\ude00\ude00")
@example("\ud83dx")
@example("\N{GRINNING FACE}\ud83d\N{GRINNING FACE}")
@settings(max_examples=200, deadline=None)
def test_each_lone_surrogate_becomes_one_replacement_character(text: str) -> None:
    result = usv_string(text)
    assert result == usv_by_the_book(text)
    assert result.encode().decode() == result  # The result is well-formed.


@given(st.text(max_size=30))
@settings(max_examples=50, deadline=None)
def test_well_formed_text_stays_as_it_is(text: str) -> None:
    assert usv_string(text) == text


# -- the frame ---------------------


def test_a_close_never_changes_and_is_compared_by_value() -> None:
    close = Close(3000, "why")
    assert close == Close(3000, "why")
    assert close not in {Close(3000, ""), Close(3001, "why"), Close()}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        close.code = 1000  # type: ignore[misc]  # That is the point.


# -- the payload ---------------------


@given(st.integers(0, 2**16 - 1), st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_peer_may_send_defined_codes_and_those_from_3000_to_4999(
    code: int, reason: str
) -> None:
    defined = {int(c) for c in CloseCode} - RESERVED
    payload = code.to_bytes(2, "big") + reason.encode()
    if code in defined or 3000 <= code <= 4999:
        assert close_from_payload(payload) == Close(code, reason)
    else:
        with pytest.raises(ProtocolError, match=f"has the code {code}, ") as caught:
            close_from_payload(payload)
        assert caught.value.code == 1002


@given(st.one_of(st.sampled_from([1000, 1011, 3000, 4999]), st.just(1005)), any_text)
@settings(max_examples=200, deadline=None)
def test_a_close_that_is_sent_is_received_with_as_much_of_the_reason_as_fits(
    code: int, reason: str
) -> None:
    reason = usv_string(reason) if code != 1005 else ""
    payload = payload_of_close(Close(code, reason))
    assert len(payload) <= 125
    received = close_from_payload(payload)
    assert received.code == code
    assert reason.startswith(received.reason)
    assert (received.reason == reason) is (len(reason.encode()) <= MAX_REASON_BYTES)


def test_a_payload_of_one_byte_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="one byte") as caught:
        close_from_payload(b"\x03")
    assert caught.value.code == 1002


@pytest.mark.parametrize("code", [1000, 999])
def test_a_reason_that_is_not_utf8_is_refused_before_the_code(
    code: int,
) -> None:
    with pytest.raises(ProtocolError, match="not UTF-8") as caught:
        close_from_payload(code.to_bytes(2, "big") + b"\xff")
    assert caught.value.code == 1007


# -- a Close of another connection ---------------------------------------------------


@given(st.integers(-10, 70_000))
@example(1004)
@example(1005)
@example(1006)
@example(1015)
def test_a_received_close_has_no_code_or_one_that_may_be_sent(code: int) -> None:
    if code in {1005, *range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}:
        check_received_close(Close(code))
    else:
        with pytest.raises(ProtocolError) as caught:
            check_received_close(Close(code))
        assert caught.value.code == 1002


@pytest.mark.parametrize("code", [1004, 1005, 1006, 1015])
def test_a_reserved_code_is_never_on_the_wire(code: int) -> None:
    with pytest.raises(ProtocolError):
        close_from_payload(code.to_bytes(2, "big"))


def test_a_received_reason_has_at_most_123_bytes() -> None:
    check_received_close(Close(1000, "ä" * 61 + "x"))
    with pytest.raises(ProtocolError, match="124 bytes; 123 are allowed") as caught:
        check_received_close(Close(1000, "ä" * 62))
    assert caught.value.code == 1002


def test_the_normal_codes_are_those_of_an_intended_end() -> None:
    assert {1000, 1001, 1005} == NORMAL_CODES
