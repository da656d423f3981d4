"""What several packages need of Trio: nurseries, timers, the cork."""

__all__ = ()
