"""How fast trio-wspair is, as ratios to what does the same work without it.

``python -m benchmarks`` in the root of the project, or ``nox -s bench``. Every sample
is taken in a process of its own, and contestants take turns: A B A B ... A ratio is
the median over the rounds of ours against theirs in the same round, so that a slow
drift of the machine cancels out.
"""
