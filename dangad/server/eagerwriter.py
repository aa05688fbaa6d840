"""Writes to a socket early, and buffers the bytes that it does not take.

Used by :mod:`dangad.server.connection` for answers. Twisted buffers data until the reactor's next
round, and asks epoll when the socket is writable. This takes two more system calls, a good part of
a job's whole cost in the parent. But a socket with an empty buffer usually takes a whole answer.

Bytes that the socket does not take are kept here, and passed to the transport in pieces, as it
sends them. So nothing large is copied at once, and it is known how many bytes are kept and whether
the peer reads.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from twisted.internet.interfaces import IPushProducer
from zope.interface import Interface, implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.server.memorybudget import MemoryBudget

TOGETHER = 2**16
"""Bytes up to which data is collected to be written together."""
FULL = 2**16
"""Unread bytes from which on the peer counts as not reading."""
PIECE = 2**17
"""Bytes that the transport gets at a time: as many as Twisted sends in one turn."""


class IUnreadWatcher(Interface):
    """An object that is told whether the peer reads."""

    def unread_grows() -> None:
        """Called when :data:`FULL` bytes or more are unread."""

    def all_is_read() -> None:
        """Called after `unread_grows`, when nothing is unread. May write before it returns."""


@implementer(IPushProducer)
class EagerWriter:
    """Writes to one transport: at once, or at the end of the reactor's turn.

    It is the producer of this transport. Bytes that a transport other than a plain TCP or UNIX
    socket buffers itself, for example with TLS, are not counted here.
    """

    def __init__(
        self, clock: IReactorTime, transport: Any, watcher: IUnreadWatcher, budget: MemoryBudget
    ) -> None:
        """Begin with nothing written.

        :param clock: the source of time.
        :param transport: a connected transport without a producer.
        :param watcher: told when the peer does not read, and when it reads again.
        :param budget: counts the unread bytes.
        """
        #: The number of unread bytes, which the budget counts, too.
        self.held = 0
        self._clock = clock
        self._transport = transport
        self._watcher = watcher
        self._budget = budget
        self._is_plain = isinstance(transport, tcp.Connection) and not transport.TLS
        #: The pieces of data that are collected to be written together.
        self._kept: list[bytes] = []
        #: The bytes of these pieces.
        self._kept_size = 0
        #: The call that will write them; None if none is due.
        self._flushing: IDelayedCall | None = None
        #: The data that waits until the transport has room.
        self._pending: deque[bytes | memoryview] = deque()
        #: The number of bytes in the transport.
        self._inside = 0
        #: The number of all bytes that were ever to be written.
        self._queued = 0
        #: Whether the transport will ask for more when it has sent them.
        self._is_blocked = False
        #: Whether the watcher was told that the peer does not read.
        self._is_full = False
        #: Whether the connection is to be closed when nothing waits any more.
        self._is_ending = False
        transport.registerProducer(self, True)

    # Its user's calls.

    def write(self, data: bytes, more: bool = False) -> None:
        """Write `data`; if `more` is likely to follow at once, write both together."""
        if self._is_blocked:
            self._queue(data)
        elif not self._is_plain:
            self._hand_over(data)
        elif more:
            self._kept.append(data)
            self._kept_size += len(data)
            if self._kept_size >= TOGETHER:
                self.flush()
            elif self._flushing is None:
                self._flushing = self._clock.callLater(0, self._flush)
        elif self._kept:
            self._kept.append(data)
            self.flush()
        else:
            self._send(data)

    def write_large(self, start: bytes, data: bytes | memoryview) -> None:
        """Write `start` and `data`; large `data` is neither copied nor written at once."""
        self.flush()
        self._queue(start, data)

    def flush(self) -> None:
        """Write the collected data now."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._kept:
            self._flush()

    def end(self) -> None:
        """Close the connection when everything is sent; nothing more may be written."""
        self.flush()
        self._is_ending = True
        if not self._is_blocked:
            self._close()

    def forget(self) -> None:
        """Forget unsent data: the connection is lost."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self._kept.clear()
        self._pending.clear()
        self._budget.total -= self.held
        self.held = self._inside = 0
        self._is_blocked = True

    def delivered(self) -> int:
        """About how many bytes have ever gone to the peer.

        Differences between two values are exact. For plain sockets, bytes count when the peer's
        kernel has taken them.
        """
        transport, unsent = self._transport, 0
        if self._is_plain and self._is_blocked and transport.connected:
            # Twisted has no public name for its buffer.
            fresh = transport._tempDataLen  # noqa: SLF001
            inside = len(transport.dataBuffer) - transport.offset + fresh
            unsent = inside - self._inside + _in_kernel(transport.fileno())
        return self._queued - self.held - unsent

    # The transport's calls.

    def pauseProducing(self) -> None:
        """Wait: the transport has enough."""
        self._is_blocked = True
        if not self._is_plain:
            self._tell_if_full(FULL)

    def resumeProducing(self) -> None:
        """Go on: the transport has sent its data."""
        self._took(self._inside)
        self._inside = 0
        self._is_blocked = False
        self._feed()
        if self._is_blocked:
            return
        if self._is_full:
            self._is_full = False
            self._watcher.all_is_read()
        if self._is_ending and not self._is_blocked:
            self._close()

    def stopProducing(self) -> None:
        """Do nothing: the protocol's `connectionLost` follows."""

    # Internal.

    def _flush(self) -> None:
        self._flushing = None
        kept, self._kept = self._kept, []
        self._kept_size = 0
        data = b"".join(kept)
        if self._is_blocked:
            self._queue(data)
        else:
            self._send(data)

    def _send(self, data: bytes) -> None:
        """Write to a plain socket whose transport holds no data."""
        try:
            sent = self._transport.socket.send(data)
        except OSError:
            sent = 0  # it is full, or broken; the reactor will find out
        if sent < len(data):
            self._queue(data[sent:])

    def _queue(self, *parts: bytes | memoryview) -> None:
        """Keep these until the transport takes them."""
        for part in parts:
            size = len(part)
            self._pending.append(part)
            self._queued += size
            self.held += size
            self._budget.add(size)
        if not self._is_blocked:
            self._feed()
        self._tell_if_full(self.held)

    def _tell_if_full(self, waiting: int) -> None:
        if waiting >= FULL and not self._is_full:
            self._is_full = True
            self._watcher.unread_grows()

    def _feed(self) -> None:
        """Give the transport pieces until it has enough, or nothing is left."""
        while self._pending and not self._is_blocked:
            piece = self._next_piece()
            if self._is_plain:
                self._inside = len(piece)
                self._is_blocked = True
                self._transport.write(piece)
                self._transport.producerPaused = True  # it tells when it is empty, however little
            else:
                self._took(len(piece))
                self._hand_over(piece)

    def _hand_over(self, data: bytes) -> None:
        """Write to a transport other than a plain socket; it says when it has enough."""
        self._transport.write(data)
        if self._is_blocked:
            self._inside = len(data)
            self.held += self._inside
            self._queued += self._inside
            self._budget.add(self._inside)

    def _next_piece(self) -> bytes:
        """The next bytes to write, a bounded number."""
        pending = self._pending
        first = pending.popleft()
        if len(first) > PIECE:
            view = memoryview(first)
            pending.appendleft(view[PIECE:])
            return bytes(view[:PIECE])
        parts, size = [first], len(first)
        while pending and size + len(pending[0]) <= PIECE:
            part = pending.popleft()
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def _took(self, size: int) -> None:
        """Count so many bytes as gone."""
        self.held -= size
        self._budget.total -= size

    def _close(self) -> None:
        self._transport.unregisterProducer()
        self._transport.loseConnection()


def _in_kernel(descriptor: int) -> int:
    """About how many bytes are in a socket's send buffer, not acknowledged by the peer."""
    try:
        answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])
