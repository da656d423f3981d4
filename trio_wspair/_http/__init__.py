"""HTTP: requests and responses, their bodies, and HTTP/1.1 on a stream."""

__all__ = ()
