"""The protocol of WebSockets: bytes in, items out; no I/O."""

__all__ = ()
