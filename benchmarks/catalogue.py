"""All workloads, by section. Each module of workloads is listed here."""

from collections.abc import Mapping
from typing import Final

from .in_memory import workloads as in_memory
from .network import workloads as network
from .workload import Workload

__all__ = ("SECTIONS", "WORKLOADS")


def _objects() -> Mapping[str, tuple[Workload, ...]]:
    try:
        from .objects import workloads  # noqa: PLC0415
    except ImportError:
        return {}  # `benchmarks.compare` runs versions without Durable Objects, too.
    return {
        "Objects in memory": workloads.IN_MEMORY,
        "Objects over loopback": workloads.LOOPBACK,
    }


SECTIONS: Final[Mapping[str, tuple[Workload, ...]]] = {
    "In memory": in_memory.MESSAGES,
    "The cost of a pair": in_memory.COSTS,
    "Over loopback": network.WORKLOADS,
    **_objects(),
}
WORKLOADS: Final[Mapping[str, Workload]] = {
    workload.name: workload for workloads in SECTIONS.values() for workload in workloads
}
