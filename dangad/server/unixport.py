"""Listening UNIX sockets that are never open to more users than they should be, even for a moment.

Made by :mod:`dangad.server.listening`. Twisted's own sockets are open to everybody by default. They
are locked by a process id, which in a container the next server may have, too. Twisted also changes
the mode of a socket from systemd, and removes its name (Twisted issue 10261).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet import defer, tcp, unix
from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.internet.interfaces import IListeningPort, IProtocolFactory
    from twisted.python.failure import Failure

MODE = 0o600
"""The mode of a socket if the endpoint names none."""
BACKLOG = 50
"""Twisted's default backlog, which :mod:`dangad.server.acceptgate` raises."""
LOCK_TIME = 2.0
"""Seconds to wait for other servers that start in the same directory."""


class InUse(Exception):
    """Another process listens on the socket; the text says which one."""


@implementer(IStreamServerEndpoint)
@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """A UNIX socket that is made in order to listen on it, and removed afterwards.

    The socket of a dead server is removed first. A connection attempt shows whether a server is
    dead. A process id does not: in a container that was started again, the new server may have it.
    A note with the process id is written nevertheless, in the place of Twisted's lock: for people,
    and for programs that read Twisted's locks.

    :ivar reactor: reads the socket.
    :ivar path: the path of the socket.
    :ivar mode: the mode of the socket.
    :ivar backlog: how many connections may wait in the kernel.
    :ivar noted: whether to write the note, which is a file ``.lock`` beside the socket.
    :ivar owner: the ids of the user and the group that own it; -1 for those of this process.
    """

    reactor: Any
    path: str
    mode: int = MODE
    backlog: int = BACKLOG
    noted: bool = True
    owner: tuple[int, int] = (-1, -1)

    def listen(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IListeningPort]:
        """Listen.

        Fires at once with the port. Fails with :class:`InUse`, or :class:`OSError`.
        """
        return defer.execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        with contextlib.ExitStack() as undo:
            with _alone_in(os.path.dirname(self.path) or "."):
                _remove_dead(self.path)
                listening = undo.enter_context(socket.socket(socket.AF_UNIX))
                _bind(listening, self.path)
                undo.callback(_remove, self.path, os.lstat(self.path))
                if self.owner != (-1, -1):
                    os.chown(self.path, *self.owner)
                if self.mode != MODE:
                    os.chmod(self.path, self.mode)
                if self.noted:
                    undo.callback(_remove_note, _make_note(self.path))
                listening.listen(self.backlog)
            port = UnixPort(listening, factory, self.reactor, self.backlog)
            port.startListening()
            port.closed = undo.pop_all().close
        return port


@implementer(IStreamServerEndpoint)
@dataclass(frozen=True, slots=True)
class AdoptedUnixEndpoint:
    """A UNIX socket that another process has made and listens on, for example systemd.

    Its mode and its name are left alone.

    :ivar reactor: reads the socket.
    :ivar descriptor: the socket, which belongs to the port from then on.
    """

    reactor: Any
    descriptor: int

    def listen(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IListeningPort]:
        """Listen.

        Fires at once with the port. Fails with :class:`OSError`.
        """
        return defer.execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        adopted = socket.socket(fileno=self.descriptor)
        port = UnixPort(adopted, factory, self.reactor, BACKLOG, shared=True)
        port.startListening()
        return port


class UnixPort(unix.Port):
    """Twisted's port, on a socket that is already bound."""

    closed: Callable[[], object]

    def __init__(
        self,
        listening: socket.socket,
        factory: IProtocolFactory,
        reactor: Any,
        backlog: int,
        shared: bool = False,
    ) -> None:
        """Remember the socket.

        :param shared: whether another process has the socket, too, and goes on listening.
        """
        super().__init__(listening.getsockname(), factory, backlog, reactor=reactor)
        listening.setblocking(False)
        self._complete = listening
        self._factory = factory
        self._shouldShutdown = not shared
        #: Called when the port is closed.
        self.closed = _nothing

    def startListening(self) -> None:
        """Begin to read the socket.

        Twisted's own method sets the mode of the socket, which only its owner may do.
        """
        # All ports of Twisted do this, to survive when no descriptor is left.
        tcp._reservedFD.reserve()  # noqa: SLF001
        self._factory.doStart()
        self.socket = self._complete
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket.

        Twisted's own method removes the name of the socket, and fails if it is gone.
        """
        tcp.Port.connectionLost(self, reason)
        self.closed()


def _nothing() -> None:
    """Do nothing."""


def _bind(unbound: socket.socket, path: str) -> None:
    """Give the socket a name, and never one that others may use."""
    usual = os.umask(0o777 & ~MODE)
    try:
        unbound.bind(path)
    finally:
        os.umask(usual)


@contextlib.contextmanager
def _alone_in(directory: str) -> Iterator[None]:
    """A context in which no other server makes or removes sockets in the directory.

    :raises InUse: another server has kept the directory for too long.
    :raises OSError: there is no such directory.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a directory that cannot be read cannot be locked
        yield
        return
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: str) -> None:
    """Lock a directory until its descriptor is closed, if the file system can do this."""
    end = time.monotonic() + LOCK_TIME
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise InUse(f"another process has locked the directory {directory}") from None
            time.sleep(0.01)
        except OSError:
            return
        else:
            return


def _remove_dead(path: str) -> None:
    """Remove a socket on which no process listens.

    :raises InUse: a process listens on it.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise InUse("there is something else of that name")
        who = _listener(path)
        if who is not None:
            raise InUse(f"{who} listens there")
        os.remove(path)


def _make_note(path: str) -> str:
    """Write the note that this process listens on a socket, in place of an old note."""
    note = f"{path}.lock"
    with contextlib.suppress(OSError):
        if os.readlink(note).isdecimal():
            os.remove(note)
    with contextlib.suppress(FileExistsError):  # it is not a note, and does no harm
        os.symlink(str(os.getpid()), note)
    return note


def _remove_note(note: str) -> None:
    """Remove the note, if it is this process's."""
    with contextlib.suppress(OSError):
        if os.readlink(note) == str(os.getpid()):
            os.remove(note)


def _listener(path: str) -> str | None:
    """The process that listens on a UNIX socket, in words; None if there is none."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except BlockingIOError:
            return "a server with a full backlog"
        except OSError:
            return "somebody"
        if not hasattr(socket, "SO_PEERCRED"):
            return "another process"
        ucred = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    pid: int = struct.unpack("iII", ucred)[0]
    if not pid:
        return "a process outside of this container"
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
        return f"process {pid} ({file.read().strip()})"
    return f"process {pid}"


def _remove(path: str, made: os.stat_result) -> None:
    """Remove the name of a socket, if it is still the same socket and may be removed."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.lstat(path), made):
            os.remove(path)
