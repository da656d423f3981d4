"""A local page that shows the connections of this process, and their frames, live."""

from ._inspector import Inspector, open_inspector

__all__ = ("Inspector", "open_inspector")
