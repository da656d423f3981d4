"""All works, by section: a file of works is added here."""

from collections.abc import Mapping
from typing import Final

from .in_memory import works as in_memory
from .network import works as network
from .work import Work

__all__ = ("SECTIONS", "WORKS")

SECTIONS: Final[Mapping[str, tuple[Work, ...]]] = {
    "In memory": in_memory.MESSAGES,
    "The cost of a pair": in_memory.COSTS,
    "Over loopback": network.WORKS,
}
WORKS: Final[Mapping[str, Work]] = {
    work.name: work for works in SECTIONS.values() for work in works
}
