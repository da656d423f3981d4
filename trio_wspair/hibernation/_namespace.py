"""`DurableObjectNamespace`: all objects of one class, and the nursery they live in."""

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
from trio_wspair._rules.state import Failure, Holder, check_thread
from trio_wspair._tasks.nurseries import open_service_nursery

from ._actor import Actor
from ._context import DurableObjectState
from ._handlers import Handlers
from ._instance import Instance, Residence
from ._object import DurableObject
from ._sockets import note_given

__all__ = ("DurableObjectNamespace", "DurableObjectStub")

_CLOSE_GRACE: Final = 1.0
"""Seconds that sockets and handlers get when the namespace ends."""
_REMEMBERED: Final = 70.0
"""Seconds that settings of an object without sockets are kept, as in workerd."""
_AT_ONCE: Final = 64
"""How many objects are forgotten between two checkpoints."""


class DurableObjectStub:
    """A way to one object, which is created when it is first needed."""

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

        The half of a `Response` with status 101 is the caller's: given to a client,
        or accepted. Its tasks run in the nursery of the caller's request, or else in
        that of the namespace. If nobody takes it, it ends with the request that is
        being handled; outside of one, take it or call its `aclose()`.

        Raises:
            InvalidStateError: The namespace is not open.
            DurableObjectResetError: The object was reset meanwhile.
            TypeError: It is no request, or the answer is no response.
            Exception: What the object's `fetch()` or constructor has raised.
        """
        return await self._namespace._fetch(self._id, request)


class DurableObjectNamespace:
    """All objects of one class, each with an id, at most one instance of each.

    ``async with DurableObjectNamespace(Room) as rooms:``, and in there
    ``await rooms.get_by_name("lobby").fetch(request)``. Objects and the events of
    their sockets live in a nursery of the namespace. On leaving, their sockets are
    closed with 1001 and the closing handshakes get a second; then the instances end,
    and what still runs in them is cancelled.

    Args:
        cls: A class derived from `DurableObject`.
        env: Given to each instance as it is.
        hibernate_after: Seconds in which no event runs in an object, nor a task of
            its own, until it leaves memory.

    Raises:
        TypeError: An argument is of another type.
        ValueError: The seconds are negative.
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
        self._resting: dict[str, float] = {}
        """Since when objects have neither an instance nor sockets: the first first."""
        self._rested = trio.Event()
        """Set when there is one, if the task that forgets them waits for that."""
        self._opened: AbstractAsyncContextManager[None] | None = None
        self._home: NurseryHome | None = None
        """Where its sockets live, while it is open."""
        self._lives: trio.Nursery

    def __repr__(self) -> str:
        return f"<DurableObjectNamespace of {self._cls.__name__}>"

    # -- objects --------------------------------------------------------------------

    def id_from_name(self, name: str) -> DurableObjectId:
        """Return the id of this name, always the same one for classes of this name.

        Raises:
            TypeError: It is no str.
        """
        # Not its module, which is __main__ if it happens to be started.
        return id_from_name(self._cls.__qualname__, name)

    def id_from_string(self, digits: str) -> DurableObjectId:
        """Return the id whose `str` this is.

        Raises:
            TypeError: It is no str.
            ValueError: It is no id.
        """
        return DurableObjectId(digits)

    def new_unique_id(self) -> DurableObjectId:
        """Return an id that no other object has."""
        return new_unique_id()

    def get(self, object_id: DurableObjectId) -> DurableObjectStub:
        """Return a stub of the object with this id.

        Raises:
            TypeError: It is no id.
        """
        return DurableObjectStub(self, _checked_id(object_id))

    def get_by_name(self, name: str) -> DurableObjectStub:
        """Return a stub of the object with this name.

        Raises:
            TypeError: It is no str.
        """
        return DurableObjectStub(self, self.id_from_name(name))

    @enable_ki_protection
    def evict(self, object_id: DurableObjectId) -> None:
        """Let an object leave memory: now, or when the events that run have ended.

        Its plainly accepted sockets end then; those that it accepted with
        `accept_web_socket()` stay, and the next event builds a new instance. Nothing
        happens if it is not in memory.

        Raises:
            TypeError: It is no id.
        """
        key = str(_checked_id(object_id))
        self._check_thread("evict()")
        if key in self._actors:
            self._actors[key].evict()

    # -- its own life -----------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the nursery of the objects.

        Raises:
            InvalidStateError: It was opened before.
        """
        if self._opened is not None:
            msg = "a namespace can be opened once: make another one"
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
        # It bounds all that it waits for.
        return await self._opened.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None, None]:
        try:
            async with open_service_nursery() as self._lives:
                # An empty context: that of this task is none of its business.
                contextvars.Context().run(self._lives.start_soon, self._forget)
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
            self._resting.clear()

    async def _close_sockets(self) -> None:
        sockets = [s for a in self._actors.values() for s in a.sockets.listed(None)]
        self._home = None
        for half in map(half_of, sockets):
            if half.peer.holder is Holder.NONE:
                half.fail(Failure("nobody has taken the other half"))
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
            what = "is not open yet" if self._opened is None else "has ended"
            msg = f"the namespace {what}: async with DurableObjectNamespace(...)"
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
        self._resting.pop(key, None)
        if key not in self._actors:
            self._actors[key] = Actor(
                f"{self._cls.__name__} {object_id.name or key!r}",
                build=partial(self._build, object_id),
                residence=self._residence,
                home=home,
                lives=self._lives,
                rest=partial(self._rest, key),
            )
        return self._actors[key]

    def _rest(self, key: str) -> None:
        """Forget an object that has nothing, in a while: it may be asked for again."""
        self._resting.pop(key, None)
        self._resting[key] = trio.current_time()
        self._rested.set()

    async def _forget(self) -> None:
        """Forget objects that have rested for long, a few at a time."""
        while True:
            if not self._resting:
                self._rested = trio.Event()
                await self._rested.wait()
            since = next(iter(self._resting.values()), trio.current_time())
            await trio.sleep_until(since + _REMEMBERED)
            now = trio.current_time()
            for key, since in list(islice(self._resting.items(), _AT_ONCE)):
                if now < since + _REMEMBERED:
                    break
                del self._resting[key], self._actors[key]

    @disable_ki_protection
    def _build(
        self, object_id: DurableObjectId, actor: Actor, instance: Instance[Handlers]
    ) -> DurableObject:
        return self._cls(DurableObjectState(object_id, actor, instance), self._env)


def _checked_id(object_id: object) -> DurableObjectId:
    if not isinstance(object_id, DurableObjectId):
        msg = (
            f"an id comes from id_from_name() or id_from_string(), not "
            f"{type(object_id).__name__}; for names there is get_by_name()"
        )
        raise TypeError(msg)
    return object_id
