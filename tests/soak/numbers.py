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
# Blocks are the sharper measure, as they are only what is kept. There were at most
# 90 more after 5,000 connections, and up to 900 in a run of seconds, while caches are
# filled. What each connection leaves behind makes thousands.
#
# RSS depends on which large messages meet by chance, and on what the allocator gives
# back. It was between 1.5 MiB less and 6.5 MiB more, and after 64,000 connections no
# more than after 20,000. It shows large buffers, which aren't blocks: 4 KiB for
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
    """Objects of the class `WebSocket`."""
    blocks: int
    """Pieces of memory that Python has allocated."""
    memory: int
    """Bytes of memory in use, as the system counts (RSS)."""


def take_numbers() -> Numbers:
    """Count, after the garbage has been collected. Called in a Trio task."""
    for _ in range(
        3
    ):  # Objects that a finalizer releases are collected in the next round.
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
    """Return whether the exact counts are unchanged."""
    return not _exact_differences(before, after)


def what_is_left(first: Numbers, middle: Numbers, last: Numbers) -> list[str]:
    """Return a sentence for each number that is too large in the end."""
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
