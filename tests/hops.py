"""All hops of a job in one process: a client's transport, the parent's parts, and a worker's.

Between the parent's end of a worker's pipes and the worker's are real pipes; what stands in is
the process. Nothing happens by itself: the clock, the client's bytes and the worker's steps are the
test's.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import struct
import termios
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.process import ProcessWriter
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from dangad.host.memory import KernelKills
from dangad.pool.guardian import Guardian
from dangad.pool.jobpipe import Scratch
from dangad.pool.link import WorkerLink
from dangad.pool.processes import WorkerConnector
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.interfaces import ISpawner
from dangad.scheduler.supervisor import Supervisor
from dangad.scheduler.workerrecord import WorkerState
from dangad.wire import boxes, commands, workerboxes
from dangad.worker.context import RunningJob
from dangad.worker.jobtypes import catalogue_of
from dangad.worker.perform import Performer
from dangad.worker.pipe import WorkerPipe
from tests.fakes import client_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.trial.unittest import SynchronousTestCase

    from dangad.worker.jobtypes import JobType

MAX_PAYLOAD = 2**20
TICK = 0.0001
"""Seconds in which each thing happens."""
MOST_STEPS = 10_000
"""Steps in which everything is done."""
NO_PROCESS = 2**22
"""Above the greatest id that a process of Linux can have."""


def waiting(fd: int) -> int:
    """How many bytes lie in a pipe."""
    unread: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
    return unread


class FakeReader:
    """Stands in for Twisted's reader of a pipe: the test reads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.reads = True

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def stopReading(self) -> None:
        """Note it: nobody reads anyway."""
        self.reads = False

    def startReading(self) -> None:
        """Note it."""
        self.reads = True


class FakeProcess:
    """Stands in for Twisted's process: it has no process, but real pipes to a worker's end.

    :ivar pipes: the parent's ends, by the descriptor's number in the worker.
    :ivar signals: what it was sent.
    """

    def __init__(self, worker: HopWorker, pid: int) -> None:
        self.pid: int = pid
        self.worker = worker
        self.signals: list[object] = []
        self.pipes: dict[int, Any] = {}
        self.proto: Any = None

    def signalProcess(self, number: object) -> None:
        """Note the signal; one that kills does, as soon as the test looks."""
        self.signals.append(number)

    def write_on(self) -> None:
        """Do as the reactor does when there is room in the pipe for jobs."""
        writer = self.pipes.get(3)
        if writer is not None and (writer.dataBuffer or writer._tempDataLen):
            writer.doWrite()

    def closeChildFD(self, fd: int) -> None:
        """Close the parent's end of a pipe."""
        pipe = self.pipes.pop(fd, None)
        if pipe is not None:
            if isinstance(pipe, ProcessWriter):
                pipe.stopReading()
                pipe.stopWriting()
                pipe.disconnected = True
            os.close(pipe.fileno())
            self.proto.childConnectionLost(fd)
        self.ended()

    def childConnectionLost(self, fd: int, reason: object) -> None:
        """Twisted's writer has found that the other end is closed."""
        os.close(self.pipes.pop(fd).fileno())
        self.proto.childConnectionLost(fd)

    def ended(self) -> None:
        """Tell of the end if the process is dead and all is closed."""
        if not self.pipes and self.worker.dead and not self.worker.ended:
            self.worker.ended = True
            self.proto.processEnded(None)


class HopPipe(WorkerPipe):
    """The worker's end; where a worker would wait for a job, it raises `BlockingIOError`."""

    def _read(self) -> bytes:
        if waiting(self._read_fd):
            return super()._read()
        raise BlockingIOError


