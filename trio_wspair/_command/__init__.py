"""The command `trio-wspair`."""

__all__ = ()
