"""Messages: the conversions of `send()`, and their sizes."""

import array
import ctypes
import datetime as dt
import decimal
import enum
import math
import mmap
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings, strategies as st

from trio_wspair._rules.codes import usv_string
from trio_wspair._rules.messages import MIN_WEIGHT, as_message, size_of, weight_of

# -- text ---------------------


@given(st.text(max_size=30))
@settings(max_examples=50, deadline=None)
def test_well_formed_text_is_unchanged(text: str) -> None:
    assert as_message(text) == text


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        pytest.param("\ud800", "\ufffd", id="lone high"),
        pytest.param("\udc00", "\ufffd", id="lone low"),
        pytest.param("a\ud83db", "a\ufffdb", id="lone high between letters"),
        pytest.param("\ude00\ud83d", "\ufffd\ufffd", id="the wrong way round"),
        pytest.param("\ud83d\ude00", "\N{GRINNING FACE}", id="a pair"),
        pytest.param("\ud83d\ud83d\ude00", "\ufffd\N{GRINNING FACE}", id="and a half"),
    ],
)
def test_each_lone_surrogate_becomes_one_replacement_character(
    text: str, sent: str
) -> None:
    assert as_message(text) == sent


@given(st.text(st.characters(), max_size=12))
@settings(max_examples=50, deadline=None)
def test_any_text_is_sent_as_valid_utf8(text: str) -> None:
    message = as_message(text)
    assert isinstance(message, str)
    assert message == usv_string(text)
    message.encode()