class HopWorker:
    """A worker of which all but the process is real: the parent's link, and the worker's end.

    :ivar link: the parent's.
    :ivar pipe: the worker's.
    :ivar seen: the pairs of all requests that it has performed.
    """

    def __init__(self, hops: Hops, pid: int) -> None:
        self.hops = hops
        self.dead = False
        self.ended = False
        self.seen: list[dict[bytes, bytes]] = []
        reactor = MemoryReactor()
        self.process = FakeProcess(self, pid)
        its_end, ours = os.pipe()
        self.process.pipes[3] = ProcessWriter(reactor, self.process, 3, ours)
        self.from_worker, its_other_end = os.pipe()
        self.process.pipes[4] = FakeReader(self.from_worker)
        for fd in (1, 2):
            end, other = os.pipe()
            os.close(other)
            self.process.pipes[fd] = FakeReader(end)
        wishes, ours = os.pipe()
        self.process.pipes[0] = ProcessWriter(reactor, self.process, 0, ours)
        self.link = WorkerLink(
            hops.clock,
            hops.supervisor,
            hops.dispatcher.answers,
            hops.guardian,
            hops.kernel_kills,
            MAX_PAYLOAD,
        )
        self.connector: Any = WorkerConnector(self.link, hops.scratch, b"")
        self.process.proto = self.connector
        self.pipe = HopPipe(its_end, its_other_end, wishes, MAX_PAYLOAD)
        self.connector.makeConnection(self.process)

    def say_hello(self) -> None:
        """Boot."""
        catalogue = catalogue_of(self.hops.job_types.values())
        self.pipe.send_command(commands.Hello, catalogue=catalogue, cpu=1)
        self.tell()

    @property
    def killed(self) -> bool:
        """Whether the parent has killed it."""
        return "KILL" in self.process.signals

    def has_work(self) -> bool:
        """Whether something is in its pipe."""
        return not self.dead and waiting(self.pipe._read_fd) > 0

    def work(self) -> None:
        """Take a job out of the pipe, perform it, and answer; if there is none, answer a ping."""
        box = self.take()
        if box is not None:
            self.perform(box)

    def take(self) -> bytes | None:
        """Take a job out of the pipe, or answer a ping; None if there is none."""
        with contextlib.suppress(BlockingIOError):
            return self.pipe.next_job()
        return None

    def rob(self, size: int = 2**16) -> bytes:
        """Read what lies in its pipe, as anything in its process could."""
        if not waiting(self.pipe._read_fd):
            raise BlockingIOError
        return os.read(self.pipe._read_fd, size)

    def perform(self, box: bytes) -> None:
        """Perform the job in the box, and answer."""
        job_id, attempt, _, start = workerboxes.read_job(box)
        strings = boxes.unpack(box, start)
        self.seen.append(dict(strings))
        answer = self.hops.performer.perform(
            strings,
            RunningJob(
                job_id,
                "",
                attempt,
                report=partial(self.pipe.send_report, job_id),
                part=partial(self.pipe.send_part, job_id),
            ),
        )
        self.pipe.send_answer(job_id, answer)

    def tell(self) -> None:
        """Have the parent read what the worker has written."""
        while 4 in self.process.pipes and (left := waiting(self.from_worker)):
            self.connector.childDataReceived(4, os.read(self.from_worker, left))

    def write(self, data: bytes) -> None:
        """Write to the parent as a job could."""
        os.write(self.pipe._write_fd, data)

    def die(self, number: int | None = signal.SIGKILL) -> None:
        """Be gone, as on that signal; None for an exit in good order."""
        if self.dead:
            return
        self.dead = True
        for fd in (self.pipe._read_fd, self.pipe._write_fd, self.pipe._wish_fd):
            os.close(fd)
        end = ProcessDone(None) if number is None else ProcessTerminated(None, number, number)
        self.connector.processExited(Failure(end))
        self.process.ended()


