"""The resources of a process: descriptors, tasks, halves, memory; and their limits."""

import gc
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import attrs
import trio

from trio_wspair import WebSocket

# How much more memory may be in use at the end of a run than in its middle.
#
# The number of blocks is the more exact measure, because it counts live memory only. It
# rose by 90 at most after 5,000 connections, and by up to 900 in runs of a few seconds,
# while caches fill. A leak in each connection would make it rise by thousands.
#
# RSS depends on which large messages coincide, and on how much memory the allocator
# returns. It changed by -1.5 to 6.5 MiB, and was no larger after 64,000 connections
# than after 20,000. It includes large buffers, which aren't blocks: a leak of 4 KiB in
# each of 5,000 connections would be 20 MiB.
MAX_BLOCKS: Final = 1_500
MAX_MEMORY: Final = 16 * 2**20


@attrs.frozen
class Numbers:
    """The resources of a process at one moment."""

    descriptors: dict[str, int]
    """The number of descriptors of each kind, such as ``socket``."""
    tasks: dict[str, int]
    """The number of tasks that run each function."""
    halves: int
    """The number of `WebSocket` objects."""
    blocks: int
    """The number of memory blocks that Python has allocated."""
    memory: int
    """The resident memory in bytes (RSS)."""


def take_numbers() -> Numbers:
    """Collect the garbage, and count. Call this in a Trio task."""
    # Objects that a finalizer releases are collected in the next round.
    for _ in range(3):
        gc.collect()
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return Numbers(
        dict(Counter(_descriptors())),
        dict(Counter(_tasks())),
        sum(type(thing) is WebSocket for thing in gc.get_objects()),
        sys.getallocatedblocks(),
        pages * os.sysconf("SC_PAGE_SIZE"),
    )


def _descriptors() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # The descriptor that lists the folder.
            yield os.readlink(f"/proc/self/fd/{number}").split(":[")[0]


def _tasks() -> Iterator[str]:
    root = trio.lowlevel.current_root_task()
    left = [] if root is None else [root]
    while left:
        task = left.pop()
        yield task.name
        for nursery in task.child_nurseries:
            left += nursery.child_tasks


def is_back(before: Numbers, after: Numbers) -> bool:
    """Whether the numbers of descriptors, tasks and halves are the same."""
    return not _exact_differences(before, after)


def what_is_left(first: Numbers, middle: Numbers, last: Numbers) -> list[str]:
    """Return a fault for each number that is too large at the end."""
    wrong = _exact_differences(first, last)
    blocks = last.blocks - middle.blocks
    if blocks > MAX_BLOCKS:
        wrong.append(f"memory: {blocks} blocks more than in the middle")
    memory = last.memory - middle.memory
    if memory > MAX_MEMORY:
        wrong.append(f"memory: {memory} bytes more than in the middle")
    return wrong


def _exact_differences(before: Numbers, after: Numbers) -> list[str]:
    differences = []
    for what in ("descriptors", "tasks"):
        then, now = Counter(getattr(before, what)), Counter(getattr(after, what))
        if then != now:
            more, fewer = dict(now - then), dict(then - now)
            differences.append(f"{what}: {more} too many, {fewer} too few")
    if after.halves != before.halves:
        differences.append(f"halves: {after.halves - before.halves} are left")
    return differences
