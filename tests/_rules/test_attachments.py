"""Attachments: the values, references, sizes and errors."""

import datetime as dt
import decimal
import math
import subprocess
import sys
import zoneinfo
from collections.abc import Callable
from itertools import chain
from typing import cast

import pytest
import trio
from hypothesis import given, settings, strategies as st

from trio_wspair import WebSocketPair
from trio_wspair._rules.messages import (
    MAX_ATTACHMENT_BYTES,
    pack_attachment,
    unpack_attachment,
)

UTC = dt.UTC
HINT = (
    "Attach None, bool, int, float, str, bytes, aware datetimes, and lists, dicts "
    "and sets of these"
)


def there_and_back(value: object) -> object:
    packed = pack_attachment(value)
    assert type(packed) is bytes
    assert len(packed) <= MAX_ATTACHMENT_BYTES == 16_384
    return unpack_attachment(packed)


def same(a: object, b: object) -> bool:
    """Compare deeply, with types: 1, 1.0 and True are three values."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and isinstance(b, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    if isinstance(a, dt.datetime) and isinstance(b, dt.datetime):
        return a == b and a.utcoffset() == b.utcoffset()
    in_a, in_b = inside(a), inside(b)
    if in_a is None or in_b is None:
        return a == b
    return len(in_a) == len(in_b) and all(map(same, in_a, in_b))


def inside(value: object) -> list[object] | None:
    """Return the items of a list or a dict, in order."""
    if isinstance(value, dict):
        return list(chain.from_iterable(cast("dict[object, object]", value).items()))
    return cast("list[object]", value) if isinstance(value, list) else None


# -- values ---------------------

offsets = st.integers(-23 * 60, 23 * 60).map(
    lambda minutes: dt.timezone(dt.timedelta(minutes=minutes))
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(allow_nan=False),
    st.text(max_size=10),
    st.binary(max_size=10),
    st.datetimes(timezones=st.just(UTC) | offsets),
)
hashable = st.one_of(st.integers(), st.text(max_size=5), st.binary(max_size=5))
values = st.recursive(
    scalars | st.sets(hashable, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(hashable, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
@settings(max_examples=150, deadline=None)
def test_values_come_back_with_their_types(value: object) -> None:
    assert same(there_and_back(value), value)


PLAIN_VALUES: list[object] = [
    None,
    True,
    False,
    0,
    -1,
    2**64,
    -(2**64) - 1,
    10**400,
    1.5,
    -0.0,
    math.inf,
    -math.inf,
    "",
    "text \N{GRINNING FACE}\0",
    b"",
    b"\x00\xff",
    [],
    {},
    set(),
    [1, 1.0, True, "1", b"1"],
    {"a": [1, {"b": None}], "c": {}},
    {1: "int", "1": "text", b"1": "bytes", None: "nothing"},
    {1, "1", b"1", None},
    {frozenset({1}), frozenset({2})},
    dt.datetime(2020, 2, 29, 12, 30, 15, 999_999, tzinfo=UTC),
    dt.datetime(1, 1, 1, tzinfo=UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
]


@pytest.mark.parametrize("value", PLAIN_VALUES, ids=map(str, range(len(PLAIN_VALUES))))
def test_the_values_of_json_and_bytes_dates_and_sets_come_back(value: object) -> None:
    assert same(there_and_back(value), value)


def test_nan_comes_back() -> None:
    result = there_and_back(math.nan)
    assert isinstance(result, float)
    assert math.isnan(result)


def test_a_date_in_a_named_zone_keeps_its_moment_and_its_offset() -> None:
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    for month, hours in ((1, 1), (7, 2)):
        result = there_and_back(dt.datetime(2020, month, 1, tzinfo=berlin))
        assert result == dt.datetime(2020, month, 1, tzinfo=berlin)
        assert isinstance(result, dt.datetime)
        assert result.utcoffset() == dt.timedelta(hours=hours)


def test_tuples_come_back_as_lists_and_bytearrays_as_bytes() -> None:
    assert same(there_and_back((1, (2, 3))), [1, [2, 3]])
    assert same(there_and_back(bytearray(b"abc")), b"abc")


def test_a_tuple_that_is_a_key_or_in_a_set_stays_a_tuple() -> None:
    assert same(there_and_back({(1, 2): "here"}), {(1, 2): "here"})
    assert same(there_and_back({(1, 2)}), {(1, 2)})


# -- references ---------------------


def test_every_reading_is_a_fresh_copy() -> None:
    value = {"list": [1]}
    packed = pack_attachment(value)
    value["list"].append(2)
    first, second = unpack_attachment(packed), unpack_attachment(packed)
    assert first == second == {"list": [1]}
    assert first is not second


@pytest.mark.parametrize("shared", [[1], {"a": 1}, {1}], ids=["list", "dict", "set"])
def test_shared_references_stay_shared(shared: object) -> None:
    result = there_and_back({"one": shared, "two": [shared], "other": [1]})
    assert isinstance(result, dict)
    assert result["one"] == shared
    assert result["one"] is result["two"][0]
    assert result["other"] is not result["one"]


def test_equal_values_that_are_not_shared_stay_separate() -> None:
    result = there_and_back([[1], [1]])
    assert isinstance(result, list)
    assert result[0] is not result[1]


def test_a_list_may_contain_itself() -> None:
    value: list[object] = [1]
    value.append(value)
    result = there_and_back(value)
    assert isinstance(result, list)
    assert result[0] == 1
    assert result[1] is result


def test_a_dict_may_contain_itself_at_a_deeper_level() -> None:
    value: dict[str, object] = {"name": "me"}
    value["friends"] = [{"back": value}]
    result = there_and_back(value)
    assert isinstance(result, dict)
    assert result["name"] == "me"
    assert result["friends"][0]["back"] is result


def test_a_value_that_is_small_only_because_of_sharing_is_small() -> None:
    value: list[object] = []
    for _ in range(100):
        value = [value, value]
    assert len(pack_attachment(value)) < 1000


# -- values that can't be attached ---------------------


class Thing:
    """An object that CBOR can't hold."""


