"""The parent's end of the pipe through which a worker gets its jobs.

Used by :mod:`dangad.pool.processes`. On Linux the pipe is in packet mode: each read takes exactly
one small write out of it, see O_DIRECT in pipe(2). (Since Linux 4.5 this can be set for an existing
pipe.) So a worker reads one job at a time. The jobs that it has not read, the parent can take out
itself, all at once, see splice(2). A job larger than a page goes through the same pipe as a stream.
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
"""More bytes than any pipe holds."""
_MOST_STEPS = 100
"""Steps that suffice to empty a pipe, even page by page."""
PIECE = 2**18
"""Bytes of a large request that Twisted's writer gets at a time. It copies them; a copy of the
largest request at once would take 40 ms."""
_NOTHING = memoryview(b"")


class Scratch:
    """A pipe of the parent's own, into which it moves the contents of workers' pipes.

    If the parent read packet by packet, the worker could take one in between. A move from pipe to
    pipe takes all packets in one step.
    """

    def __init__(self) -> None:
        #: Its reading and its writing end; None if it is not open.
        self._ends: tuple[int, int] | None = None

    def open(self) -> None:
        """Create the pipe, unless it is open or the system cannot provide it.

        It may have room for a page or two only: see pipe-user-pages-soft in pipe(7).
        """
        if self._ends is None and sys.platform == "linux":
            with contextlib.suppress(OSError):  # no descriptor is left
                self._ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def is_open(self) -> bool:
        """Whether the pipe can be used."""
        return self._ends is not None

    def take_all(self, fd: int, packets: list[bytes]) -> None:
        """Take all packets, or pieces of a stream, out of another pipe; add them to `packets`.

        This takes several steps if this pipe is smaller than the other. Between two steps the
        worker may read packets, too.

        :param fd: a descriptor of the other pipe's reading end.
        :raises OSError: the system fails; what is left in the other pipe is not known. `packets`
            has everything that was taken out.
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
                    return  # the other pipe is empty
                with contextlib.suppress(BlockingIOError):
                    while True:
                        packets.append(os.read(reading, select.PIPE_BUF))
        except BaseException:
            self.close()  # its packets must not be mistaken for another worker's
            raise
        raise OSError("there is no end to what lies in a worker's pipe")

    def close(self) -> None:
        """Close the pipe; nothing can be reclaimed any more."""
        if self._ends is not None:
            for fd in self._ends:
                os.close(fd)
            self._ends = None


@implementer(IPullProducer)
class JobPipe:
    """The pipe of jobs to one worker, as long as the worker lives.

    It is its writer's producer while a part of a large request is still to be written.
    """

    def __init__(self, writer: ProcessWriter, scratch: Scratch) -> None:
        """Write through `writer`, Twisted's end, which buffers what the pipe does not take at once.

        :param scratch: the pipe into which jobs are reclaimed.
        """
        self._writer = writer
        self._scratch = scratch
        #: Whether the pipe is in packet mode now.
        self._packets = False
        #: A descriptor of the end that the worker reads; None if jobs cannot be reclaimed.
        self._reading: int | None = None
        #: The large request that is being written; empty if there is none.
        self._large: bytes | memoryview = b""
        #: The part of this request that the writer has not been given yet.
        self._left = _NOTHING
        #: A request that was not written at all, because the worker had closed its end.
        self._refused: bytes | memoryview = b""

    def open(self) -> None:
        """Make it possible to reclaim jobs, if the system provides the means."""
        if self._scratch.is_open:
            with contextlib.suppress(OSError):  # no descriptor is left, or the kernel is old
                self._make_packets(True)
                path = f"/proc/self/fd/{self._writer.fileno()}"
                self._reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    @property
    def can_reclaim(self) -> bool:
        """Whether jobs that the worker has not read can be reclaimed."""
        return self._reading is not None

    @property
    def is_flushed(self) -> bool:
        """Whether the pipe has taken everything that was written to it."""
        # Twisted has no public name for its buffer.
        return not (len(self._left) or self._writer.dataBuffer or self._writer._tempDataLen)  # noqa: SLF001

    def unread_request(self, head: bytes, size: int, taken: list[bytes]) -> bytes | memoryview:
        """A request written as a stream, if the worker has read nothing of it; otherwise empty.

        :param head: the head that was written before the request.
        :param size: the bytes of the request.
        :param taken: the pieces that were taken out of the pipe.
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
        """How many bytes the worker has not read; 0 if this is not known."""
        if self._reading is not None:
            return waiting(self._reading)
        return 0 if self._writer.disconnected else waiting(self._writer.fileno())

    def write(self, header: bytes, box: bytes | memoryview) -> bool:
        """Write a request to a flushed pipe; whether the pipe took all of it as one packet.

        As much as possible is written at once, without waiting for the reactor.
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
        """Give the writer the next piece; it has sent the last one."""
        piece, self._left = bytes(self._left[:PIECE]), self._left[PIECE:]
        if not len(self._left):
            self._left = _NOTHING  # an empty view keeps the whole
            if self._large:
                self._large = b""
                self._writer.unregisterProducer()
        self._writer.write(piece)

    def stopProducing(self) -> None:
        """Do nothing: the rest of the request may be needed for a retry."""

    def write_packet(self, packet: bytes) -> bool:
        """Write at most PIPE_BUF bytes to a flushed pipe; whether the pipe has taken them.

        They are one packet if the pipe can reclaim jobs.
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
        """Add the packets, or pieces of a stream, that the worker has not read to `packets`.

        :raises OSError: as :meth:`Scratch.take_all` does.
        """
        if self._reading is not None:
            self._scratch.take_all(self._reading, packets)

    def close(self) -> None:
        """Close the descriptor of the worker's end: nothing can be reclaimed any more."""
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
    """How many bytes are in a pipe.

    :param fd: a descriptor of either end.
    """
    unread: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
    return unread
