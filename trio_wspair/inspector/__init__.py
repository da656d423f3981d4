"""A local page that shows the connections of this process, and their frames, live."""

from trio_wspair._rules.exports import name_public_module as _name_public_module

from ._inspector import Inspector, open_inspector

__all__ = ("Inspector", "open_inspector")

_name_public_module(globals())