class Shouting(str):
    """Its `str()` is not its text."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


class Colour(str, enum.Enum):  # noqa: UP042 - its str() is not its text
    RED = "red"
    BROKEN = "\ud800"


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        pytest.param(Shouting("abc"), "abc", id="ASCII"),
        pytest.param(Shouting("\N{EURO SIGN}a"), "\N{EURO SIGN}a", id="not ASCII"),
        pytest.param(Shouting("\ud800a"), "\ufffda", id="lone surrogate"),
        pytest.param(Colour.RED, "red", id="enum"),
        pytest.param(Colour.BROKEN, "\ufffd", id="enum with a lone surrogate"),
    ],
)
def test_a_str_subclass_becomes_the_plain_text_that_it_contains(
    text: str, sent: str
) -> None:
    message = as_message(text)
    assert message == sent
    assert type(message) is str


# -- bytes ---------------------


def array_of(data: bytes) -> object:
    return array.array("B", data)


@pytest.mark.parametrize(
    "make",
    [bytes, bytearray, memoryview, array_of],
    ids=["bytes", "bytearray", "memoryview", "array"],
)
@pytest.mark.parametrize("data", [b"", b"\x00\xff", b"abc" * 1000], ids=len)
def test_every_bytes_like_object_becomes_bytes(
    make: Callable[[bytes], object], data: bytes
) -> None:
    message = as_message(make(data))
    assert message == data
    assert type(message) is bytes


def test_a_bytes_subclass_becomes_plain_bytes() -> None:
    class Data(bytes):
        __slots__ = ()

    assert type(as_message(Data(b"abc"))) is bytes
    assert as_message(Data(b"abc")) == b"abc"


def test_strided_views_and_views_of_larger_items_become_their_bytes() -> None:
    assert as_message(memoryview(b"abcdef")[::2]) == b"ace"
    assert as_message(memoryview(b"abcdef")[::-1]) == b"fedcba"
    assert as_message(memoryview(b"abcd").cast("H")) == b"abcd"
    assert as_message((ctypes.c_char * 3)(b"a", b"b", b"c")) == b"abc"
    assert as_message(array.array("H", [1])) == array.array("H", [1]).tobytes()


def test_bytes_are_a_snapshot() -> None:
    data = bytearray(b"before")
    messages = [as_message(data), as_message(memoryview(data))]
    data[:] = b"after"  # The buffer isn't held: it can be resized.
    assert messages == [b"before", b"before"]


def test_a_snapshot_of_a_mapped_file_does_not_keep_it_open() -> None:
    with mmap.mmap(-1, 4) as mapped:
        mapped.write(b"abcd")
        assert as_message(mapped) == b"abcd"


# -- numbers, as ECMA-262 Number::toString prints them ---------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.0, "-1"),
        (10.0, "10"),
        (0.5, "0.5"),
        (-0.25, "-0.25"),
        (123.456, "123.456"),
        (1000000.5, "1000000.5"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1 / 3, "0.3333333333333333"),
        (100.0, "100"),
        (2.0**53, "9007199254740992"),
        (1e15, "1000000000000000"),
        (1e16, "10000000000000000"),  # Python: 1e+16
        (1.5e16, "15000000000000000"),
        (1234567890123456.7, "1234567890123456.8"),
        (1e20, "100000000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (999999999999999900000.0, "999999999999999900000"),
        (1e21, "1e+21"),  # The first with an exponent.
        (1.2e21, "1.2e+21"),
        (-1.5e300, "-1.5e+300"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (0.001, "0.001"),
        (0.0001, "0.0001"),
        (0.00001, "0.00001"),  # Python: 1e-05
        (0.000025, "0.000025"),
        (0.000001, "0.000001"),
        (0.00000123, "0.00000123"),
        (9.999999e-7, "9.999999e-7"),
        (1e-7, "1e-7"),  # The first with an exponent; Python: 1e-07
        (-1.5e-7, "-1.5e-7"),
        (1.25e-10, "1.25e-10"),
        (2.2250738585072014e-308, "2.2250738585072014e-308"),
        (5e-324, "5e-324"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (math.nan, "NaN"),
    ],
    ids=repr,
)
def test_a_float_is_printed_as_ecmascript_prints_it(number: float, text: str) -> None:
    assert as_message(number) == text


finite = st.floats(allow_nan=False, allow_infinity=False)
usual = st.floats(-1e22, 1e22) | st.floats(-1e-4, 1e-4) | st.integers().map(float)


@given(finite | usual)
@example(1e21)
@example(1e-7)
@example(123456789012345680000.0)
@settings(max_examples=200, deadline=None)
def test_a_printed_float_reads_back_as_the_same_number(number: float) -> None:
    text = as_message(number)
    assert isinstance(text, str)
    assert float(text) == number


@given(finite | usual)
@settings(max_examples=200, deadline=None)
def test_a_printed_float_has_the_one_form_that_ecmascript_gives_it(
    number: float,
) -> None:
    text = as_message(number)
    assert isinstance(text, str)
    form = re.fullmatch(r"(-?)(0|[1-9]\d*)(\.\d*[1-9])?(e[+-][1-9]\d*)?", text)
    assert form is not None
    sign, whole, fraction, exponent = form.groups(default="")
    assert (sign == "-") is (number < 0)
    assert bool(exponent) is (number != 0 and not 1e-6 <= abs(number) < 1e21)
    assert not exponent or len(whole) == 1
    digits = (whole + fraction.lstrip(".")).strip("0")
    shortest = decimal.Decimal(repr(number)).normalize().as_tuple().digits
    assert digits == "".join(map(str, shortest)).strip("0")


@given(st.integers(-(10**40), 10**40))
@settings(max_examples=50, deadline=None)
def test_an_int_is_printed_with_all_its_digits(number: int) -> None:
    assert as_message(number) == str(number)


def test_a_named_number_is_a_number() -> None:
    class Level(enum.IntEnum):
        HIGH = 3

    class Ratio(float, enum.Enum):
        HALF = 0.5

    assert as_message(Level.HIGH) == "3"
    assert as_message(Ratio.HALF) == "0.5"


# -- everything else ---------------------


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        {},
        {"a": 1},
        [],
        [1, 2],
        (),
        {1},
        1j,
        object(),
        str,
        decimal.Decimal(1),
        dt.date(2000, 1, 1),
        range(3),
    ],
    ids=lambda value: type(value).__name__ + str(bool(value)),
)
def test_other_types_are_refused_with_a_hint_at_json(value: object) -> None:
    with pytest.raises(TypeError) as caught:
        as_message(value)
    assert str(caught.value) == (
        "send() takes str, bytes-like, int or float, not "
        f"{type(value).__name__}: did you mean send(json.dumps(...))?"
    )


# -- sizes ---------------------


@given(st.one_of(st.text(max_size=40), st.binary(max_size=40)))
@settings(max_examples=100, deadline=None)
def test_the_size_of_a_message_is_that_of_its_payload(value: str | bytes) -> None:
    message = as_message(value)
    payload = message.encode() if isinstance(message, str) else message
    assert size_of(message) == len(payload)


@given(st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_a_message_weighs_its_size_but_at_least_64(size: int) -> None:
    assert weight_of(size) == (size if size >= 64 else MIN_WEIGHT)
