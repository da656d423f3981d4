"""A soak test: `nox -s soak`, or `python -m soak` with `tests` on the import path.

Thousands of clients connect to one server in another process. Their connections are
used, cut, cancelled and closed at random. At the end, both processes must have the same
numbers of descriptors and tasks as at the start, and about the same memory. The soak
test reads `/proc`, so it needs Linux.
"""
