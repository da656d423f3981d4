"""Values of Durable Objects at their limits: ids, tags, answers, time limits."""

from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from trio_wspair._rules.objects import (
    MAX_SOCKETS,
    DurableObjectId,
    WebSocketRequestResponsePair,
    checked_event_timeout,
    checked_tags,
    id_from_name,
    new_unique_id,
)

digits = st.text("0123456789abcdef", min_size=64, max_size=64)
SEVEN_DAYS = 7 * 24 * 60 * 60 * 1000
"""In milliseconds."""


def test_an_object_has_as_many_sockets_as_in_workers() -> None:
    assert MAX_SOCKETS == 32_768


# -- ids -----------------------------------------------------------------------------


@given(digits)
def test_an_id_is_its_64_digits(text: str) -> None:
    assert str(DurableObjectId(text)) == text
    assert DurableObjectId(text) == DurableObjectId(text, "name")


@given(st.text(max_size=70) | digits.map(str.upper) | st.text("0aF", min_size=64))
@example("A" + "0" * 63)
@example("0" * 63)
@example("0" * 65)
@example("0" * 64 + "\n")
def test_other_text_is_not_an_id(text: str) -> None:
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return
    with pytest.raises(ValueError, match="64 hexadecimal digits in lower case"):
        DurableObjectId(text)


@given(st.text(), st.text())
def test_equal_names_have_equal_ids(first: str, second: str) -> None:
    ids = id_from_name("Room", first), id_from_name("Room", second)
    assert (ids[0] == ids[1]) is (first == second)
    assert ids[0].name == first
    assert id_from_name("Game", first) != ids[0]


def test_the_id_of_a_name_never_changes() -> None:
    assert str(id_from_name("Room", "lobby")) == (
        "89ec928f7eeaa6c5fe6fc1bd10cf2b1d6a89211fd5ce103b61a9a94b21b8f70e"
    )


def test_new_ids_differ_and_have_no_name() -> None:
    ids = {new_unique_id() for _ in range(100)}
    assert len(ids) == 100
    assert {one.name for one in ids} == {None}


# -- tags ----------------------------------------------------------------------------


@given(st.lists(st.text(max_size=5), max_size=10))
def test_up_to_ten_tags_are_kept_once_and_in_order(tags: list[str]) -> None:
    assert checked_tags(tags) == tuple(dict.fromkeys(tags))


@given(st.lists(st.text(max_size=5), min_size=11, max_size=13, unique=True))
def test_more_than_ten_tags_are_refused(tags: list[str]) -> None:
    with pytest.raises(ValueError, match="at most 10 tags"):
        checked_tags(tags)


def test_a_tag_has_at_most_256_bytes() -> None:
    assert checked_tags(["ä" * 128]) == ("ä" * 128,)
    with pytest.raises(ValueError, match="256 bytes of UTF-8, this one has 257"):
        checked_tags(["ä" * 128 + "x"])


@pytest.mark.parametrize(
    "tags", ["lobby", b"lobby", 5, None, [5], [b"lobby"]], ids=repr
)
def test_tags_are_a_list_of_str(tags: Any) -> None:
    with pytest.raises(TypeError):
        checked_tags(tags)


# -- automatic answers and time limits -----------------------------------------------


def test_each_text_of_an_automatic_answer_has_at_most_2048_bytes() -> None:
    longest = "ä" * 1024
    pair = WebSocketRequestResponsePair(longest, longest)
    assert (pair.request, pair.response) == (longest, longest)
    for texts in ((longest + "x", "pong"), ("ping", longest + "x")):
        with pytest.raises(ValueError, match="2048 bytes of UTF-8, this one has 2049"):
            WebSocketRequestResponsePair(*texts)


@given(st.integers(1, SEVEN_DAYS))
@example(1)
@example(SEVEN_DAYS)
def test_a_time_limit_is_up_to_seven_days(ms: int) -> None:
    assert checked_event_timeout(ms) == ms


@pytest.mark.parametrize("ms", [None, 0])
def test_zero_and_none_are_no_time_limit(ms: int | None) -> None:
    assert checked_event_timeout(ms) is None


@pytest.mark.parametrize("ms", [-1, SEVEN_DAYS + 1])
def test_other_time_limits_are_refused(ms: int) -> None:
    with pytest.raises(ValueError, match="ms"):
        checked_event_timeout(ms)
