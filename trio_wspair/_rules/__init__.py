"""What is legal, and what follows: errors, codes, states, checks. No Trio, no I/O."""

__all__ = ()
