"""Network I/O: sockets, streams, whole frames, and TLS."""

__all__ = ()
