"""The worker processes, kept by ampoule, and the parent's end of each one's pipe.

On a job's way between :mod:`dangad.dispatcher`, which decides, and
:mod:`dangad.worker.child`, which performs. :class:`WorkerPool` starts processes when
:mod:`dangad.workforce` asks; each has a :class:`WorkerLink`, which is the worker as the
dispatcher knows it. This is the one file of the parent that knows ampoule; what it bends, and
why, is told in the docstring of each override:

- ampoule's own job queue and its ``doWork`` are never used, so nothing of what goes wrong
  there can happen here.
- A worker's death is its exit, not the closing of its last descriptor, which may be in the
  hands of a process that the job left behind.
- ampoule's child program, which serves AMP from a reactor, is replaced by one that blocks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import struct
import termios
from typing import TYPE_CHECKING, Any

from ampoule import iampoule
from ampoule.main import AMPConnector, ProcessStarter
from ampoule.pool import ProcessPool
from twisted.internet import defer, error
from twisted.logger import Logger
from zope.interface import implementer

from dangad import commands, wire
from dangad.interfaces import IHatchery, IWorker
from dangad.joboutput import JobOutput
from dangad.launch import BOOTSTRAP

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from dangad.dispatcher import Dispatcher
    from dangad.jobrecord import Job
    from dangad.launch import WorkerSettings
    from dangad.workforce import Workforce

log = Logger()

STDIN, STDOUT, STDERR = 0, 1, 2
TO_WORKER, FROM_WORKER = 3, 4
"""The worker's descriptors as ampoule numbers them."""

BOX_OVERHEAD = 2**16
"""Bytes that a worker's box may be larger than the largest payload: its own pairs."""
STOP_GRACE = 5.0
"""Seconds in which a worker that was asked to stop must exit."""
CLOSED_GRACE = 0.5
"""Seconds in which a worker that closed its pipe must exit."""


