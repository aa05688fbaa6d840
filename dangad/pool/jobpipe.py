"""The parent's end of the pipe through which a worker gets its jobs.

Used by :mod:`dangad.pool.processes`. On Linux the pipe is in packet mode, in which each small write
is taken out by one read, and whole: see O_DIRECT in pipe(2), which is Linux's since 4.5 for pipes
that exist. So a worker reads one job at a time, and what it has not read, the parent can take out
itself, all at once: see splice(2). Whatever is larger than a page goes through the same pipe as a
stream.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import termios
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.process import ProcessWriter

_CAPACITY = 2**20
"""More bytes than lie in any pipe."""
_MOST_STEPS = 100
"""Steps in which all of a pipe can be taken out, even page by page."""
PIECE = 2**18
"""Bytes of a large request that Twisted's writer is handed at a time: it copies what it is handed,
which for the largest takes 40 ms."""
_NOTHING = memoryview(b"")


class Scratch:
    """A pipe of the parent's own, into which it takes what lies in others.

    Packet by packet it could take the first, the worker the second, and the parent the rest; but
    all of it is moved from one pipe to another in one step.
    """

    def __init__(self) -> None:
        #: Its ends, to read and to write; None if it is not open.
        self._ends: tuple[int, int] | None = None

    def open(self) -> None:
        """Make it, unless it is open or cannot be had.

        It may have room for a page or two only: see pipe-user-pages-soft in pipe(7).
        """
        if self._ends is None and sys.platform == "linux":
            with contextlib.suppress(OSError):  # no descriptor is left
                self._ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._ends is not None

    def take_all(self, fd: int, packets: list[bytes]) -> None:
        """Add to `packets` those that lie in another pipe, taken out; of a stream, pieces.

        It takes as many steps as it needs if this pipe is smaller than the other. Between two of
        them the worker may read some, too.

        :raises OSError: it is not known what is left in the other pipe. What was taken out is
            in `packets` nevertheless.
        """
        self.open()
        if self._ends is None or sys.platform != "linux":
            raise OSError("no descriptor is left to reclaim anything")
        reading, writing = self._ends
        try:
            for _ in range(_MOST_STEPS):
                try:
                    os.splice(fd, writing, _CAPACITY, flags=os.SPLICE_F_NONBLOCK)
                except BlockingIOError:
                    return  # nothing is left in the other
                with contextlib.suppress(BlockingIOError):
                    while True:
                        packets.append(os.read(reading, select.PIPE_BUF))
        except BaseException:
            self.close()  # what is left in it must not be taken for another worker's
            raise
        raise OSError("there is no end to what lies in a worker's pipe")

    def close(self) -> None:
        """Close it; nothing can be reclaimed any more."""
        if self._ends is not None:
            for fd in self._ends:
                os.close(fd)
            self._ends = None


@implementer(IPullProducer)
class JobPipe:
    """A worker's pipe, as long as the worker lives.

    It is its writer's producer while there is something left of a large request.
    """

    def __init__(self, writer: ProcessWriter, scratch: Scratch) -> None:
        """Write through `writer`, Twisted's end, which keeps what the pipe does not take at once.

        :param scratch: what is needed to reclaim something.
        """
        self._writer = writer
        self._scratch = scratch
        #: Whether the next write makes a packet.
        self._packets = False
        #: A descriptor of the end that the worker reads; None if there is none.
        self._reading: int | None = None
        #: A large request that is being written.
        self._large: bytes | memoryview = b""
        #: What the writer has not been handed of it.
        self._left = _NOTHING
        #: A request of which nothing was written, since the worker has closed its end.
        self._refused: bytes | memoryview = b""

    def open(self) -> None:
        """Make it one from which can be reclaimed, if that can be done."""
        if self._scratch.is_open:
            with contextlib.suppress(OSError):  # no descriptor is left, or the kernel is old
                self._make_packets(True)
                path = f"/proc/self/fd/{self._writer.fileno()}"
                self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    @property
    def can_reclaim(self) -> bool:
        """Whether what the worker has not read can be reclaimed."""
        return self._reading is not None

    @property
    def is_flushed(self) -> bool:
        """Whether the pipe has taken all that was written to it."""
        # Twisted has no public word for what it has not sent.
        return not (len(self._left) or self._writer.dataBuffer or self._writer._tempDataLen)  # noqa: SLF001

    def unread_request(self, head: bytes, size: int, taken: list[bytes]) -> bytes | memoryview:
        """The request in a stream that the worker has not read; nothing if it has read some.

        :param head: what was written before the request.
        :param size: the bytes of the request.
        :param taken: what was taken out of the pipe.
        """
        if self._refused:
            return self._refused
        writer = self._writer
        rest = [*taken, writer.dataBuffer[writer.offset :], *writer._tempDataBuffer]  # noqa: SLF001
        if sum(map(len, rest)) + len(self._left) != len(head) + size:
            return b""
        return self._large or b"".join(rest)[len(head) :]

    @property
    def unread(self) -> int:
        """How many bytes the worker has not read; 0 if that cannot be told."""
        if self._reading is not None:
            return waiting(self._reading)
        return 0 if self._writer.disconnected else waiting(self._writer.fileno())

    def write(self, header: bytes, box: bytes | memoryview) -> bool:
        """Write to a pipe that is flushed; whether it took all as one packet.

        What it takes at once need not wait for the reactor.
        """
        if self._writer.disconnected:
            self._refused = box
            return False
        size = len(header) + len(box)
        if size <= select.PIPE_BUF and self.write_packet(header + box):
            return True
        try:
            if self.can_reclaim:
                self._make_packets(False)
            written = os.writev(self._writer.fileno(), (header, box))
        except BlockingIOError:
            written = 0
        except OSError:  # the worker has closed its end, and is about to be gone
            self._refused = box
            return False
        if written < size:
            self._writer.write(header[written:])
            self._left = memoryview(box)[max(0, written - len(header)) :]
            if len(self._left) > PIECE:
                self._large = box
                self._writer.registerProducer(self, False)
            else:
                self.resumeProducing()
        return False

    def resumeProducing(self) -> None:
        """Hand the writer, which has sent what it had, the next piece."""
        piece, self._left = bytes(self._left[:PIECE]), self._left[PIECE:]
        if not len(self._left):
            self._left = _NOTHING  # an empty view keeps the whole
            if self._large:
                self._large = b""
                self._writer.unregisterProducer()
        self._writer.write(piece)

    def stopProducing(self) -> None:
        """Nothing: what is left may be wanted back."""

    def write_packet(self, packet: bytes) -> bool:
        """Write at most PIPE_BUF bytes to a pipe that is flushed; whether it has taken them.

        They are one packet if they can be reclaimed.
        """
        if self._writer.disconnected:
            return False
        try:
            if self.can_reclaim:
                self._make_packets(True)
            os.write(self._writer.fileno(), packet)
        except OSError:
            return False  # it is full, or the worker has closed its end
        return True

    def reclaim(self, packets: list[bytes]) -> None:
        """Add to `packets` those that the worker has not read; of a stream, its rest in pieces.

        :raises OSError: as :meth:`Scratch.take_all` does.
        """
        if self._reading is not None:
            self._scratch.take_all(self._reading, packets)

    def close(self) -> None:
        """Forget the worker's end: nothing can be reclaimed any more."""
        self._large = self._refused = b""
        self._left = _NOTHING
        if self._reading is not None:
            os.close(self._reading)
            self._reading = None

    def _make_packets(self, on: bool) -> None:
        if on != self._packets:
            fd = self._writer.fileno()
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            flags = flags | os.O_DIRECT if on else flags & ~os.O_DIRECT
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)
            self._packets = on


def waiting(fd: int) -> int:
    """How many bytes lie in a pipe, at whichever of its ends."""
    unread: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
    return unread
