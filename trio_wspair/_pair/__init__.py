"""The pair: two halves, their queues and their events."""

__all__ = ()
