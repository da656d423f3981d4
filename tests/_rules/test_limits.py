"""`Limits`: names, defaults and checks, shared by all public functions."""

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from memory_server import answer_to, request_bytes

from trio_wspair import (
    Request,
    Response,
    WebSocketPair,
    connect,
    open_websocket_pair,
    serve,
)
from trio_wspair._rules.limits import Limits
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
