"""How fast trio-wspair is, compared with its alternatives.

``nox -s bench`` installs the contestants and runs ``python -m benchmarks``. Each
sample is taken in a separate process, and contestants take turns: A B C A B C ... A
ratio is the median over the rounds of ours against theirs in the same round, so that a
slow drift of the machine cancels out.
"""
