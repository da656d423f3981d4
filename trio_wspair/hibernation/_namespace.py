"""`DurableObjectNamespace`: the objects of one class, and the nurseries they run in.

Theory of operation. There are two nurseries: instances run in the outer one, and the
dispatcher of the sockets in the inner one. When the block of the namespace ends, its
sockets are closed first, so that close handlers still find their objects; then every
instance is reset. There is an `Actor` for each object that has an instance or sockets.
Without either, it is forgotten after some time, by a task of the outer nursery.
"""

import contextvars
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

import attrs
import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from trio_wspair._http.messages import Request, Response
from trio_wspair._pair.dispatcher import NurseryHome
from trio_wspair._pair.owner import current_owner
from trio_wspair._pair.pair import close_all
from trio_wspair._pair.verbs import half_of, move
from trio_wspair._rules.errors import InvalidStateError
from trio_wspair._rules.limits import check_seconds
from trio_wspair._rules.objects import DurableObjectId, id_from_name, new_unique_id
from trio_wspair._rules.state import Cause, Failure, Holder, check_thread
from trio_wspair._tasks.nurseries import open_service_nursery

from ._actor import Actor
from ._handlers import Handlers
from ._instance import Instance, Residence
from ._object import DurableObject
from ._sockets import note_given
from ._state import DurableObjectState

__all__ = ("DurableObjectNamespace", "DurableObjectStub")

_CLOSE_GRACE: Final = 1.0
"""Seconds for sockets and handlers to end when the namespace is left."""
_REMEMBERED: Final = 70.0
"""Seconds for which settings of an object without sockets stay, as in workerd."""
_AT_ONCE: Final = 64
"""The most objects that are forgotten between two checkpoints."""


class DurableObjectStub:
    """Sends requests to one object, which is constructed when it is first needed."""

    __slots__ = ("_id", "_namespace")

    def __init__(
        self, namespace: "DurableObjectNamespace", object_id: DurableObjectId
    ) -> None:
        self._namespace = namespace
        self._id = object_id

    def __repr__(self) -> str:
        name = self._id.name
        return f"<DurableObjectStub {self._id if name is None else repr(name)}>"

    @property
    def id(self) -> DurableObjectId:
        """The id of the object."""
        return self._id

    @property
    def name(self) -> str | None:
        """The name of the object, if its id was made from one."""
        return self._id.name

    async def fetch(self, request: Request) -> Response:
        """Have the object's `fetch()` answer a request. Always a checkpoint.

        The half of a `Response` with status 101 belongs to the caller, which returns it
        to a client or accepts it. Its tasks run in the nursery of the caller's request;
        outside of a request, in that of the namespace. A half that is not taken ends
        with the caller's request; outside of a request, take it or call its `aclose()`.

        Raises:
            InvalidStateError: The namespace is not open.
            DurableObjectResetError: The object was reset meanwhile.
            TypeError: `request` is not a `Request`, or the object's `fetch()` has not
                returned a `Response`.
            Exception: What the object's `fetch()` or constructor has raised.
        """
        return await self._namespace._fetch(self._id, request)


