"""How fast trio-wspair is, beside everything that one would take instead.

``nox -s bench`` installs the contestants and runs ``python -m benchmarks``. Every
sample is taken in a process of its own, and contestants take turns: A B C A B C ... A
ratio is the median over the rounds of ours against theirs in the same round, so that a
slow drift of the machine cancels out.
"""