@implementer(IWorker)
class WorkerLink:
    """The parent's end of one worker's pipe, and all that it knows of the worker.

    ampoule makes one for each process, as the AMP protocol of its pipe, and calls
    `makeConnection`, `dataReceived`, `connectionLost` and `callRemote`.

    All mutable state: `pid`; `performed`, how many jobs it was given; `_job`, the one it has
    now; `_booted`, whether it has said Hello; `_killed_for`, why the parent killed it, and
    `_gone`, whether it is dead: after either, nothing it wrote counts.
    """

    def __init__(
        self,
        clock: IReactorTime,
        workforce: Workforce,
        dispatcher: Dispatcher,
        max_payload: int,
    ) -> None:
        self.pid = 0
        self.performed = 0
        self.output = JobOutput()
        self._clock = clock
        self._workforce = workforce
        self._dispatcher = dispatcher
        self._reader = wire.BoxReader(max_payload + BOX_OVERHEAD, commands.WORKER_KEYS)
        self._job: Job | None = None
        self._booted = False
        self._boot_failure: str | None = None
        self._killed_for: str | None = None
        self._gone = False

    # Called by ampoule.

    def makeConnection(self, connector: WorkerConnector) -> None:
        """Begin: the process has been started, and its pipe is open."""
        self.transport = connector
        self.pid = self.output.pid = connector.transport.pid
        self._workforce.worker_started(self)

    def dataReceived(self, data: bytes) -> None:
        """Take what the worker wrote: its Hello, or the answer to its job."""
        if self._gone or self._killed_for is not None:
            return
        self._reader.feed(data)
        try:
            while (box := self._reader.next()) is not None:
                self._box_received(box)
        except wire.Garbage as garbage:
            self.kill(f"wrote garbage to its pipe ({garbage}) and was killed")

    def connectionLost(self, reason: Failure) -> None:
        """Nothing: death was seen before, at `exited`."""

    def callRemote(self, command: type, **arguments: object) -> defer.Deferred[dict[str, Any]]:
        """Stop; ampoule's ``Shutdown`` is the only thing that it asks for by itself."""
        self.stop()
        return defer.succeed({})

    # Called by the dispatcher and the workforce.

    def perform(self, job: Job) -> None:
        """See :meth:`IWorker.perform`."""
        self._job = job
        self.performed += 1
        self.output.begin_job(job.id)
        header = wire.pair(commands.RUN, b"%d %d" % (job.id, job.attempt))
        self.transport.write(header + job.box)

    def kill(self, reason: str) -> None:
        """See :meth:`IWorker.kill`."""
        if self._killed_for is None:
            self._killed_for = reason
        self.transport.kill()

    def stop(self) -> None:
        """See :meth:`IWorker.stop`."""
        if not self._booted:
            self.kill("was stopped while it started")
        elif not self._gone:
            self.transport.close_input()
            alarm = self._clock.callLater(STOP_GRACE, self.transport.kill)
            self.transport.finished.addBoth(_cancel_alarm, alarm)

    # Called by the connector.

    def pipe_closed(self) -> None:
        """The worker has closed its end of the pipe: it has exited, or it must."""
        if not self._gone:
            alarm = self._clock.callLater(CLOSED_GRACE, self.kill, "closed its pipe and was killed")
            self.transport.finished.addBoth(_cancel_alarm, alarm)

    def exited(self, status: Failure) -> None:
        """The process is gone; all that it wrote has been read."""
        self._gone = True
        self._job = None
        how = _how_it_ended(status)
        if self._boot_failure is not None:
            how = f"could not start: {self._boot_failure}"
        if self._killed_for is not None:
            how = self._killed_for
        level = log.info if status.check(error.ProcessDone) else log.warn
        level("worker {pid} {how}, after {jobs} jobs", pid=self.pid, how=how, jobs=self.performed)
        self.output.close()
        self._workforce.worker_exited(self, how, self.performed)

    # The boxes of a worker.

    def _box_received(self, box: wire.Box) -> None:
        if box.raw is None:
            raise wire.Garbage(f"a box of {box.size} bytes, more than any answer may have")
        for key, value in box.keys.items():
            if key == commands.DONE:
                self._answered(box.raw, key, value, failed=False)
            elif key == commands.FAILED:
                self._answered(box.raw, key, value, failed=True)
            else:
                self._command_received(value, box.raw)
            return
        raise wire.Garbage("a box that is neither an answer nor a command")

    def _answered(self, raw: bytes, key: bytes, job_id: bytes, failed: bool) -> None:
        job = self._job
        start = 4 + len(key) + len(job_id)
        if job is None or job_id != b"%d" % job.id or raw[2 : 2 + len(key)] != key:
            raise wire.Garbage(f"an answer to job {job_id[:20]!r}, which it was not given")
        self.transport.drain_output()
        self.output.end_job()
        self._job = None
        self._dispatcher.job_finished(self, failed, raw[start:])

    def _command_received(self, name: bytes, raw: bytes) -> None:
        strings = wire.unpack(raw)
        if name == commands.Hello.commandName and not self._booted:
            self._booted = True
            hello = commands.Hello.parseArguments(strings, None)
            log.info("worker {pid} is ready", pid=self.pid)
            self._workforce.worker_booted(self, hello["catalogue"])
        elif name == commands.BootFailed.commandName and not self._booted:
            self._boot_failure = commands.BootFailed.parseArguments(strings, None)["reason"]
        else:
            raise wire.Garbage(f"a command {name[:40]!r} that it may not send now")


def _cancel_alarm(result: object, alarm: Any) -> object:
    if alarm.active():
        alarm.cancel()
    return result


def _how_it_ended(status: Failure) -> str:
    """The process's end in words that follow "worker 4711"."""
    value = status.value
    if isinstance(value, error.ProcessTerminated) and value.signal is not None:
        try:
            return f"was killed by {signal.Signals(value.signal).name}"
        except ValueError:
            return f"was killed by signal {value.signal}"
    return f"exited (status {getattr(value, 'exitCode', None) or 0})"


