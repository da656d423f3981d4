"""A Unix socket that a server opens by its path, and removes in the end.

Knows files and their locks; not what is served.

A socket file outlives its process, so one that is found may be stale. An attempt to
connect tells: it is refused when no process listens. Between that answer and the moment
at which the file is replaced, another server could have replaced it, and would lose its
socket to us. So every look at the file and every change of it is made under an
exclusive lock (`flock(2)`) on the directory, which leaves no lock file behind: binding
and listening, taking over, and removing. Nothing in these steps waits, and the lock is
held for a moment only. A socket file is removed only while its device and inode are
those that were bound; the inode can't be used again before the socket is closed.
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
    """Return the path at which a Unix socket is to be opened.

    Raises:
        TypeError: It is no path.
        ValueError: It can't be the path of a socket, or the system has no such sockets.
    """
    path: object = unix
    if isinstance(unix, os.PathLike):
        path = cast("os.PathLike[str]", unix).__fspath__()
    if not isinstance(path, str):
        msg = f"unix is the path of a Unix socket, a str or a Path, not {path!r}"
        raise TypeError(msg)
    if not path or "\0" in path:
        msg = f"unix is the path of a file, not {path!r}"
        raise ValueError(msg)
    if not hasattr(socket, "AF_UNIX"):
        msg = f"this system has no Unix sockets: unix={path!r} needs a port instead"
        raise ValueError(msg)
    return path


async def open_unix_listener(path: str) -> "UnixListener":
    """Listen on a new Unix socket. A stale file at its path is replaced.

    The umask decides on the permissions of the file: to connect, a process needs the
    permission to write to it. Always a checkpoint.

    Raises:
        OSError: It can't be had; above all `EADDRINUSE`, if a server listens there, and
            `EEXIST`, if the file is no socket.
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
        # Found again after a change of the working directory, too.
        absolute = os.path.abspath(path)  # noqa: ASYNC240 - it does not block
        return UnixListener(listener, absolute, _identity(path))


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts connections; when it is closed, the file goes if it is still this one's.

    Args:
        listener: Of the socket.
        path: Where its file is.
        identity: Device and inode of that file.
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
        """Remove the file, unless another server has it now, and close the socket."""
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
    """Hold the lock of a file's directory for the block, which does not wait.

    Raises:
        OSError: The directory can't be opened, or another process keeps the lock.
    """
    import fcntl  # noqa: PLC0415 - it isn't there on Windows, nor are Unix sockets

    directory = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with trio.move_on_after(_LOCK_SECONDS) as patience:
            while True:
                await trio.lowlevel.checkpoint()
                try:
                    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await trio.sleep(_RETRY_SECONDS)
        if patience.cancelled_caught:
            what = "another process keeps the directory of the socket locked"
            raise OSError(errno.EAGAIN, what, path)
        yield
    finally:
        os.close(directory)


def _remove_stale(path: str) -> None:
    """Remove a socket file on which no process listens.

    Raises:
        OSError: There is another file, or a process listens, or it can't be told.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        what = "this is no socket, and is left alone"
        raise FileExistsError(errno.EEXIST, what, path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - its only argument
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # So many wait for it that it takes no more now: it lives.
    raise OSError(errno.EADDRINUSE, "a server listens on this socket already", path)


def _bind(sock: socket.socket, path: str) -> None:
    """Bind a socket to its path.

    Raises:
        OSError: The file can't be made.
        ValueError: The path is too long.
    """
    try:
        sock.bind(path)
    except OSError as exc:
        if exc.errno is not None:
            raise OSError(exc.errno, exc.strerror, path) from None
        size = len(os.fsencode(path))  # Python itself refuses it, without a number.
        msg = f"{path!r} has {size} bytes, too many for a Unix socket"
        raise ValueError(msg) from None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
