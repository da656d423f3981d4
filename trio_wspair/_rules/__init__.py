"""What is legal and what follows: errors, codes, states, checks. No Trio and no I/O."""

__all__ = ()
