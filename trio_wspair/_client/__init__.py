"""Clients: dialing, connecting, reconnecting."""

__all__ = ()
