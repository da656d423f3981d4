"""`UnixListener`: a Unix socket that a server opens at a path, and removes in the end.

Knows files and their locks; not what is served.

Theory of operation. A socket file outlives its process, so a file that exists may be
stale. An attempt to connect shows it: the system refuses the connection if no process
listens. Two servers could find the same stale file; the second one would then remove
the socket of the first. So each check and each change of the file is made under an
exclusive lock (`flock(2)`) on the directory, which needs no lock file. Nothing waits
while the lock is held. A socket file is removed only if its device and inode are those
of the bound socket; the inode can't be used again before the socket is closed.
"""

import errno
import os
import socket
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, cast

import trio

__all__ = ("UnixListener", "checked_path", "open_unix_listener")

_LOCK_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.01


def checked_path(unix: object) -> str:
    """Return the path of a Unix socket, checked.

    Raises:
        TypeError: `unix` is not a path.
        ValueError: It can't be the path of a socket, or the system has no Unix sockets.
    """
    path: object = unix
    if isinstance(unix, os.PathLike):
        path = cast("os.PathLike[str]", unix).__fspath__()
    if not isinstance(path, str):
        msg = f"unix must be the path of a Unix socket, a str or a Path, not {path!r}"
        raise TypeError(msg)
    if not path or "\0" in path:
        msg = f"unix must be the path of a file, not {path!r}"
        raise ValueError(msg)
    if not hasattr(socket, "AF_UNIX"):
        msg = f"this system has no Unix sockets: pass a port instead of unix={path!r}"
        raise ValueError(msg)
    return path


async def open_unix_listener(path: str) -> "UnixListener":
    """Listen on a new Unix socket. A stale file at its path is replaced.

    The umask decides on the permissions of the file: to connect, a process needs the
    permission to write to it. Always a checkpoint.

    Raises:
        OSError: The socket can't be opened: `EADDRINUSE` if a server listens on it,
            `EEXIST` if the file is not a socket.
        ValueError: The path is too long for a Unix socket.
    """
    async with _locked(path):
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(sock, path)
            sock.listen()
        except BaseException:
            sock.close()
            raise
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        # The working directory may change.
        absolute = os.path.abspath(path)  # noqa: ASYNC240 - it does not block
        return UnixListener(listener, absolute, _identity(path))


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts connections. Closing it removes the file if that is still its own.

    Args:
        listener: The listener of the socket.
        path: The absolute path of the socket file.
        identity: Device and inode of the socket file.
    """

    def __init__(
        self, listener: trio.SocketListener, path: str, identity: tuple[int, int] | None
    ) -> None:
        self._listener = listener
        self._path = path
        self._identity = identity
        self.socket: trio.socket.SocketType = listener.socket

    async def accept(self) -> trio.SocketStream:
        """Wait for the next connection; see `trio.abc.Listener`."""
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Remove the file, unless another server has replaced it; close the socket."""
        identity, self._identity = self._identity, None
        try:
            if identity is not None:
                with trio.move_on_after(_LOCK_SECONDS, shield=True), suppress(OSError):
                    async with _locked(self._path):
                        if _identity(self._path) == identity:
                            os.unlink(self._path)
        finally:
            await self._listener.aclose()  # noqa: ASYNC102 - it does not wait


@asynccontextmanager
async def _locked(path: str) -> AsyncGenerator[None, None]:
    """Hold the lock of a file's directory for the block, which must not wait.

    Raises:
        OSError: The directory can't be opened, or another process holds the lock.
    """
    import fcntl  # noqa: PLC0415 - Windows does not have it

    directory = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with trio.move_on_after(_LOCK_SECONDS) as scope:
            while True:
                await trio.lowlevel.checkpoint()
                try:
                    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await trio.sleep(_RETRY_SECONDS)
        if scope.cancelled_caught:
            what = "another process holds the lock on the directory of the socket"
            raise OSError(errno.EAGAIN, what, path)
        yield
    finally:
        os.close(directory)


def _remove_stale(path: str) -> None:
    """Remove a socket file on which no process listens.

    Raises:
        OSError: The file is not a socket, or a process listens, or that is unknown.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        what = "the file is not a socket, and is left alone"
        raise FileExistsError(errno.EEXIST, what, path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - its only argument
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # The queue of a process that listens is full.
    raise OSError(errno.EADDRINUSE, "a server listens on this socket already", path)


def _bind(sock: socket.socket, path: str) -> None:
    """Bind a socket to its path.

    Raises:
        OSError: The file can't be created.
        ValueError: The path is too long.
    """
    try:
        sock.bind(path)
    except OSError as exc:
        if exc.errno is not None:
            raise OSError(exc.errno, exc.strerror, path) from None
        size = len(os.fsencode(path))  # Python itself has refused it.
        msg = f"{path!r} has {size} bytes, too many for a Unix socket"
        raise ValueError(msg) from None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
