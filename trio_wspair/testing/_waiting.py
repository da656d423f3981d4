"""What a half is doing just now, in words: for whoever asks why nothing comes.

Looks at halves and at Trio's tasks, and changes nothing.
"""

from pathlib import PurePath
from types import FrameType
from typing import Final

import trio

from trio_wspair._pair.verbs import half_of
from trio_wspair._pair.websocket import WebSocket
from trio_wspair._rules.state import Holder

__all__ = ("is_inside", "place_of", "state_of", "waits_of")

_INNER_PACKAGES: Final = frozenset({"trio", "trio_wspair"})


def state_of(socket: WebSocket) -> list[str]:
    """Return lines about the state of a half."""
    half = half_of(socket)
    lines = [half.state.describe()]
    queue = half.inbox.items.statistics()
    waiting = queue.current_buffer_used - (half.inbox.end is not None)
    if waiting > 0:
        noun = "message was" if waiting == 1 else "messages were"
        lines.append(f"{waiting} {noun} not taken")
    if half.state.holder is Holder.NONE:
        lines.append("nobody has called accept()")
    if (
        half.listener_task is None
        and half.state.holder is Holder.APPLICATION
        and half.state.end is None
        and "message" not in half.listeners
    ):
        lines.append("it has no listener for messages")
    return lines


def waits_of(socket: WebSocket) -> list[str]:
    """Return the steps that wait at a half."""
    half = half_of(socket)
    lines: list[str] = []
    if half.inbox.items.statistics().tasks_waiting_receive:
        lines.append("receive(), or iteration, waits for a message")
    task = half.listener_task
    # What has just raised runs, and waits for nothing.
    if task is not None and task is not trio.lowlevel.current_task():
        by_object = half.state.holder is Holder.HIBERNATION
        what = "its Durable Object" if by_object else "a listener"
        lines.append(f"{what} waits{place_of(task)}")
    return lines


def place_of(task: trio.lowlevel.Task) -> str:
    """Return where a task waits in the code of the user, ``""`` if that is unknown.

    It is unknown of a handler of a Durable Object, which is driven step by step.
    """
    place = ""
    for frame, line in task.iter_await_frames():
        if not is_inside(frame):
            code = frame.f_code
            name = code.co_qualname.rpartition("<locals>.")[2]
            place = f", in {name}, {PurePath(code.co_filename).name}:{line}"
    return place


def is_inside(frame: FrameType) -> bool:
    """Return whether code of this library or of Trio runs in a frame."""
    name = str(frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] in _INNER_PACKAGES
