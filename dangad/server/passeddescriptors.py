"""File descriptors that peers pass over UNIX sockets: dangad accepts none.

:mod:`dangad.server.listening` prepares ports with :func:`guard`. Protocols give :func:`dispose` the
descriptors that were passed nevertheless.

A descriptor cannot simply be closed. If it is a TCP connection with SO_LINGER and unsent data,
close(2) of the last reference blocks for a time that the sender has chosen. The same happens when a
UNIX socket is closed while a descriptor of this kind is unread in it.

From Linux 6.16 on there is a socket option against this, SO_PASSRIGHTS: the sender gets EPERM. With
older kernels, descriptors are closed in threads, and so are UNIX sockets with unread bytes. A
thread helps against a slow close, but not against one that never returns, for example of a file in
a FUSE file system: its descriptor stays open.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import threading
from collections import deque
from typing import TYPE_CHECKING

from twisted.internet import unix

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort
    from twisted.python.failure import Failure

SO_PASSRIGHTS = 83
"""Linux's number of SO_PASSRIGHTS, on all machines but Alpha, MIPS, PA-RISC and SPARC."""
MOST_THREADS = 8
"""Threads that close descriptors at a time; further descriptors wait for one of them."""

_NO_LINGER = struct.pack("ii", 0, 0)


class _Closers:
    """Threads that close descriptors; there are none while there is nothing to close.

    All its state is protected by `_lock`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The descriptors to close.
        self._waiting: deque[int] = deque()
        #: The number of threads.
        self._threads = 0

    def put(self, descriptor: int) -> None:
        """Close `descriptor` soon, in a thread."""
        with self._lock:
            self._waiting.append(descriptor)
            if self._threads == MOST_THREADS:
                return
            self._threads += 1
        threading.Thread(target=self._run, name="dangad closes", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                descriptor = self._waiting.popleft()
            _close(descriptor)


_closers = _Closers()


def dispose(descriptor: int) -> None:
    """Close `descriptor`, which a peer has passed, without waiting for it."""
    _closers.put(descriptor)


def guard(port: IListeningPort) -> None:
    """Make connections to `port` refuse descriptors, or close harmlessly with them.

    Connections that are already in its backlog may carry some: :func:`dispose` deals with these.
    """
    if isinstance(port, unix.Port) and not refuse(port.socket):
        port.transport = PatientlyClosed


def refuse(listening: socket.socket) -> bool:
    """Make connections to a UNIX socket refuse descriptors; False if the kernel cannot do this."""
    try:
        listening.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        return False
    return True


class PatientlyClosed(unix.Server):
    """A UNIX connection that is closed in a thread if it has unread bytes."""

    def connectionLost(self, reason: Failure) -> None:
        """Leave the last reference to the socket, whose close may block, to a thread."""
        last: int | None = None
        if hasattr(self, "socket"):  # Twisted may call this twice, and deletes the socket
            with contextlib.suppress(OSError):
                if _unread(self.socket):
                    last = os.dup(self.socket.fileno())
        super().connectionLost(reason)
        if last is not None:
            dispose(last)


def _unread(connection: socket.socket) -> bool:
    """Whether the socket has unread bytes; without bytes there are no descriptors either."""
    count = fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4))
    return count != bytes(4)


def _close(descriptor: int) -> None:
    """Close a descriptor of any kind, which may take long."""
    try:
        passed = socket.socket(fileno=descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        return
    with contextlib.suppress(OSError):
        passed.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    with contextlib.suppress(OSError):
        passed.close()
