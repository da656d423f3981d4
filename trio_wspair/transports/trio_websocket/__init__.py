"""The engine on trio-websocket."""

__all__ = ()
