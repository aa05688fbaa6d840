"""UNIX sockets to listen on: never open wider than they should be, and never left for dead.

Made by :mod:`dangad.server.listening`. Twisted's own are open to everybody unless told otherwise;
they are locked by the number of a process, which in a container is the next server's, too; and one
that systemd has handed over gets another mode, and loses its name (Twisted 10261).
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
"""Of a socket for which no other is named."""
BACKLOG = 50
"""Twisted's, which :mod:`dangad.server.acceptgate` raises."""
LOCK_TIME = 2.0
"""Seconds for which other servers that start in the same directory are waited for."""


class InUse(Exception):
    """Somebody else listens there; the text says who."""


@implementer(IStreamServerEndpoint)
@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """A UNIX socket that is made in order to listen on it, and removed afterwards.

    One that a dead server has left behind is removed before. Whether it is dead shows when it is
    connected to, and the number of a process says nothing of it: in a container that is started
    again, it is the new server's. A note with that number is kept all the same, where Twisted keeps
    its locks: for people, and for programs that take it for one.

    :ivar reactor: what has the socket read.
    :ivar path: its name.
    :ivar mode: who may connect.
    :ivar backlog: how many connections the kernel keeps waiting.
    :ivar noted: whether there is such a note, ``.lock`` beside the socket.
    :ivar owner: the numbers of the user and the group to whom it belongs; -1 for those of this
        process.
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
    """A UNIX socket that somebody else has made and listens on, as systemd does.

    Its mode, and its name when this has been closed, are for whoever made it to say.

    :ivar reactor: what has the socket read.
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
    """Twisted's port, on a socket that is complete."""

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

        :param shared: whether others have it, too, and go on listening.
        """
        super().__init__(listening.getsockname(), factory, backlog, reactor=reactor)
        listening.setblocking(False)
        self._complete = listening
        self._factory = factory
        self._shouldShutdown = not shared
        #: What to do when it is closed.
        self.closed = _nothing

    def startListening(self) -> None:
        """Have the socket read.

        Twisted's sets the mode of a socket that it has not made, which only its owner may.
        """
        # As each port of Twisted's does: it makes it bearable to have no descriptors left.
        tcp._reservedFD.reserve()  # noqa: SLF001
        self._factory.doStart()
        self.socket = self._complete
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket.

        Twisted's removes the name of a socket that it has not made, and fails if it is gone.
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
    """Keep other servers from making or removing sockets in a directory meanwhile.

    :raises InUse: one does for long.
    :raises OSError: there is no such directory.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # what cannot be read cannot be locked
        yield
        return
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: str) -> None:
    """Lock a directory until its descriptor is closed, if its file system can."""
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
    """Remove a socket on which nobody listens.

    :raises InUse: somebody does.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise InUse("there is something else of that name")
        who = _listener(path)
        if who is not None:
            raise InUse(f"{who} listens there")
        os.remove(path)


def _make_note(path: str) -> str:
    """Note that this process listens on a socket, in the place of what a dead one has noted."""
    note = f"{path}.lock"
    with contextlib.suppress(OSError):
        if os.readlink(note).isdecimal():
            os.remove(note)
    with contextlib.suppress(FileExistsError):  # it is something else, and in nobody's way
        os.symlink(str(os.getpid()), note)
    return note


def _remove_note(note: str) -> None:
    """Remove the note, if it is this process's."""
    with contextlib.suppress(OSError):
        if os.readlink(note) == str(os.getpid()):
            os.remove(note)


def _listener(path: str) -> str | None:
    """Who listens on a UNIX socket; None if nobody does."""
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
    """Remove the name of a socket, if it is still that one, and may be removed."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.lstat(path), made):
            os.remove(path)
