"""How objects are told apart: names and ids."""

import hashlib
import re
import secrets
from typing import Any, Final

import attrs

__all__ = ("DurableObjectId", "id_from_name", "new_unique_id")

_DIGITS: Final = re.compile(r"[0-9a-f]{64}")


def _check_digits(_id: object, _field: object, digits: Any) -> None:  # noqa: ANN401
    if not isinstance(digits, str):
        msg = f"an id is made from a str, not from {type(digits).__name__}"
        raise TypeError(msg)
    if _DIGITS.fullmatch(digits) is None:
        msg = f"an id has 64 hexadecimal digits in lower case, as str(id): {digits!r}"
        raise ValueError(msg)


@attrs.frozen
class DurableObjectId:
    """Which object of a namespace is meant; equal ids mean the same one.

    Raises:
        TypeError: The digits are no str.
        ValueError: They are no 64 hexadecimal digits in lower case.
    """

    _digits: str = attrs.field(alias="digits", validator=_check_digits)
    name: str | None = attrs.field(default=None, eq=False)
    """What it was made from by `id_from_name()`."""

    def __str__(self) -> str:
        """Return the 64 hexadecimal digits that `id_from_string()` takes."""
        return self._digits


def id_from_name(namespace: str, name: object) -> DurableObjectId:
    """Return the id that a name always has in this namespace.

    Raises:
        TypeError: The name is no str.
    """
    if not isinstance(name, str):
        msg = f"the name of an object is a str, not {type(name).__name__}"
        raise TypeError(msg)
    seed = f"{namespace}\0{name}".encode("utf-8", "surrogatepass")
    return DurableObjectId(hashlib.sha256(seed).hexdigest(), name)


def new_unique_id() -> DurableObjectId:
    """Return an id that no other object has."""
    return DurableObjectId(secrets.token_hex(32))
