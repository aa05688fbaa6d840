"""A worker's pipe for jobs: a real pipe and Twisted's writer, and the worker's end in our hands."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import sys
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor as _reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.process import ProcessWriter
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from dangad.pool.jobpipe import PIECE, JobPipe, Scratch
from tests.realserver import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    PipeCase = SynchronousTestCase
else:
    PipeCase = object

reactor: Any = _reactor

READ_SIZE = 2**16
"""Bytes that a worker asks for at once, as in dangad.worker.pipe."""


class Parent:
    """Stands in for Twisted's Process: closes the pipe when its writer is done with it.

    :ivar lost: how often it heard of that.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.writer: Any = None

    def childConnectionLost(self, name: object, reason: object) -> None:
        """Close it."""
        self.lost += 1
        os.close(self.writer.fileno())


class PipeSetting(PipeCase):
    """A pipe, a writer for it, and the end that a worker would read."""

    def setUp(self) -> None:
        """Make the pipe."""
        super().setUp()
        self.make_pipe()

    def make_pipe(self) -> None:
        """Make them."""
        self.worker, ours = os.pipe()
        self.addCleanup(os.close, self.worker)
        os.set_blocking(self.worker, False)
        self.parent = Parent()
        self.writer: Any = ProcessWriter(reactor, self.parent, 3, ours)
        self.parent.writer = self.writer
        self.addCleanup(self.disconnect)
        self.pipe = self.open()
        self.addCleanup(lambda: self.pipe.close())

    def open(self) -> JobPipe:
        """What is tested, on that writer."""
        return opened(JobPipe(self.writer, self.open_scratch()))

    def open_scratch(self) -> Scratch:
        """What it takes to reclaim something."""
        scratch = self.scratch = Scratch()
        scratch.open()
        self.addCleanup(scratch.close)
        return scratch

    def disconnect(self) -> None:
        """Have the writer be done with the pipe, as if the process had closed its end."""
        if not self.writer.disconnected:
            self.writer.stopReading()
            self.writer.stopWriting()
            self.writer.connectionLost(Failure(ConnectionDone()))

    def read(self) -> bytes:
        """What a worker gets at one read; nothing if nothing is there."""
        try:
            return os.read(self.worker, READ_SIZE)
        except BlockingIOError:
            return b""

    def reads(self) -> list[bytes]:
        """What a worker gets, read after read, until nothing is left."""
        return list(iter(self.read, b""))

    def reclaim(self, pipe: JobPipe | None = None) -> list[bytes]:
        """What is reclaimed."""
        packets: list[bytes] = []
        (pipe or self.pipe).reclaim(packets)
        return packets

    def fill(self, size: int) -> list[bytes]:
        """Write packets of so many bytes until one is refused; those that were not."""
        written: list[bytes] = []
        for packet in packets(size):
            if not self.pipe.write_packet(packet):
                return written
            written.append(packet)
        raise AssertionError("not reached")


def packets(size: int) -> Iterator[bytes]:
    """Packets of so many bytes, no two alike, without end."""
    number = 0
    while True:
        yield b"%d:" % number + b"%c" % (65 + number % 26) * (size - len(b"%d:" % number))
        number += 1


