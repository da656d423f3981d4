"""A soak: `nox -s soak`, or `python -m soak` with `tests` on the path.

Thousands of connections are opened, used, cut, cancelled and closed at random, against
one server in another process. In the end the descriptors, the tasks and the memory
of both processes have to be back where they were. Reads `/proc`: for Linux only.
"""