@pytest.mark.parametrize("where", ["alone", "in a list", "in a dict", "as a key"])
@pytest.mark.parametrize(
    ("value", "named"),
    [
        pytest.param(Thing(), "Thing", id="object"),
        pytest.param(Thing, "type", id="class"),
        pytest.param(len, "builtin_function_or_method", id="function"),
        pytest.param(dt.time(1), "datetime.time", id="time"),
        pytest.param(dt.timedelta(1), "datetime.timedelta", id="timedelta"),
        pytest.param(dt.datetime(2020, 1, 1), "naive datetime", id="naive"),
        pytest.param("\ud800", "surrogates not allowed", id="lone surrogate"),
    ],
)
def test_a_value_that_cannot_be_kept_is_a_type_error_that_names_it(
    where: str, value: object, named: str
) -> None:
    wrapped = {
        "alone": value,
        "in a list": [1, [value]],
        "in a dict": {"a": {"b": value}},
        "as a key": {value: 1},
    }[where]
    with pytest.raises(TypeError) as caught:
        pack_attachment(wrapped)
    text = str(caught.value)
    assert text.startswith("the value can't be attached: ")
    assert named in text
    assert text.endswith(HINT)
    assert caught.value.__cause__ is not None


def test_a_value_that_could_not_be_read_back_is_refused_at_once() -> None:
    odd = dt.timezone(dt.timedelta(seconds=30))
    with pytest.raises(ValueError, match="could not be read back") as caught:
        pack_attachment(dt.datetime(2020, 1, 1, tzinfo=odd))
    assert caught.value.__cause__ is not None


def in_a_list(value: object) -> object:
    return [value]


def in_a_dict(value: object) -> object:
    return {"a": value}


