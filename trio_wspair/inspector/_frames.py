"""`Frames`: what is kept of the frames that have passed, within bounds.

Knows histories, each that of one connection, not what a connection is.
"""

from base64 import b64encode
from collections import OrderedDict, deque
from sys import getsizeof
from typing import Any, Final, Literal

import attrs

__all__ = ("Frame", "Frames", "History", "Kind", "Way")

Kind = Literal["text", "binary", "close", "error"]
"""What it was; ``"error"`` is no frame: something has gone wrong, at the end."""
Way = Literal["in", "out", ""]
"""From the network, or to it. What is neither has none."""

_FOLDED: Final = 2**14
"""So many characters or bytes of a payload are kept."""
_OVERHEAD: Final = 256
"""About what a frame takes in memory beside its payload."""


@attrs.define(slots=True, eq=False)
class Frame:
    """A frame that has passed."""

    number: int
    """Of its connection: 1 is the first."""
    time: float
    """As `time.time()`."""
    way: Way
    kind: Kind
    data: str | bytes
    """The payload, or its beginning. Of a Close its reason, of an error its text."""
    size: int
    """The bytes of the whole payload."""
    code: int | None = None
    """Of a Close; of an error 1006, if there was no closing handshake."""
    folded: bool = attrs.field(init=False)
    """Whether the payload was longer than what is kept."""

    def __attrs_post_init__(self) -> None:
        self.folded = len(self.data) > _FOLDED
        if self.folded:
            self.data = self.data[:_FOLDED]

    @property
    def weight(self) -> int:
        """About the bytes of memory that it takes."""
        return getsizeof(self.data) + _OVERHEAD

    def as_json(self) -> dict[str, Any]:
        """Return what a page is told: binary data in Base64."""
        fields = attrs.asdict(self)
        if isinstance(self.data, bytes):
            fields["data"] = b64encode(self.data).decode()
        return fields


History = deque[Frame]
"""What is kept of one connection: the last frames."""


class Frames:
    """The frames of all connections. The oldest have to go.

    Args:
        most: How many are kept of one connection.
        most_bytes: How much memory all of them may take, about.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.weight = 0
        """What they take."""
        # The oldest of all is also the oldest of its history, so that whatever goes
        # is the first of one.
        self._histories: OrderedDict[Frame, History] = OrderedDict()

    def add(self, frame: Frame, history: History) -> None:
        """Keep a frame as the last one of its history."""
        history.append(frame)
        self._histories[frame] = history
        self.weight += frame.weight
        if len(history) > self._most:
            self._drop_first(history)
        while self.weight > self._most_bytes:
            self._drop_first(next(iter(self._histories.values())))

    def forget(self, history: History) -> None:
        """Drop a whole history."""
        while history:
            self._drop_first(history)

    def _drop_first(self, history: History) -> None:
        frame = history.popleft()
        del self._histories[frame]
        self.weight -= frame.weight
