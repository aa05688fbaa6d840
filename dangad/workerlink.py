"""One worker as the parent sees it: its boxes, its job, its life.

On a job's way between :mod:`dangad.dispatcher`, which gives it jobs through :class:`IWorker`
and hears of its answers, and the worker's pipe, which is in :mod:`dangad.pool`. Its birth and
its death it tells to :mod:`dangad.workforce`.
"""

from __future__ import annotations

import re
import select
import signal
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet import defer, error
from twisted.logger import Logger
from zope.interface import implementer

from dangad import commands, wire
from dangad.interfaces import IProcess
from dangad.joboutput import JobOutput, last_lines
from dangad.jobrecord import Death
from dangad.repertoire import Programme
from dangad.vitals import memory_of, show_bytes

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from dangad.dispatcher import Dispatcher
    from dangad.guardian import Guardian
    from dangad.jobpipe import JobPipe
    from dangad.jobrecord import Job
    from dangad.vitals import Deaths
    from dangad.workforce import Workforce

log = Logger()

_REPORTS = {
    commands.REPORT: commands.Progress.commandName,
    commands.PART: commands.Chunk.commandName,
}
"""What a worker may say of its job before the answer, and the client's command for it."""

_RECEIPT = re.compile(rb"\d{1,18} \d{1,18} \d{1,18} [0-3]")

BOX_OVERHEAD = 2**16
"""Bytes that a worker's box may be larger than the largest payload: its own pairs."""
STOP_GRACE = 5.0
"""Seconds in which a worker that was asked to stop must exit."""
NEARLY = 0.9
"""How much of the memory that a worker may have makes that the likely cause of its death."""
CLOSED_GRACE = 0.5
"""Seconds in which a worker that closed its pipe must exit."""
STACK_TIME = 0.5
"""Seconds for which a stack that was asked for is waited for."""


class Connector(Protocol):
    """What the link asks of whoever holds the process: :class:`dangad.pool.WorkerConnector`.

    :ivar pid: the process's id.
    :ivar finished: fires when the process is gone and its pipes are closed.
    :ivar jobs: the pipe through which it gets its jobs.
    """

    pid: int
    finished: defer.Deferred[str]

    @property
    def jobs(self) -> JobPipe:
        """As said above."""

    def signal(self, number: int) -> None:
        """Send the process a signal, if it has not exited."""

    def pause(self) -> None:
        """Do not read what the worker writes to its pipe."""

    def resume(self) -> None:
        """Read it again."""

    def kill(self) -> None:
        """Kill the process and its group, if it is not gone yet."""

    def close_input(self) -> None:
        """Close the pipe towards the worker, which ends it once it is idle."""

    def drain_output(self) -> None:
        """Read what the worker has printed so far."""

    def drain_answers(self) -> None:
        """Read what the worker has written to its pipe so far."""