class WorkerConnector(AMPConnector):
    """ampoule's process protocol, for workers that lead a process group and may die at any time.

    ampoule takes a worker for dead when the last descriptor that it held is closed, which a
    process left behind by a job can put off for ever. Here death is the exit of the process:
    then what is left in its pipes is read, its process group is killed, and the pipes are
    closed, so that ampoule's moment comes at once.
    """

    amp: WorkerLink
    finished: defer.Deferred[str]

    def connectionMade(self) -> None:
        """Begin, with nothing on the worker's stdin."""
        self.transport.closeChildFD(STDIN)
        self.amp.makeConnection(self)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Pass on the worker's boxes, and its output."""
        if childFD == FROM_WORKER:
            self.amp.dataReceived(data)
        else:
            self.amp.output.received(data)

    def childConnectionLost(self, childFD: int) -> None:
        """Note that the worker closed its pipe; it may close anything else."""
        if childFD in (TO_WORKER, FROM_WORKER):
            self.amp.pipe_closed()

    def processExited(self, reason: Failure) -> None:
        """See the class."""
        for fd in (FROM_WORKER, STDERR, STDOUT):
            self._drain(fd)
        self._kill_group()
        self.amp.exited(reason)
        for fd in list(self.transport.pipes):
            self.transport.closeChildFD(fd)

    def processEnded(self, status: Failure) -> None:
        """Tell ampoule that it may forget the process, whatever its status.

        ampoule's own version fails `finished` for any status but 0, only to log it as fatal.
        """
        self.finished.callback(f"worker {self.amp.pid}")

    def write(self, data: bytes) -> None:
        """Write to the worker, if it has not closed its end: then it is about to be gone."""
        if TO_WORKER in self.transport.pipes:
            self.transport.writeToChild(TO_WORKER, data)

    def kill(self) -> None:
        """Kill the process and its group, if it is not gone yet."""
        self._kill_group()
        with contextlib.suppress(error.ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def close_input(self) -> None:
        """Close the pipe towards the worker, which ends it once it is idle."""
        self.transport.closeChildFD(TO_WORKER)

    def drain_output(self) -> None:
        """Read what the worker has printed so far, so that it counts for the job it ran."""
        self._drain(STDERR)

    def _drain(self, fd: int) -> None:
        """Read what lies in the worker's pipe `fd` now, and not what may come."""
        pipe = self.transport.pipes.get(fd)
        if pipe is None:
            return
        try:
            waiting = struct.unpack("i", fcntl.ioctl(pipe.fileno(), termios.FIONREAD, b"\0" * 4))[0]
            while waiting > 0:
                data = os.read(pipe.fileno(), waiting)
                waiting -= len(data) or waiting
                self.childDataReceived(fd, data)
        except OSError as problem:
            if problem.errno not in (errno.EAGAIN, errno.EBADF):
                raise

    def _kill_group(self) -> None:
        """Kill all processes of the worker's group: none is left, or it has made none yet."""
        if self.amp.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.amp.pid, signal.SIGKILL)


@implementer(iampoule.IStarter)
class WorkerStarter(ProcessStarter):
    """ampoule's starter, for dangad's own child program with a full environment.

    ampoule's would look the child's protocol up by name in a program that runs a reactor.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        super().__init__(bootstrap=BOOTSTRAP)
        self._settings = settings

    def startAMPProcess(
        self, ampChild: object, ampParent: Any = None, ampChildArgs: tuple[str, ...] = ()
    ) -> tuple[WorkerLink, defer.Deferred[str]]:
        """Start a worker; ampoule's way to say it."""
        self.env = self._settings.process_environment()
        started: tuple[WorkerLink, defer.Deferred[str]] = self.startPythonProcess(
            WorkerConnector(ampParent()), "dangad-worker"
        )
        return started


@implementer(IHatchery)
class WorkerPool(ProcessPool):
    """ampoule's pool: it starts the processes, counts them, and stops them.

    How many there are is the workforce's to say, and who gets which job the dispatcher's, so
    ampoule's ``doWork`` is never called, its queue is always empty, and its idle pruning,
    which would start with the constructor and on the global reactor, is stopped at once.
    """

    def __init__(
        self,
        clock: IReactorTime,
        workforce: Workforce,
        dispatcher: Dispatcher,
        settings: WorkerSettings,
    ) -> None:
        super().__init__(
            ampParent=lambda: WorkerLink(clock, workforce, dispatcher, settings.max_payload),
            min=0,
            max=workforce.max_workers,
            recycleAfter=0,
            starter=WorkerStarter(settings),
        )
        self.looping.stop()
        self.started = True

    def spawn(self) -> None:
        """See :meth:`IHatchery.spawn`."""
        self.startAWorker()

    def kill_all(self, reason: str) -> None:
        """Kill every worker and its process group now."""
        for link in list(self.processes):
            link.kill(reason)
