"""File descriptors that peers pass over UNIX sockets: nobody here wants any.

Used by everything that UNIX sockets lead to: :mod:`dangad.service` prepares its ports with
:func:`guard`, and protocols hand over to :func:`dispose` what they were passed in spite of that.

A descriptor cannot just be closed. If it is a TCP connection with SO_LINGER and unsent data, the
kernel keeps whoever closes the last reference to it waiting, for as long as the sender has chosen.
The same goes for a UNIX socket that is closed while such a descriptor lies in it unread.

Linux from 6.16 on has a switch for it, SO_PASSRIGHTS: then the sender gets EPERM. With older
kernels, descriptors are closed in threads, and so are UNIX sockets in which something is unread.
A thread helps against a slow close, and not against one that never ends, of a file in a FUSE
file system: such a descriptor stays open.
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
"""Linux's number for it, on all machines but Alpha, MIPS, PA-RISC and SPARC."""
MOST_THREADS = 8
"""Threads that close descriptors at a time; further descriptors wait for one of them."""

_NO_LINGER = struct.pack("ii", 0, 0)


class _Closers:
    """Threads that close descriptors; there are none while there is nothing to close.

    All its state is used under `_lock`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: What is to be closed.
        self._waiting: deque[int] = deque()
        #: How many threads do that.
        self._threads = 0

    def put(self, descriptor: int) -> None:
        """Have `descriptor` closed soon."""
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
    """Have connections to `port` take no descriptors, or do no harm with them.

    Those that are in its backlog already may have brought some: these are left to
    :func:`dispose`.
    """
    if isinstance(port, unix.Port) and not refuse(port.socket):
        port.transport = PatientlyClosed


def refuse(listening: socket.socket) -> bool:
    """Have connections to a UNIX socket take no descriptors; False if the kernel cannot."""
    try:
        listening.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        return False
    return True


class PatientlyClosed(unix.Server):
    """A UNIX connection that is closed in a thread if something unread lies in it."""

    def connectionLost(self, reason: Failure) -> None:
        """Leave the last reference to the socket, whose close may block, to a thread."""
        last: int | None = None
        if hasattr(self, "socket"):  # Twisted may call this twice, and takes it away
            with contextlib.suppress(OSError):
                if _unread(self.socket):
                    last = os.dup(self.socket.fileno())
        super().connectionLost(reason)
        if last is not None:
            dispose(last)


def _unread(connection: socket.socket) -> bool:
    """Whether bytes lie in the socket, without which there are no descriptors either."""
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
