"""What `serialize_attachment()` keeps: values to bytes and back, as CBOR.

Knows no sockets. CBOR (RFC 8949) rather than JSON for bytes, dates, sets and
shared references, and rather than pickle because reading it runs no code.
"""

from typing import Final

import cbor2

__all__ = ("MAX_ATTACHMENT_BYTES", "pack", "unpack")

MAX_ATTACHMENT_BYTES: Final = 16_384
"""As in Workers; measured on the serialised form."""


def pack(value: object) -> bytes:
    """Return `value` as bytes that `unpack()` can read.

    Raises:
        TypeError: Something in it can't be kept.
        ValueError: It is too large, or nested too deeply.
    """
    try:
        packed = cbor2.dumps(value, value_sharing=True)
        cbor2.loads(packed)  # What can't be read back is refused now, not later.
    except (cbor2.CBOREncodeError, UnicodeEncodeError) as exc:
        why = str(exc)
        if why.startswith("naive datetime"):  # The rest is about options of cbor2.
            why = "a naive datetime has no timezone; datetime.now(UTC) has one"
        msg = (
            f"this can't be attached: {why}. Attach None, bool, int, float, str, "
            "bytes, aware datetimes, and lists, dicts and sets of these"
        )
        raise TypeError(msg) from exc
    except (cbor2.CBORDecodeError, RecursionError) as exc:
        msg = f"this can't be attached, it could not be read back: {exc}"
        raise ValueError(msg) from exc
    if len(packed) > MAX_ATTACHMENT_BYTES:
        msg = (
            f"an attachment has at most {MAX_ATTACHMENT_BYTES} bytes, this one "
            f"{len(packed)}: keep the data elsewhere and attach a key to it"
        )
        raise ValueError(msg)
    return packed


def unpack(packed: bytes) -> object:
    """Return a fresh copy of what `pack()` was given."""
    value: object = cbor2.loads(packed)
    return value
