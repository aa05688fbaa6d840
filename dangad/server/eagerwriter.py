"""Writing to a socket soon, and keeping what it does not take, in pieces and counted.

Used by :mod:`dangad.server.connection` for answers. Twisted keeps what is written until the
reactor's next round, and has epoll tell when the socket takes it: two more system calls and a good
part of a job's whole cost in the parent. But a socket on which nothing waits mostly takes an answer
whole.

What it does not take is kept here, and handed to the transport in pieces, as it sends them. So
nothing large is copied in one go, and it is known how much is kept, and whether the peer reads.
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
"""Bytes up to which what is to be written together is kept for that."""
FULL = 2**16
"""Bytes that the peer has not read with which it counts as one that does not read."""
PIECE = 2**17
"""Bytes that the transport is handed at a time: what Twisted sends in one turn."""


class IUnreadWatcher(Interface):
    """Who wants to know whether the peer reads."""

    def unread_grows() -> None:
        """:data:`FULL` bytes wait to be read, or more."""

    def all_is_read() -> None:
        """After that: nothing waits any more. May write before it returns."""


@implementer(IPushProducer)
class EagerWriter:
    """Writes to one transport: at once, or when all that the reactor had to do now is done.

    It is the producer of that transport. With any but a plain TCP or UNIX socket, as with TLS,
    what the transport keeps of its own accord is not seen here: only what it has no room for.
    """

    def __init__(
        self, clock: IReactorTime, transport: Any, watcher: IUnreadWatcher, budget: MemoryBudget
    ) -> None:
        """Begin with nothing written.

        :param clock: where the time comes from.
        :param transport: a connected one, without a producer.
        :param watcher: who is told when the peer does not read, and when it does again.
        :param budget: where the bytes are counted that it has not read.
        """
        #: The bytes that the peer has not read; they are counted in the budget.
        self.held = 0
        self._clock = clock
        self._transport = transport
        self._watcher = watcher
        self._budget = budget
        self._is_plain = isinstance(transport, tcp.Connection) and not transport.TLS
        #: What is to be written together.
        self._kept: list[bytes] = []
        #: The bytes of that.
        self._kept_size = 0
        #: The call that will write it.
        self._flushing: IDelayedCall | None = None
        #: What waits for the transport to have sent what it has.
        self._pending: deque[bytes | memoryview] = deque()
        #: The bytes that the transport has.
        self._inside = 0
        #: All bytes that were ever to be written.
        self._queued = 0
        #: Whether the transport will tell when it has sent them.
        self._is_blocked = False
        #: Whether the watcher was told that the peer does not read.
        self._is_full = False
        #: Whether the connection is to be closed when nothing waits any more.
        self._is_ending = False
        transport.registerProducer(self, True)

    # Its user's calls.

    def write(self, data: bytes, more: bool = False) -> None:
        """Write `data`; if `more` is likely to follow at once, together with that."""
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
        """Write `start` and `data`, which is not copied as a whole, nor written at once."""
        self.flush()
        self._queue(start, data)

    def flush(self) -> None:
        """Write what was kept."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._kept:
            self._flush()

    def end(self) -> None:
        """Close the connection once what was written is sent; nothing more is to be written."""
        self.flush()
        self._is_ending = True
        if not self._is_blocked:
            self._close()

    def forget(self) -> None:
        """Forget what was not sent: the connection is lost."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self._kept.clear()
        self._pending.clear()
        self._budget.total -= self.held
        self.held = self._inside = 0
        self._is_blocked = True

    def delivered(self) -> int:
        """How many of the bytes that were ever kept have gone to the peer, nearly.

        What it grows by is right; for plain sockets it counts what the peer's system has taken.
        """
        transport, unsent = self._transport, 0
        if self._is_plain and self._is_blocked and transport.connected:
            # Twisted has no public word for what it has not sent.
            fresh = transport._tempDataLen  # noqa: SLF001
            inside = len(transport.dataBuffer) - transport.offset + fresh
            unsent = inside - self._inside + _in_kernel(transport.fileno())
        return self._queued - self.held - unsent

    # The transport's calls.

    def pauseProducing(self) -> None:
        """It has enough."""
        self._is_blocked = True
        if not self._is_plain:
            self._tell_if_full(FULL)

    def resumeProducing(self) -> None:
        """It has sent what it had."""
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
        """Nothing: the protocol's `connectionLost` comes."""

    # What follows from them.

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
        """Write to a plain socket on which nothing waits."""
        try:
            sent = self._transport.socket.send(data)
        except OSError:
            sent = 0  # it is full, or broken, which the reactor will find out
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
        """Hand the transport pieces until it has enough, or there is nothing more."""
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
        """Write to a transport that is not plain, and says when it has enough."""
        self._transport.write(data)
        if self._is_blocked:
            self._inside = len(data)
            self.held += self._inside
            self._queued += self._inside
            self._budget.add(self._inside)

    def _next_piece(self) -> bytes:
        """The next bytes to be written, not too many."""
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
        """So many bytes are not held any more."""
        self.held -= size
        self._budget.total -= size

    def _close(self) -> None:
        self._transport.unregisterProducer()
        self._transport.loseConnection()


def _in_kernel(descriptor: int) -> int:
    """Bytes that the kernel has of a socket and the peer's has not taken, nearly."""
    try:
        answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])
