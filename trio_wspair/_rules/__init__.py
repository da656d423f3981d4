"""The rules: errors, close codes, states, and checks of values. No Trio, no I/O."""

__all__ = ()