@implementer(ISpawner)
class Hops:
    """A server of one process: clients, the rules, and workers.

    :ivar workers: all that were ever started.
    """

    def __init__(self, case: SynchronousTestCase, job_types: dict[bytes, JobType]) -> None:
        """Begin with no worker and no client; `case` cleans up."""
        usual = signal.getsignal(commands.STOP_SIGNAL)
        case.addCleanup(signal.signal, commands.STOP_SIGNAL, usual)
        self.job_types = job_types
        self.performer = Performer(job_types, MAX_PAYLOAD, lambda deferred: deferred.result)
        self.clock = Clock()
        self.dispatcher = Dispatcher(self.clock, quarantine_after=0)
        self.supervisor = Supervisor(self.clock, self.dispatcher, 1, 1)
        self.guardian = Guardian(None)
        self.kernel_kills = KernelKills()
        self.scratch = Scratch()
        self.scratch.open()
        self.clients: Any = client_factory(self.clock, self.dispatcher, max_payload=MAX_PAYLOAD)
        self.workers: list[HopWorker] = []
        self._pids = itertools.count(NO_PROCESS)
        self.events: list[LogEvent] = []
        observer = cast("ILogObserver", self.events.append)
        globalLogPublisher.addObserver(observer)
        self._end = lambda: globalLogPublisher.removeObserver(observer)
        case.addCleanup(self.close)
        self.supervisor.start(self)

    def close(self) -> None:
        """End the workers, and close what is open."""
        end, self._end = self._end, lambda: None
        end()
        self.supervisor.stop()
        for worker in self.workers:
            worker.die()
            for fd in list(worker.process.pipes):
                worker.process.closeChildFD(fd)
        self.scratch.close()

    def end_renewal(self, proven: bool) -> None:
        """See :meth:`ISpawner.end_renewal`."""

    def renew(self, done: Callable[[str | None], object]) -> None:
        """See :meth:`ISpawner.renew`."""

    def spawn(self) -> None:
        """See :meth:`ISpawner.spawn`."""
        self.workers.append(HopWorker(self, next(self._pids)))

    def connect(self) -> HopClient:
        """A new client."""
        return HopClient(self)

    def settle(self) -> None:
        """Let everything happen that follows from what has, the deaths of the killed included."""
        for _ in range(MOST_STEPS):
            if not self.step():
                if not (
                    self.dispatcher.waiting
                    or self.dispatcher.running
                    or any(map(_is_dying, self.workers))
                ):
                    return
                self.clock.advance(0.1)  # for the next start of a worker, or the next kill
        raise AssertionError("it does not come to an end")

    def step(self) -> bool:
        """Have each worker perform what it gets by one read; whether there was anything."""
        self.clock.advance(TICK)
        for worker in self.workers:
            if worker.killed:
                worker.die()
            elif not worker.dead:
                if worker.link.state is WorkerState.STARTING:
                    worker.say_hello()
                worker.tell()
                worker.process.write_on()
        busy = [worker for worker in self.workers if worker.has_work()]
        for worker in busy:
            worker.work()
            worker.tell()
        return bool(busy)

    def faults(self) -> list[LogEvent]:
        """The failures of the server's own that were logged."""
        return [event for event in self.events if "log_failure" in event]


def _is_dying(worker: HopWorker) -> bool:
    return not worker.dead and worker.link.state is WorkerState.STOPPING


class HopClient:
    """A client of stock AMP's eyes: it takes keys by name, wherever they are in a box."""

    def __init__(self, hops: Hops) -> None:
        self.hops = hops
        self.transport = StringTransport()
        self.connection: Any = hops.clients.buildProtocol(None)
        self.connection.makeConnection(self.transport)
        self._reader = boxes.BoxReader(2 * MAX_PAYLOAD, ())

    def send(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Send a box."""
        self.connection.dataReceived(boxes.pack(pairs))

    def boxes(self) -> list[list[tuple[bytes, bytes]]]:
        """What it has been sent since it was last asked: the pairs of each box."""
        self.hops.clock.advance(0)
        self._reader.feed(self.transport.value())
        self.transport.clear()
        sent = []
        while (box := self._reader.next()) is not None:
            assert box.raw is not None
            sent.append(pairs_of(bytes(box.raw)))
        return sent

    @property
    def is_open(self) -> bool:
        """Whether the server has left the connection open."""
        return not self.transport.disconnecting


def pairs_of(raw: bytes) -> list[tuple[bytes, bytes]]:
    """The pairs of a box, twins and all."""
    return [(box[0], box[1]) for box in _walk(raw)]


def _walk(raw: bytes) -> Iterable[tuple[bytes, bytes]]:
    start = 0
    while length := raw[start + 1]:
        key_end = start + 2 + length
        end = key_end + 2 + int.from_bytes(raw[key_end : key_end + 2], "big")
        yield raw[start + 2 : key_end], raw[key_end + 2 : end]
        start = end