@implementer(IProcess)
class WorkerLink:
    """The parent's end of one worker's pipe, and all that it knows of the worker.

    ampoule makes one for each process, as the AMP protocol of its pipe, and calls
    `makeConnection`, `dataReceived`, `connectionLost` and `callRemote`.

    All mutable state: `pid`; `performed`, how many jobs it was given; `_job`, the one it has
    now; `_ahead`, the sizes of those that it was given ahead, by id, and `_may_follow`, whether one
    may be given behind the last; `exiting`, whether the process is gone while its last answers are
    still being read, and `_not_sent`, the request of a job that it was given then; `_peak`, the
    most memory that it was seen to have; `_receipt`, what its last job took, and `_cpu_of_boot`,
    the microseconds before the first; `_booted`, whether it has said Hello; `_last_words`, what
    it said before it exited; `_paused`, whether it is not read; `_killed_for`, why the parent
    killed it, and `_gone`, whether it is dead: after either, nothing it wrote counts.
    """

    def __init__(
        self,
        clock: IReactorTime,
        workforce: Workforce,
        dispatcher: Dispatcher,
        guardian: Guardian,
        deaths: Deaths,
        max_payload: int,
    ) -> None:
        self.pid = 0
        self.performed = 0
        self.output = JobOutput()
        self._clock = clock
        self._workforce = workforce
        self._dispatcher = dispatcher
        self._guardian = guardian
        self._deaths = deaths
        self._most_jobs = workforce.wear.jobs
        self._reader = wire.BoxReader(max_payload + BOX_OVERHEAD, commands.WORKER_KEYS)
        self._job: Job | None = None
        self._ahead: dict[int, int] = {}
        self._may_follow = False
        self._not_sent = b""
        self.exiting = False
        self._peak = 0
        self._receipt = b""
        self._cpu_of_boot = 0
        self._booted = False
        self._last_words: str | None = None
        self._paused = False
        self._killed_for: str | None = None
        self._gone = False

    # Called by ampoule.

    def makeConnection(self, connector: Connector) -> None:
        """Begin: the process has been started, and its pipe is open."""
        self.transport = connector
        self.pid = self.output.pid = connector.pid
        self._guardian.watch(self.pid)
        self._workforce.worker_started(self)

    def dataReceived(self, data: bytes) -> None:
        """Take what the worker wrote: its Hello, or the answer to its job."""
        if self._gone or self._killed_for is not None:
            return
        self._reader.feed(data)
        self._take_boxes()

    def _take_boxes(self) -> None:
        """Take the boxes that have come whole."""
        if self._gone or self._killed_for is not None:
            return
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
        if self.exiting:
            self._not_sent = job.box
        else:
            self._may_follow = self.transport.jobs.write(_header(job, job.attempt), job.box)
        self._begin(job)

    @property
    def can_prefetch(self) -> bool:
        """See :attr:`IWorker.can_prefetch`."""
        return self.transport.jobs.can_take_back

    def prefetch(self, job: Job) -> bool:
        """See :meth:`IWorker.prefetch`."""
        if not self._may_follow:
            return False
        packet = _header(job, job.attempt + 1) + job.box
        if len(packet) > select.PIPE_BUF or not self.transport.jobs.write_packet(packet):
            return False
        self._ahead[job.id] = len(packet)
        return True

    def begin(self, job: Job) -> None:
        """See :meth:`IWorker.begin`."""
        del self._ahead[job.id]
        self._begin(job)

    def recall(self) -> list[int]:
        """See :meth:`IWorker.recall`."""
        back: list[int] = []
        if not self._ahead:
            return back  # then not all in the pipe need be packets
        for packet in self.transport.jobs.take_back():
            job_id = _job_in(packet)
            if self._ahead.pop(job_id, None) is None:
                self.transport.jobs.write_packet(packet)  # a ping, or the job that it is to run now
            else:
                back.append(job_id)
        return back

    def catch_up(self) -> None:
        """See :meth:`IWorker.catch_up`."""
        self.transport.drain_answers()
        self._take_boxes()  # those that were read before, if this is in the middle of one

    def interrupt(self, job: Job, why: bytes) -> None:
        """See :meth:`IWorker.interrupt`."""
        if self.transport.jobs.is_flushed:
            stop = wire.pair(commands.STOP, b"%d %b" % (job.id, why))
            self.transport.jobs.write(stop, wire.END)
            self.transport.signal(commands.STOP_SIGNAL)
        else:
            self.kill("was killed before it had read its job")

    def show_stack(self) -> defer.Deferred[str]:
        """See :meth:`IWorker.show_stack`."""
        lines: list[str] = []
        shown: defer.Deferred[str] = defer.Deferred()

        def end() -> None:
            self.output.end_listening(lines)
            shown.callback("".join(f"{line}\n" for line in lines))

        def end_now(result: object) -> object:
            if alarm.active():
                alarm.cancel()
                end()
            return result

        self.transport.drain_output()
        self.output.listen(lines)
        self.transport.signal(commands.STACK_SIGNAL)
        alarm = self._clock.callLater(STACK_TIME, end)
        self.transport.finished.addBoth(end_now)
        return shown

    def ping(self) -> None:
        """See :meth:`IProcess.ping`."""
        self.transport.jobs.write(wire.pair(commands.PING, b""), wire.END)

    def has_read(self) -> bool:
        """See :meth:`IProcess.has_read`."""
        return self.transport.jobs.unread <= sum(self._ahead.values())

    def memory(self) -> int:
        """See :meth:`IProcess.memory`."""
        memory = memory_of(self.pid)
        self._peak = max(self._peak, memory.peak)
        return memory.resident

    def pause(self) -> None:
        """See :meth:`IWorker.pause`."""
        self._paused = True
        self.transport.pause()

    def resume(self) -> None:
        """See :meth:`IWorker.resume`."""
        if self._paused:
            self._paused = False
            self.transport.resume()

    def kill(self, reason: str) -> None:
        """See :meth:`IWorker.kill`."""
        if self._killed_for is None:
            self._killed_for = reason
        self.transport.kill()

    def stop(self) -> None:
        """See :meth:`IProcess.stop`."""
        if not self._booted:
            self.kill("was stopped while it started")
        elif not self._gone:
            self.transport.close_input()
            alarm = self._clock.callLater(STOP_GRACE, self.transport.kill)
            self.transport.finished.addBoth(_cancel_alarm, alarm)

    def _begin(self, job: Job) -> None:
        """`job` is the one that it runs."""
        self._job = job
        self.performed += 1
        self.output.begin_job(job.id)
        if self.performed == self._most_jobs:
            self._workforce.worker_due(self, f"it has done {self.performed} jobs")

    # Called by the connector.

    def pipe_closed(self) -> None:
        """The worker has closed its end of the pipe: it has exited, or it must."""
        if not self._gone:
            alarm = self._clock.callLater(CLOSED_GRACE, self.kill, "closed its pipe and was killed")
            self.transport.finished.addBoth(_cancel_alarm, alarm)

    def exited(self, status: Failure) -> None:
        """The process is gone; all that it wrote has been read."""
        self._gone = True
        self._guardian.forget(self.pid)
        how = _how_it_ended(status)
        if self._last_words is not None:
            how = self._last_words
        if self._killed_for is not None:
            how = self._killed_for
        self.output.flush()
        cpu, peak = self._deaths.take_last()
        self._peak = max(self._peak, peak)
        took = max(0, int(cpu * 1e6) - self._cpu_before())
        receipt = b"%d %d" % (took, self._peak // 1024)
        death = Death(how, self._details(status), receipt, self._unread_request())
        self._job = None
        level = log.info if status.check(error.ProcessDone) else log.warn
        level(
            "worker {pid} {how}, after {jobs} jobs{details}",
            pid=self.pid,
            how=how,
            jobs=self.performed,
            details=death.details,
        )
        self.output.close()
        self._workforce.worker_exited(self, death, self.performed)

    def _details(self, status: Failure) -> str:
        """What is known of a death beyond its cause: memory, and what was printed last."""
        details = f"; it had used up to {show_bytes(self._peak)} of memory" if self._peak else ""
        most = self._workforce.wear.max_memory
        if most and self._peak >= NEARLY * most:
            details += f", and --max-memory is {show_bytes(most)}"
        if (
            self._killed_for is None
            and getattr(status.value, "signal", None) == signal.SIGKILL
            and self._deaths.kernel_killed_some()
        ):
            details += ", and the system has killed a process for want of memory"
        job = self._job
        if job is not None and job.stopped_for is None:
            words = last_lines(self.output.tail)
            details += f"; it printed last: {words}" if words else ""
        return details

    def _unread_request(self) -> bytes:
        """The request of the job that it was to run when it died, if it had not read that."""
        if self._job is None or self._not_sent:
            return self._not_sent
        packets = self.transport.jobs.take_back() if self._may_follow else []
        for packet in packets:
            self.transport.jobs.write_packet(packet)  # what is ahead is recalled from there
        for packet in packets:
            if packet.startswith(header := _header(self._job, self._job.attempt)):
                return packet[len(header) :]
        return b""

    def _cpu_before(self) -> int:
        """The microseconds of CPU time that the worker had taken before its last job."""
        return int(self._receipt.split()[2]) if self._receipt else self._cpu_of_boot

    # The boxes of a worker.

    def _box_received(self, box: wire.Box) -> None:
        if box.raw is None:
            raise wire.Garbage(f"a box of {box.size} bytes, more than any answer may have")
        for key, value in box.keys.items():
            if key == commands.DONE:
                self._answered(box.raw, key, value, failed=False)
            elif key == commands.FAILED:
                self._answered(box.raw, key, value, failed=True)
            elif key == commands.PONG:
                self._workforce.worker_answered(self)
            elif key in _REPORTS:
                body = self._own_part(box.raw, key, value, value)
                self._dispatcher.job_reported(self, _REPORTS[key], body)
            else:
                self._command_received(value, box.raw)
            return
        raise wire.Garbage("a box that is neither an answer nor a command")

    def _answered(self, raw: bytes, key: bytes, value: bytes, failed: bool) -> None:
        job_id, _, receipt = value.partition(b" ")
        body = self._own_part(raw, key, value, job_id)
        if not _RECEIPT.fullmatch(receipt):
            raise wire.Garbage("an answer without a receipt")
        self._receipt = receipt
        marks = receipt[-1]  # an ASCII digit, whose last bits are those of its value
        if marks & commands.PRINTED:
            self.transport.drain_output()
        self.output.end_job()
        self._job = None
        if self._paused:
            self.resume()
        printed = bool(marks & commands.PRINTED or self.output.tail)
        trailing = self._reader.held and not self._ahead  # with no job to do it is silent
        fit = not (marks & commands.UNFIT or trailing)
        self._dispatcher.job_finished(self, failed, body, receipt, fit=fit, printed=printed)

    def _own_part(self, raw: bytes, key: bytes, value: bytes, job_id: bytes) -> bytes:
        """What follows the first pair of a box, which must name the job that runs."""
        job = self._job
        if job is None or job_id != b"%d" % job.id or raw[2 : 2 + len(key)] != key:
            raise wire.Garbage(f"an answer to job {job_id[:20]!r}, which it was not given")
        return raw[4 + len(key) + len(value) :]

    def _command_received(self, name: bytes, raw: bytes) -> None:
        strings = wire.unpack(raw)
        if name == commands.Hello.commandName and not self._booted:
            try:
                hello = commands.Hello.parseArguments(strings, None)
                Programme(hello["catalogue"])
            except (KeyError, ValueError) as error:
                raise wire.Garbage(f"a Hello that cannot be read: {error}") from None
            self._booted = True
            log.info("worker {pid} is ready", pid=self.pid)
            self._cpu_of_boot = hello["cpu"]
            self._workforce.worker_booted(self, hello["catalogue"])
        elif name == commands.LastWords.commandName:
            self._last_words = strings.get(b"reason", b"")[:2000].decode("utf-8", "replace")
        else:
            raise wire.Garbage(f"a command {name[:40]!r} that it may not send now")


def _header(job: Job, attempt: int) -> bytes:
    """The pair that says which job a box is."""
    seconds = b"" if job.seconds is None else b" %.6f" % job.seconds
    return wire.pair(commands.RUN, b"%d %d%b" % (job.id, attempt, seconds))


def _job_in(packet: bytes) -> int:
    """The id of the job in a box for a worker; 0 if it is none."""
    return int(wire.unpack(packet).get(commands.RUN, b"0").split()[0])


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
