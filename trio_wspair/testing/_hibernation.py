"""`hibernate_after_every_event()`: objects that forget all they may forget."""

from collections.abc import Generator
from contextlib import contextmanager

from trio_wspair.hibernation import DurableObjectNamespace

__all__ = ("hibernate_after_every_event",)


@contextmanager
def hibernate_after_every_event(
    namespace: DurableObjectNamespace,
) -> Generator[None, None, None]:
    """Let the objects of `namespace` leave memory whenever no event runs in them.

    An object that keeps what it needs in attachments, tags and `env` behaves just
    the same; one that relies on an attribute is found out. Even between two messages
    that are there already it is another instance, unlike with ``hibernate_after=0``.
    What keeps an object awake does so here too.

    Args:
        namespace: It need not be open yet.

    Raises:
        TypeError: It is no namespace.
    """
    if not isinstance(namespace, DurableObjectNamespace):
        kind = type(namespace).__name__
        msg = f"namespace is a DurableObjectNamespace, not {kind}"
        raise TypeError(msg)
    residence = namespace._residence
    before = residence.leaves_at_once
    residence.leaves_at_once = True
    for actor in namespace._actors.values():
        actor.look_around()
    try:
        yield
    finally:
        residence.leaves_at_once = before
