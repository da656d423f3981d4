"""The server: accepting connections, and one request at a time."""

__all__ = ()
