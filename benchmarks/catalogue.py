"""All works, by section: a file of works is added here."""

from collections.abc import Mapping
from typing import Final

from .in_memory import works as in_memory
from .network import works as network
from .work import Work

__all__ = ("SECTIONS", "WORKS")


def _objects() -> Mapping[str, tuple[Work, ...]]:
    try:
        from .objects import works  # noqa: PLC0415
    except ImportError:
        return {}  # The first versions, with which a commit may be compared, have none.
    return {
        "Objects in memory": works.IN_MEMORY,
        "Objects over loopback": works.LOOPBACK,
    }


SECTIONS: Final[Mapping[str, tuple[Work, ...]]] = {
    "In memory": in_memory.MESSAGES,
    "The cost of a pair": in_memory.COSTS,
    "Over loopback": network.WORKS,
    **_objects(),
}
WORKS: Final[Mapping[str, Work]] = {
    work.name: work for works in SECTIONS.values() for work in works
}