class PacketTests(PipeSetting, SynchronousTestCase):
    """A pipe whose packets can be reclaimed."""

    def test_one_at_a_time(self) -> None:
        """Each read of the worker's gets one write, and the whole of it, whatever its size.

        A header and its box are one packet, up to the size of a page.
        """
        written = [b"a", b"b" * 100, b"c" * select.PIPE_BUF, b"d"]
        for packet in written:
            self.assertTrue(self.pipe.write_packet(packet))
        whole = b"x" * (select.PIPE_BUF - len(b"header"))
        for box in (b"box", whole):
            self.assertTrue(self.pipe.write(b"header", box))
        self.assertEqual(self.reads(), [*written, b"headerbox", b"header" + whole])

    def test_reclaim(self) -> None:
        """What was not read is reclaimed in order, packet by packet, and is not there any more.

        It can be written again. From a pipe that is empty nothing is reclaimed, without a wait.
        """
        self.assertTrue(self.pipe.can_reclaim)
        self.assertEqual(self.reclaim(), [])
        for packet in (b"one", b"two", b"three", b"four"):
            self.pipe.write_packet(packet)
        self.assertEqual(self.read(), b"one")
        back = self.reclaim()
        self.assertEqual(back, [b"two", b"three", b"four"])
        self.assertEqual(self.read(), b"")
        self.assertEqual(self.reclaim(), [])
        for packet in back:
            self.pipe.write_packet(packet)
        self.assertEqual(self.reads(), back)

    def test_small_scratch(self) -> None:
        """All is reclaimed, in order, with a scratch pipe of one page, as the kernel may give."""
        for end in self.scratch._ends or ():
            fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
        written = [b"%d" % number for number in range(9)] + [b"x" * select.PIPE_BUF, b"last"]
        for packet in written:
            self.assertTrue(self.pipe.write_packet(packet))
        self.assertEqual(self.reclaim(), written)
        self.assertEqual(self.reads(), [])

    def test_fails_half_way(self) -> None:
        """If reclaiming fails half way, this is told, and nothing is left for another's pipe."""
        for packet in (b"one", b"two", b"three"):
            self.pipe.write_packet(packet)
        read, reads = os.read, iter((True, False))

        def fail(fd: int, size: int) -> bytes:
            if next(reads):
                return read(fd, size)
            raise OSError("no more")

        packets: list[bytes] = []
        patch = self.patch(os, "read", fail)
        with self.assertRaises(OSError):
            self.pipe.reclaim(packets)
        patch.restore()
        self.assertEqual(packets, [b"one"])
        self.pipe.write_packet(b"four")
        self.assertEqual(self.reclaim(), [b"four"])

    def test_no_end(self) -> None:
        """Nobody who writes to the pipe all the time keeps the parent reclaiming for ever."""
        splice = os.splice

        def write_and_splice(*args: Any, **keywords: Any) -> int:
            os.write(self.writer.fileno(), b"more")
            return splice(*args, **keywords)

        self.patch(os, "splice", write_and_splice)
        with self.assertRaises(OSError):
            self.reclaim()

    def test_reclaim_what_a_dead_worker_left(self) -> None:
        """What a worker had not read when it died can be reclaimed, and written to the pipe."""
        dead = self.worker
        self.worker = os.dup(dead)  # for the cleanup
        self.addCleanup(os.close, self.worker)
        os.dup2(os.open(os.devnull, os.O_RDONLY), dead)
        self.assertTrue(self.pipe.write_packet(b"one"))
        self.assertEqual(self.reclaim(), [b"one"])
        self.assertTrue(self.pipe.write_packet(b"one"))
        self.assertEqual(self.reclaim(), [b"one"])

    def test_full(self) -> None:
        """A full pipe refuses a packet of any size, and has taken no part of it."""
        for size in (10, 1000, select.PIPE_BUF):
            written = self.fill(size)
            self.assertGreater(len(written), 1)
            self.assertFalse(self.pipe.write_packet(b"x"))
            self.assertEqual(self.reads(), written)
            self.assertTrue(self.pipe.write_packet(b"y"))
            self.assertEqual(self.reads(), [b"y"])

    def test_room(self) -> None:
        """A full pipe has room for as many packets as were read or reclaimed."""
        written = self.fill(100)
        self.assertEqual(self.read(), written[0])
        self.assertTrue(self.pipe.write_packet(b"more"))
        self.assertFalse(self.pipe.write_packet(b"still more"))
        self.assertEqual(self.reclaim(), [*written[1:], b"more"])
        self.assertEqual(len(self.fill(100)), len(written))

    def test_unread(self) -> None:
        """It knows how many bytes the worker has not read."""
        self.assertEqual(self.pipe.unread, 0)
        self.pipe.write_packet(b"12345")
        self.pipe.write(b"123", b"45678")
        self.assertEqual(self.pipe.unread, 13)
        self.read()
        self.assertEqual(self.pipe.unread, 8)
        self.reclaim()
        self.assertEqual(self.pipe.unread, 0)

    def test_close(self) -> None:
        """Once it is closed it holds no descriptor, and nothing can be reclaimed."""
        scratch = self.open_scratch()
        before = _descriptors()
        other = opened(JobPipe(self.writer, scratch))
        self.assertEqual(len(_descriptors()), len(before) + 1)
        self.pipe.write_packet(b"one")
        other.close()
        other.close()
        self.assertEqual(_descriptors(), before)
        self.assertFalse(other.can_reclaim)
        self.assertEqual(self.reclaim(other), [])
        self.assertEqual(self.read(), b"one")

    def test_end(self) -> None:
        """The worker sees the pipe's end when the writer closes it, whatever else is open."""
        self.pipe.write_packet(b"one")
        self.disconnect()
        self.assertEqual(self.read(), b"one")
        self.assertEqual(os.read(self.worker, READ_SIZE), b"")

    def test_disconnected(self) -> None:
        """A write after the writer is done does nothing, to whoever has its descriptor now."""
        fd = self.writer.fileno()
        foreign, end = os.pipe()
        self.disconnect()
        os.dup2(end, fd)
        for each in (foreign, end, fd):
            self.addCleanup(os.close, each)
        self.assertFalse(self.pipe.write(b"header", b"box"))
        self.assertFalse(self.pipe.write(b"header", bytes(READ_SIZE)))
        self.assertEqual(select.select([foreign], [], [], 0)[0], [])
        self.assertTrue(self.pipe.is_flushed)
        self.assertEqual(self.pipe.unread, 0)


