"""Arguments that are refused before anything happens."""

import math

import pytest

from trio_wspair._rules.limits import check_limit, check_seconds


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
