"""Messages and attachments: what `send()` and `serialize_attachment()` accept and keep.

Knows no sockets. A message becomes well-formed text, or bytes. An attachment becomes
CBOR (RFC 8949): not JSON, which has no bytes, dates, sets or shared references; not
pickle, which can run code when it is read.
"""

import math
from typing import Final

from .codes import usv_string

__all__ = (
    "MAX_ATTACHMENT_BYTES",
    "MIN_WEIGHT",
    "Message",
    "as_message",
    "pack_attachment",
    "size_of",
    "unpack_attachment",
    "weight_of",
)

Message = str | bytes
MIN_WEIGHT: Final = 64
"""The bytes that a small message counts towards `max_buffered_bytes`, as its place in
the queue takes memory."""


def as_message(value: object) -> Message:
    """Return `value` as the message that `send()` sends for it.

    Mutable bytes are copied. Numbers become text as ECMAScript prints them.

    Raises:
        TypeError: `value` is neither text, nor bytes, nor a number.
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
    """Return the length of the payload of a message, in bytes."""
    if message.__class__ is bytes or message.isascii():
        return len(message)
    return len(message.encode()) if isinstance(message, str) else len(message)


def weight_of(size: int) -> int:
    """Return what a message of `size` bytes counts towards `max_buffered_bytes`.

    `Inbox` has a copy of this expression where it runs for every message.
    """
    return max(size, MIN_WEIGHT)


def _number_text(value: float) -> str:
    """Return a number as text, as in ECMAScript (ECMA-262, Number::toString)."""
    if isinstance(value, int):
        return format(int(value), "d")
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    # Python and ECMAScript use the same digits, but write exponents differently.
    mantissa, _, exponent = repr(abs(float(value))).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0)
    point -= len(whole + fraction) - len(digits)
    digits = digits.rstrip("0")
    return sign + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """Return the digits with the decimal point, or the exponent, of ECMAScript.

    The number is 0.`digits` times 10 to the power of `point`.
    """
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    head, rest = digits[0], digits[1:]
    return f"{head}{'.' if rest else ''}{rest}e{point - 1:+d}"


MAX_ATTACHMENT_BYTES: Final = 16_384
"""The most bytes of a packed attachment. Workers have the same limit."""


def pack_attachment(value: object) -> bytes:
    """Return `value` as bytes that `unpack_attachment()` can read.

    Raises:
        TypeError: `value` contains an object that can't be stored.
        ValueError: `value` is too large, or nested too deeply.
    """
    import cbor2  # noqa: PLC0415 - not imported without attachments

    try:
        packed = cbor2.dumps(value, value_sharing=True)
        cbor2.loads(packed)  # An error has to be raised now, and not at a later read.
    except (cbor2.CBOREncodeError, UnicodeEncodeError) as exc:
        why = str(exc)
        if why.startswith("naive datetime"):  # The text of cbor2 names its options.
            why = "a naive datetime has no timezone; datetime.now(UTC) has one"
        msg = (
            f"the value can't be attached: {why}. Attach None, bool, int, float, str, "
            "bytes, aware datetimes, and lists, dicts and sets of these"
        )
        raise TypeError(msg) from exc
    except (cbor2.CBORDecodeError, RecursionError) as exc:
        msg = f"the value can't be attached, as it could not be read back: {exc}"
        raise ValueError(msg) from exc
    if len(packed) > MAX_ATTACHMENT_BYTES:
        msg = (
            f"an attachment has at most {MAX_ATTACHMENT_BYTES} bytes, this one "
            f"{len(packed)}: keep the data elsewhere and attach a key to it"
        )
        raise ValueError(msg)
    return packed


def unpack_attachment(packed: bytes) -> object:
    """Return a new copy of the value that was given to `pack_attachment()`."""
    import cbor2  # noqa: PLC0415 - see above

    value: object = cbor2.loads(packed)
    return value