@pytest.mark.parametrize("depth", [500, 5000])
@pytest.mark.parametrize("wrap", [in_a_list, in_a_dict], ids=["lists", "dicts"])
def test_nesting_too_deep_to_be_read_back_is_refused(
    wrap: Callable[[object], object], depth: int
) -> None:
    value: object = None
    for _ in range(depth):
        value = wrap(value)
    with pytest.raises(ValueError, match="the value can't be attached"):
        pack_attachment(value)


NESTED = """
from trio_wspair._rules.messages import pack_attachment
value = []
for _ in range({depth}):
    value = {wrapped}
try:
    pack_attachment(value)
except ValueError as exc:
    print("refused:", exc, flush=True)
"""


@pytest.mark.parametrize("wrapped", ["[value]", "dict(a=value)"])
def test_the_deepest_nesting_is_refused_and_does_not_end_the_process(
    wrapped: str,
) -> None:
    # In another process, as the stack may overflow.
    program = NESTED.format(depth=100_000, wrapped=wrapped)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.startswith("refused: the value can't be attached")
    assert done.returncode == 0


# -- size ---------------------

# Three bytes have the type and the length (RFC 8949, section 3).
LARGEST = MAX_ATTACHMENT_BYTES - 3


def test_exactly_16384_bytes_are_kept() -> None:
    packed = pack_attachment(b"x" * LARGEST)
    assert len(packed) == 16_384
    assert unpack_attachment(packed) == b"x" * LARGEST


@pytest.mark.parametrize("value", [b"x" * (LARGEST + 1), "x" * (LARGEST + 1)])
def test_one_byte_more_is_refused_with_both_sizes(value: object) -> None:
    with pytest.raises(ValueError, match="bytes, this one") as caught:
        pack_attachment(value)
    assert str(caught.value) == (
        "an attachment has at most 16384 bytes, this one 16385: "
        "keep the data elsewhere and attach a key to it"
    )


def test_the_size_is_that_of_utf8_and_not_of_characters() -> None:
    pack_attachment("\N{EURO SIGN}" * (LARGEST // 3))
    with pytest.raises(ValueError, match="at most 16384 bytes"):
        pack_attachment("\N{EURO SIGN}" * (LARGEST // 3 + 1))


# -- on a half ---------------------


async def test_a_half_has_no_attachment_at_first(nursery: trio.Nursery) -> None:
    client, server = WebSocketPair(nursery)
    assert client.deserialize_attachment() is None
    assert server.deserialize_attachment() is None


async def test_each_half_keeps_its_own_attachment_and_the_last_counts(
    nursery: trio.Nursery,
) -> None:
    client, server = WebSocketPair(nursery)
    client.serialize_attachment("first")
    client.serialize_attachment({"name": "client"})
    assert client.deserialize_attachment() == {"name": "client"}
    assert server.deserialize_attachment() is None


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param([1, Thing()], id="type"),
        pytest.param(b"x" * 20_000, id="size"),
        pytest.param("\ud800", id="surrogate"),
    ],
)
async def test_g4_a_refused_attachment_leaves_the_old_one(
    wrong: object, nursery: trio.Nursery
) -> None:
    half = WebSocketPair(nursery)[0]
    with pytest.raises((TypeError, ValueError)):
        half.serialize_attachment(wrong)
    assert half.deserialize_attachment() is None
    half.serialize_attachment("old")
    with pytest.raises((TypeError, ValueError)):
        half.serialize_attachment(wrong)
    assert half.deserialize_attachment() == "old"


async def test_attachments_work_in_every_state(nursery: trio.Nursery) -> None:
    client, server = WebSocketPair(nursery)
    client.accept()
    server.accept()
    client.serialize_attachment(1)
    client.close()
    assert client.deserialize_attachment() == 1
    client.serialize_attachment(2)
    with trio.fail_after(5):
        await client.wait_closed()
    assert client.deserialize_attachment() == 2
    client.serialize_attachment(decimal.Decimal("1.5"))
    assert client.deserialize_attachment() == decimal.Decimal("1.5")


def test_a_naive_datetime_is_explained() -> None:
    with pytest.raises(TypeError, match="a naive datetime has no timezone"):
        pack_attachment(dt.datetime(2020, 2, 29, 12, 30))
