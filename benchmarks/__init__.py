"""The speed of trio-wspair, compared with its alternatives.

``nox -s bench`` installs the implementations that are compared and runs
``python -m benchmarks``. Each sample is taken in a separate process. The
implementations take turns: A B C A B C ... Each ratio compares two samples of the same
round, so that a slow drift of the machine cancels out; the tables show the median of
the rounds.
"""
