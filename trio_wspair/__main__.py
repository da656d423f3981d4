"""``python -m trio_wspair``, the same as the command ``trio-wspair``."""

from ._cli import main

__all__ = ()

if __name__ == "__main__":  # pragma: no branch
    main()