class DurableObjectNamespace:
    """The objects of one class. Each has an id, and at most one instance in memory.

    ``async with DurableObjectNamespace(Room) as rooms:`` opens it; in the block,
    ``await rooms.get_by_name("lobby").fetch(request)`` calls an object. Objects and the
    handlers of their sockets run in nurseries of the namespace. When the block ends,
    the sockets are closed with code 1001, and the closing handshakes get one second.
    Then the instances end; handlers and tasks that are still running are cancelled.

    Args:
        cls: A class derived from `DurableObject`.
        env: Any value; each instance gets it as `self.env`.
        hibernate_after: The seconds that an object without running handlers and tasks
            stays in memory.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `hibernate_after` is negative.
    """

    def __init__(
        self,
        cls: type[DurableObject],
        env: Any = None,  # noqa: ANN401 - the user's
        hibernate_after: float = 10.0,
    ) -> None:
        if not isinstance(cls, type) or not issubclass(cls, DurableObject):
            msg = f"cls must be a class derived from DurableObject, not {cls!r}"
            raise TypeError(msg)
        check_seconds("hibernate_after", hibernate_after)
        self._cls = cls
        self._env: Any = env
        self._residence = Residence(hibernate_after)
        self._actors: dict[str, Actor] = {}
        self._empty_since: dict[str, float] = {}
        """Objects with neither an instance nor sockets: since when, oldest first."""
        self._has_empty = trio.Event()
        """Set when there is such an object, if the task that forgets them waits."""
        self._opened: AbstractAsyncContextManager[None] | None = None
        self._home: NurseryHome | None = None
        """The home of the sockets, while the namespace is open."""
        self._instances: trio.Nursery

    def __repr__(self) -> str:
        return f"<DurableObjectNamespace of {self._cls.__name__}>"

    # -- objects --------------------------------------------------------------------

    def id_from_name(self, name: str) -> DurableObjectId:
        """Return the id of this name: always the same for a class with the same name.

        Raises:
            TypeError: The name is not a str.
        """
        # Without the module of the class, which is __main__ in a program.
        return id_from_name(self._cls.__qualname__, name)

    def id_from_string(self, digits: str) -> DurableObjectId:
        """Return the id whose `str` this is.

        Raises:
            TypeError: `digits` is not a str.
            ValueError: `digits` is not the `str` of an id.
        """
        return DurableObjectId(digits)

    def new_unique_id(self) -> DurableObjectId:
        """Return an id that no other object has."""
        return new_unique_id()

    def get(self, object_id: DurableObjectId) -> DurableObjectStub:
        """Return a stub of the object with this id.

        Raises:
            TypeError: `object_id` is not a `DurableObjectId`.
        """
        return DurableObjectStub(self, _checked_id(object_id))

    def get_by_name(self, name: str) -> DurableObjectStub:
        """Return a stub of the object with this name.

        Raises:
            TypeError: The name is not a str.
        """
        return DurableObjectStub(self, self.id_from_name(name))

    @enable_ki_protection
    def evict(self, object_id: DurableObjectId) -> None:
        """Let an object leave memory: now, or when its running handlers have ended.

        Sockets that it has accepted with `accept()` end then. Those that it has
        accepted with `accept_web_socket()` stay, and the next event constructs a new
        instance. No effect if the object is not in memory.

        Raises:
            TypeError: `object_id` is not a `DurableObjectId`.
        """
        key = str(_checked_id(object_id))
        self._check_thread("evict()")
        if key in self._actors:
            self._actors[key].evict()

    # -- opening and leaving ----------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the nursery of the objects.

        Raises:
            InvalidStateError: The namespace was opened before.
        """
        if self._opened is not None:
            msg = "a namespace can be opened only once: create another one"
            raise InvalidStateError(msg)
        self._opened = self._open()
        await self._opened.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Close all sockets, and end all instances."""
        assert self._opened is not None
        # Everything that it waits for is bounded.
        return await self._opened.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None, None]:
        try:
            async with open_service_nursery() as self._instances:
                # An empty context: objects must not depend on that of this task.
                contextvars.Context().run(
                    self._instances.start_soon, self._forget_empty
                )
                try:
                    async with open_service_nursery() as sockets:
                        self._home = NurseryHome(sockets, _CLOSE_GRACE)
                        try:
                            yield
                            await self._close_sockets()
                        finally:
                            self._home = None
                finally:
                    for actor in self._actors.values():
                        actor.end()
        finally:
            self._actors.clear()
            self._empty_since.clear()

    async def _close_sockets(self) -> None:
        sockets = [s for a in self._actors.values() for s in a.sockets.listed(None)]
        self._home = None
        for half in map(half_of, sockets):
            if half.peer.holder is Holder.NONE:
                half.fail(Failure(Cause.PEER_NEVER_TAKEN.reason))
        await close_all(sockets, 1001, _CLOSE_GRACE)

    # -- requests --------------------------------------------------------------------

    @enable_ki_protection
    async def _fetch(self, object_id: DurableObjectId, request: Request) -> Response:
        if not isinstance(request, Request):
            msg = f"fetch() takes a Request, not {type(request).__name__}"
            raise TypeError(msg)
        self._check_thread("fetch()")
        await trio.lowlevel.checkpoint()
        home = self._home
        if home is None:
            if self._opened is None:
                msg = f"{self!r} is not open: use it as `async with` before fetch()"
            else:
                msg = f"{self!r} has ended: call fetch() in its `async with` block"
            raise InvalidStateError(msg)
        response = await self._actor(object_id, home).fetch(request)
        socket = response.web_socket
        if socket is not None and half_of(socket).state.holder is Holder.NONE:
            owner = current_owner.get()
            nursery = home.nursery if owner is None else owner.nursery
            move(socket, attrs.evolve(home, nursery=nursery))
            note_given(socket)
            if owner is not None:
                owner.give(socket)
        return response

    def _check_thread(self, verb: str) -> None:
        if self._home is not None:
            check_thread(self._home.thread, verb)

    def _actor(self, object_id: DurableObjectId, home: NurseryHome) -> Actor:
        key = str(object_id)
        self._empty_since.pop(key, None)
        if key not in self._actors:
            self._actors[key] = Actor(
                f"{self._cls.__name__} {object_id.name or key!r}",
                build=partial(self._build, object_id),
                residence=self._residence,
                home=home,
                instances=self._instances,
                on_empty=partial(self._note_empty, key),
            )
        return self._actors[key]

    def _note_empty(self, key: str) -> None:
        """Forget an object after some time, unless it is used again until then."""
        self._empty_since.pop(key, None)
        self._empty_since[key] = trio.current_time()
        self._has_empty.set()

    async def _forget_empty(self) -> None:
        """Forget objects that have been empty for long enough, a few at a time."""
        while True:
            if not self._empty_since:
                self._has_empty = trio.Event()
                await self._has_empty.wait()
            since = next(iter(self._empty_since.values()), trio.current_time())
            await trio.sleep_until(since + _REMEMBERED)
            now = trio.current_time()
            for key, since in list(islice(self._empty_since.items(), _AT_ONCE)):
                if now < since + _REMEMBERED:
                    break
                del self._empty_since[key], self._actors[key]

    @disable_ki_protection
    def _build(
        self, object_id: DurableObjectId, actor: Actor, instance: Instance[Handlers]
    ) -> DurableObject:
        return self._cls(DurableObjectState(object_id, actor, instance), self._env)


def _checked_id(object_id: object) -> DurableObjectId:
    if not isinstance(object_id, DurableObjectId):
        msg = (
            "object_id must be a DurableObjectId, as from id_from_name(), not "
            f"{type(object_id).__name__}; with a name, call get_by_name()"
        )
        raise TypeError(msg)
    return object_id
