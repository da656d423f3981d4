"""What `send()` takes, turned into what travels: well-formed text, or bytes."""

import math

from .codes import usv_string

__all__ = ("Message", "as_message", "size_of")

Message = str | bytes


def as_message(value: object) -> Message:
    """Return `value` as the message that `send()` sends for it.

    Bytes are a snapshot. Numbers become text as ECMAScript prints them.

    Raises:
        TypeError: It is neither text, bytes nor a number.
    """
    kind = value.__class__
    if kind is bytes:
        return value  # type: ignore[return-value]  # its class says so
    if isinstance(value, str):
        return value if kind is str and value.isascii() else usv_string(value)
    # Differs: workerd sends text for anything, such as "null" or "true".
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number_text(value)
    try:
        return memoryview(value).tobytes()  # type: ignore[arg-type]  # else TypeError
    except TypeError:
        msg = (
            "send() takes str, bytes-like, int or float, not "
            f"{type(value).__name__}: did you mean send(json.dumps(...))?"
        )
        raise TypeError(msg) from None


def size_of(message: Message) -> int:
    """Return the bytes that `message` takes on the wire, without framing."""
    if message.__class__ is bytes or message.isascii():
        return len(message)
    return len(message.encode()) if isinstance(message, str) else len(message)


def _number_text(value: float) -> str:
    """Print a number as ECMAScript does (ECMA-262, Number::toString)."""
    if isinstance(value, int):
        return format(int(value), "d")
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    # Python and ECMAScript agree on the shortest digits, not on how to set them.
    mantissa, _, exponent = repr(abs(float(value))).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0)
    point -= len(whole + fraction) - len(digits)
    digits = digits.rstrip("0")
    return sign + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """Set the point after `point` digits, with an exponent where ECMAScript has one."""
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    head, rest = digits[0], digits[1:]
    return f"{head}{'.' if rest else ''}{rest}e{point - 1:+d}"
