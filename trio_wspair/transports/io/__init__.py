"""Bytes in and out of the network: sockets, streams and TLS."""

__all__ = ()
