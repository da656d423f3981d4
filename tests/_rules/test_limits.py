"""`Limits`: names, defaults and checks, shared by all public functions."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st
from memory_server import answer_to, request_bytes

from trio_wspair import (
    Request,
    Response,
    WebSocketPair,
    connect,
    open_websocket_pair,
    serve,
)
from trio_wspair._rules.limits import Limits, check_limit, check_seconds
from trio_wspair.asgi import ASGIApp
from trio_wspair.testing import open_asgi_websocket
from trio_wspair.transports import couple

NAMES = [field.name for field in attrs.fields(Limits)]
PUBLIC: list[Callable[..., Any]] = [
    serve,
    connect,
    couple,
    ASGIApp,
    open_asgi_websocket,
]


@pytest.mark.parametrize("function", PUBLIC)
def test_a_keyword_argument_has_the_default_of_its_limit(
    function: Callable[..., Any],
) -> None:
    parameters = inspect.signature(function).parameters
    shared = [name for name in NAMES if name in parameters]
    assert shared
    for name in shared:
        assert parameters[name].default == getattr(Limits(), name), name


def test_each_limit_can_be_set_by_a_keyword_argument() -> None:
    settable = {name for f in PUBLIC for name in inspect.signature(f).parameters}
    assert set(NAMES) <= settable


def test_the_documentation_has_a_table_of_all_limits() -> None:
    page = Path(__file__).parents[2] / "docs" / "serving.rst"
    _, _, rest = page.read_text().partition("\nLimits\n------\n")
    table, _, _ = rest.partition("\n--------")
    assert [name for name in NAMES if f"``{name}``" not in table] == []


@pytest.mark.parametrize("function", [WebSocketPair, open_websocket_pair, connect])
def test_pairs_in_memory_and_on_the_network_buffer_as_much(
    function: Callable[..., Any],
) -> None:
    default = inspect.signature(function).parameters["max_buffered_bytes"].default
    assert default == Limits().max_buffered_bytes


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_is_checked_by_every_public_function(name: str) -> None:
    wrongs: list[Any] = ["5", True, -1, math.nan]
    for wrong in wrongs:
        with pytest.raises((TypeError, ValueError), match=f"^{name} must be "):
            Limits(**{name: wrong})
    fine: Any = {name: 10_000}
    Limits(**fine)


def test_only_a_limit_that_is_off_by_default_can_be_switched_off() -> None:
    assert Limits(max_connections_per_client=None).max_connections_per_client is None
    with pytest.raises(TypeError, match="max_connections must be an int, not None"):
        Limits(max_connections=None)  # type: ignore[arg-type] # on purpose


async def echo_path(request: Request) -> Response:
    return Response(request.path)


@pytest.mark.parametrize(
    ("size", "max_head_bytes", "status"),
    [(1000, 1024, 200), (1500, 1024, 431), (32_000, 2**15, 200), (100_000, 2**17, 200)],
)
async def test_a_head_may_be_as_large_as_the_limit(
    size: int, max_head_bytes: int, status: int
) -> None:
    head = request_bytes("GET", "/")
    filling = f"X: {'x' * (size - len(head) - 5)}"
    request = request_bytes("GET", "/", filling)
    assert len(request) == size
    answer = await answer_to(echo_path, request, max_head_bytes=max_head_bytes)
    assert answer.status == status


# -- checks of arguments ------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 2, 2**40], ids=repr)
def test_a_limit_of_one_or_more_is_good(value: int) -> None:
    check_limit("max_buffered_bytes", value)


@pytest.mark.parametrize("value", [0, -1, -(2**40)], ids=repr)
def test_a_limit_below_one_is_a_value_error(value: int) -> None:
    with pytest.raises(ValueError, match=f"^a_limit must be at least 1, not {value}$"):
        check_limit("a_limit", value)


@pytest.mark.parametrize(
    "value", [1.0, True, False, "1", None, math.inf, b"1"], ids=repr
)
def test_a_limit_that_is_not_an_int_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=r"^a_limit must be an int, not ") as caught:
        check_limit("a_limit", value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [0, 0.0, -0.0, 1, 0.25, 10**400, math.inf], ids=repr)
def test_seconds_are_zero_or_more_and_may_be_infinite(value: float) -> None:
    check_seconds("close_grace", value)


@pytest.mark.parametrize("value", [-1, -0.001, -math.inf, math.nan], ids=repr)
def test_negative_seconds_and_nan_are_value_errors(value: float) -> None:
    with pytest.raises(
        ValueError, match=r"^a_time must be 0 or more seconds"
    ) as caught:
        check_seconds("a_time", value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [True, False, "1", None, 1j, b"1"], ids=repr)
def test_seconds_that_are_not_a_number_are_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=r"^a_time must be a number of sec") as caught:
        check_seconds("a_time", value)
    assert repr(value) in str(caught.value)


LEAST = {
    "max_connections": 1,
    "max_connections_per_client": 1,
    "max_head_bytes": 1024,
    "max_body_bytes": 0,
    "min_body_rate": 0,
    "max_message_bytes": 1,
    "max_buffered_bytes": 1,
    "receive_buffer_bytes": 1,
}
"""The least value of each limit that is a number, written a second time."""


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_a_limit_has_a_least_value(name: str, least: int) -> None:
    assert getattr(Limits(**{name: least}), name) == least
    with pytest.raises(ValueError, match=name):
        Limits(**{name: least - 1})


def test_a_number_may_have_a_greatest_value() -> None:
    check_limit("port", 65535, least=0, most=65535)
    for number in (-1, 65536):
        with pytest.raises(ValueError, match="port"):
            check_limit("port", number, least=0, most=65535)


@given(st.integers(0, 10**6), st.floats(0, 10**4), st.integers(0, 1000))
def test_a_body_may_wait_for_its_next_piece_and_at_its_lowest_rate(
    size: int, waited: float, rate: int
) -> None:
    seconds = Limits(body_timeout=30, min_body_rate=rate).body_seconds(size, waited)
    assert 0 <= seconds <= 30
    if rate == 0:
        assert seconds == 30
    else:
        left = 30 + size / rate - waited
        assert seconds == pytest.approx(min(30, max(0, left)))
