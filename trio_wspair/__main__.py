"""``python -m trio_wspair``: the command ``trio-wspair``."""

from trio_wspair._command.main import main

__all__ = ()

if __name__ == "__main__":  # pragma: no branch
    main()