class StreamTests(PipeSetting, TestCase):
    """What is larger than a packet."""

    timeout = 60

    def test_larger_than_a_page(self) -> None:
        """It goes as a stream, of which a worker reads as much at once as is there.

        The first size that is no packet comes whole, too.
        """
        first = b"x" * (select.PIPE_BUF - 1)
        self.assertFalse(self.pipe.write(b"he", first))
        self.assertEqual(self.read(), b"he" + first)
        box = b"".join(b"%06d" % number for number in range(5000))
        self.assertFalse(self.pipe.write(b"header", box))
        self.assertTrue(self.pipe.is_flushed)
        self.assertEqual(self.pipe.unread, len(b"header") + len(box))
        self.assertEqual(self.read(), b"header" + box)

    def test_packets_again(self) -> None:
        """Small writes are packets before it, and again once it has been read.

        What is written behind one that was not read loses nothing, and is read with it.
        """
        large = bytes(range(256)) * 50
        self.assertTrue(self.pipe.write_packet(b"one"))
        self.assertFalse(self.pipe.write(b"", large))
        self.assertEqual(self.reads(), [b"one", large])
        self.assertTrue(self.pipe.write_packet(b"two"))
        self.assertTrue(self.pipe.write(b"thr", b"ee"))
        self.assertEqual(self.reads(), [b"two", b"three"])
        for packet in (b"four", b"five"):
            self.pipe.write(b"", large)
            self.pipe.write_packet(packet)
        self.assertEqual(b"".join(self.reads()), large + b"four" + large + b"five")

    def test_reclaim(self) -> None:
        """Of a stream its rest is reclaimed in pieces, which make the whole."""
        large = bytes(range(256)) * 50
        self.pipe.write(b"", large)
        begin = os.read(self.worker, 1000)
        pieces = self.reclaim()
        self.assertEqual(begin + b"".join(pieces), large)
        self.assertLessEqual(max(map(len, pieces)), select.PIPE_BUF)

    async def test_larger_than_the_pipe(self) -> None:
        """What the pipe does not take at once follows as it is read; then there are packets."""
        box = b"".join(b"%07d" % number for number in range(100_000))
        self.assertFalse(self.pipe.write(b"header", box))
        self.assertFalse(self.pipe.is_flushed)
        read = bytearray()

        def has_come() -> bool:
            while data := self.read():
                read.extend(data)
            return len(read) >= len(b"header") + len(box)

        await until(has_come)
        self.assertEqual(bytes(read), b"header" + box)
        self.assertTrue(self.pipe.is_flushed)
        self.assertTrue(self.pipe.write(b"on", b"e"))
        self.assertTrue(self.pipe.write_packet(b"two"))
        self.assertEqual(self.reads(), [b"one", b"two"])

    def test_unsent(self) -> None:
        """The request of a dead worker that has read nothing of it is had again, however large.

        If the worker has read anything, it is not.
        """
        for size in (READ_SIZE, 3 * READ_SIZE, 10 * PIECE):
            for read in (False, True):
                self.disconnect()
                self.make_pipe()
                box = b"".join(b"%07d" % number for number in range(size // 7))
                self.pipe.write(b"header", box)
                if read:
                    os.read(self.worker, 1)
                again = self.pipe.unread_request(b"header", len(box), self.reclaim())
                self.assertEqual(bytes(again), b"" if read else box)

    def test_pieces(self) -> None:
        """Of a large request Twisted, which copies what it is given, has little at a time."""
        box = bytes(20 * PIECE)
        self.pipe.write(b"header", memoryview(box))
        read, most = bytearray(), 0
        while not self.pipe.is_flushed:
            most = max(most, len(self.writer.dataBuffer) + self.writer._tempDataLen)
            read += self.read()
            self.writer.doWrite()
        read += b"".join(self.reads())
        self.assertEqual(bytes(read), b"header" + box)
        self.assertLessEqual(most, PIECE + len(b"header"))

    async def test_full(self) -> None:
        """What a full pipe refuses as a packet follows none the less if it is to be written."""
        written = self.fill(100)
        self.assertFalse(self.pipe.write(b"head", b"er"))
        self.assertFalse(self.pipe.is_flushed)
        read = self.reads()
        await until(lambda: self.pipe.is_flushed)
        self.assertEqual([*read, *self.reads()], [*written, b"header"])

    def test_header_cut(self) -> None:
        """A header of which the pipe has taken a part is written on where it was cut."""
        header = b"h" * (READ_SIZE * 20)
        self.assertFalse(self.pipe.write(header, b"box"))
        first = b"".join(self.reads())
        self.assertLess(len(first), len(header))
        self.assertFalse(self.pipe.is_flushed)
        kept = b"".join((self.writer.dataBuffer, *self.writer._tempDataBuffer))
        self.assertEqual(first + kept, header + b"box")


class PlainPipeTests(PipeSetting, SynchronousTestCase):
    """A pipe where nothing can be reclaimed, on a system that has no packets."""

    def open(self) -> JobPipe:
        """See :class:`PipeSetting`."""
        patch = self.patch(sys, "platform", "sunos5")
        try:
            return opened(JobPipe(self.writer, self.open_scratch()))
        finally:
            patch.restore()

    def test_reclaim(self) -> None:
        """It says so, and reclaims nothing."""
        self.assertFalse(self.pipe.can_reclaim)
        self.pipe.write(b"o", b"ne")
        self.assertEqual(self.reclaim(), [])
        self.assertEqual(self.read(), b"one")

    def test_writes(self) -> None:
        """It writes small and large, whole and in order."""
        large = bytes(range(256)) * 50
        self.pipe.write(b"o", b"ne")
        self.pipe.write(b"", large)
        self.assertTrue(self.pipe.write_packet(b"two"))
        self.assertTrue(self.pipe.is_flushed)
        self.assertEqual(b"".join(self.reads()), b"one" + large + b"two")

    def test_full(self) -> None:
        """A full pipe refuses what it cannot take whole, and has taken no part of it."""
        written = self.fill(select.PIPE_BUF)
        self.assertFalse(self.pipe.write_packet(b"x" * 100))
        self.assertEqual(b"".join(self.reads()), b"".join(written))

    def test_unread(self) -> None:
        """It knows what the worker has not read as long as the writer has the pipe."""
        self.pipe.write_packet(b"12345")
        self.assertEqual(self.pipe.unread, 5)
        self.read()
        self.assertEqual(self.pipe.unread, 0)
        self.pipe.write_packet(b"12345")
        self.disconnect()
        self.assertEqual(self.pipe.unread, 0)

    def test_worker_is_gone(self) -> None:
        """A write to a worker that has closed its end raises nothing."""
        dead, self.worker = self.worker, os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, self.worker)
        os.dup2(self.worker, dead)
        self.assertFalse(self.pipe.write_packet(b"one"))
        self.assertFalse(self.pipe.write(b"o", b"ne"))
        self.assertFalse(self.pipe.write(b"", bytes(READ_SIZE)))


class NoDescriptorTests(PlainPipeTests):
    """So is one for whose other end no descriptor was left."""

    def open(self) -> JobPipe:
        """See :class:`PipeSetting`."""
        scratch = self.open_scratch()
        with no_descriptor_left(self.worker):
            return opened(JobPipe(self.writer, scratch))


class NoScratchTests(PlainPipeTests):
    """So is one where no descriptors were left for what is reclaimed."""

    def open(self) -> JobPipe:
        """See :class:`PipeSetting`."""
        with no_descriptor_left(self.worker):
            scratch = self.open_scratch()
        self.assertFalse(scratch.is_open)
        return opened(JobPipe(self.writer, scratch))


def opened(pipe: JobPipe) -> JobPipe:
    """The pipe, opened."""
    pipe.open()
    return pipe


@contextlib.contextmanager
def no_descriptor_left(fd: int) -> Iterator[None]:
    """Meanwhile no descriptor is left; `fd` is an open one."""
    free = os.dup(fd)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _descriptors() -> list[str]:
    """What this process has open."""
    return sorted(os.listdir("/proc/self/fd"))
