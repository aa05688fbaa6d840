"""One worker as the parent sees it: its boxes, its job, its life.

On a job's way between :mod:`dangad.scheduler.dispatcher`, which gives it jobs through
:class:`IWorker` and hears of its answers, and the worker's pipe, which is in
:mod:`dangad.pool.processes`. Its birth and its death it tells to
:mod:`dangad.scheduler.supervisor`.
"""

from __future__ import annotations

import select
from collections import deque
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from twisted.internet import defer, error
from twisted.logger import Logger
from zope.interface import implementer

from dangad.host.memory import memory_of
from dangad.pool.jobprobe import JobCheck
from dangad.pool.obituary import about_memory, by_sigkill, how_it_ended
from dangad.pool.output import JobOutput, last_lines
from dangad.scheduler.interfaces import IProcess
from dangad.scheduler.record import Death
from dangad.scheduler.registry import Offer
from dangad.text import counted
from dangad.wire import boxes, commands, workerboxes

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from dangad.host.memory import Deaths
    from dangad.pool.connector import Connector
    from dangad.pool.guardian import Guardian
    from dangad.pool.outputlog import OutputLog
    from dangad.scheduler.interfaces import IJobEvents
    from dangad.scheduler.record import Job
    from dangad.scheduler.supervisor import Supervisor

log = Logger()

_NEWS = frozenset({workerboxes.REPORT, workerboxes.PART})
"""What a worker may say of its job before the answer."""
_ROBBED = "did not have its job, which something else had read from its pipe, and was killed"
_P = ParamSpec("_P")
_T = TypeVar("_T")

ROOM = 8
"""Jobs that are prefetched at most; a pipe of Linux holds 16."""
BOX_OVERHEAD = 2**16
"""Bytes that a worker's box may be larger than the largest payload: its own pairs."""
STOP_GRACE = 5.0
"""Seconds in which a worker that was asked to stop must exit."""
CLOSED_GRACE = 2.0
"""Seconds in which a worker that closed its pipe must exit."""
FIRST_KNOCK = 0.01
"""Seconds after which the signal that a job is to stop is repeated; each pause doubles ..."""
LONGEST_KNOCK = 0.1
"""... up to so many seconds."""
GROUP_TIME = 1.0
"""Seconds after which the group of a worker that was killed is killed, too, if that is not gone,
and what traces it, see ptrace(2), and keeps it from being gone; and again after as many."""
FLOOD_REST = 0.002
"""Seconds for which output that is only counted any more is not read, after each piece of it."""
STACK_TIME = 0.5
"""Seconds for which a stack that was asked for is waited for."""
REPORTS_A_SECOND = 20
"""Reports of one job's progress, on an average, beyond which it has written them itself ..."""
REPORTS_AT_ONCE = 2000
"""... and so many more, which is what its pipe holds when it is not read for a time."""
TRY_AGAIN = 1.0
"""Seconds after which what must be done, and failed, is tried again."""


def _contained(
    instead: _T,
) -> Callable[
    [Callable[Concatenate[WorkerLink, _P], _T]], Callable[Concatenate[WorkerLink, _P], _T]
]:
    """Make a method of the link one that raises nothing: see `WorkerLink`.

    :param instead: what it returns if it would have raised.
    """

    def decorate(
        method: Callable[Concatenate[WorkerLink, _P], _T],
    ) -> Callable[Concatenate[WorkerLink, _P], _T]:
        @wraps(method)
        def contained(link: WorkerLink, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                return method(link, *args, **kwargs)
            except Exception:  # noqa: BLE001 - whatever it is, it is this worker's alone
                link.fault(method.__name__)
                return instead

        return contained

    return decorate


@implementer(IProcess)
class WorkerLink:
    """The parent's end of one worker's pipe, and all that it knows of the worker.

    ampoule makes one for each process, as the AMP protocol of its pipe, and calls
    `makeConnection`, `dataReceived`, `connectionLost` and `callRemote`.

    No method raises: whoever calls is in the middle of something that concerns other workers
    and clients, too. What goes wrong here, or in what is called from here, is logged with the
    job, and costs this worker its life, by which its jobs are accounted for: see `fault`.

    All mutable state: `pid`; `output`, what it prints, and `left_over`, what is printed there that
    is no running job's; `performed`, how many jobs it was given; `_jobs`, those that it has, of
    which it runs the first, and `_packets`, the others as they lie in its pipe, by id;
    `_may_follow`, whether one may be given behind the last; `_taken`, packets that were taken out
    of the pipe of a worker that is gone; `_pings`, how many were not answered yet, and `_check`,
    what is known of its job; `_reports`, how often the job `_reporting` has told its progress;
    `_knocking`, the next signal that its job is to stop; `exiting`, whether the process is gone
    while its last answers are still being read, and `_not_sent`, the request of a job that it was
    given then; `_peak`, the most memory that it was seen to have; `_usage`, what its last job took,
    and `_cpu_of_boot`, the microseconds before the first; `_booted`, whether it has said Hello;
    `_last_words`, what it said before it exited; `_paused`, whether it is not read; `_killed_for`,
    why the parent killed it, and `_holding`, the next look at what keeps it from being gone;
    `_leaving`, whether it was told to exit; `_silenced`, whether it wrote garbage or could not be
    dealt with, and `_gone`, whether it is dead: after either, nothing it wrote counts. What it
    wrote before it was killed does.
    """

    def __init__(
        self,
        clock: IReactorTime,
        supervisor: Supervisor,
        events: IJobEvents,
        guardian: Guardian,
        deaths: Deaths,
        max_payload: int,
        output_log: OutputLog | None = None,
    ) -> None:
        self.pid = 0
        self.performed = 0
        self.output = JobOutput(clock, output_log)
        self._flood_rest: IDelayedCall | None = None
        self.left_over = JobOutput(clock, output_log)
        self._clock = clock
        self._supervisor = supervisor
        self._events = events
        self._guardian = guardian
        self._deaths = deaths
        self._most_jobs = supervisor.recycle_limits.jobs
        self._reader = boxes.BoxReader(max_payload + BOX_OVERHEAD, workerboxes.AMP_KEYS, True)
        self._jobs: deque[Job] = deque()
        self._packets: dict[int, bytes] = {}
        self._taken: list[bytes] = []
        self._pings = 0
        self._check = JobCheck()
        self._reporting: Job | None = None
        self._reports = 0
        self._knocking: IDelayedCall | None = None
        self._may_follow = False
        self._not_sent: boxes.Raw = b""
        self.exiting = False
        self._peak = 0
        self._usage = b""
        self._cpu_of_boot = 0
        self._booted = False
        self._last_words: str | None = None
        self._paused = False
        self._killed_for: str | None = None
        self._holding: IDelayedCall | None = None
        self._silenced = False
        self._leaving = False
        self._gone = False

    # Called by ampoule.

    @_contained(None)
    def makeConnection(self, connector: Connector) -> None:
        """Begin: the process has been started, and its pipe is open."""
        self.transport = connector
        self.pid = self.output.pid = self.left_over.pid = connector.pid
        self._supervisor.worker_started(self)
        self._guardian.watch(self.pid)

    def dataReceived(self, data: bytes) -> None:
        """Take what the worker wrote: its Hello, or the answer to its job."""
        if self._gone or self._silenced:
            return
        try:
            self._reader.feed(data)
        except Exception:  # noqa: BLE001 - see the class
            self.fault("taking what it wrote")
            return
        self._take_boxes()

    def _take_boxes(self) -> None:
        """Take the boxes that have come whole."""
        if self._gone or self._silenced:
            return
        try:
            while (box := self._reader.next()) is not None:
                self._box_received(box)
        except boxes.Garbage as garbage:
            self._silenced = True
            self.kill(f"wrote garbage to its pipe ({garbage}) and was killed")
        except Exception:  # noqa: BLE001 - see the class
            self.fault("taking what it wrote")

    def connectionLost(self, reason: Failure) -> None:
        """Nothing: death was seen before, at `exited`."""

    def callRemote(self, command: type, **arguments: object) -> defer.Deferred[dict[str, Any]]:
        """Stop; ampoule's ``Shutdown`` is the only thing that it asks for by itself."""
        self.stop()
        return defer.succeed({})

    # Called by the dispatcher and the supervisor.

    @property
    def room(self) -> int:
        """See :attr:`IWorker.room`."""
        if not (self._may_follow and self.transport.jobs.can_take_back):
            return 0
        if not self._most_jobs:
            return ROOM
        return max(0, self._most_jobs - self.performed - len(self._packets))

    def give(self, job: Job) -> bool:
        """See :meth:`IWorker.give`."""
        if self._jobs:
            return self._give_more(job)
        self._jobs.append(job)
        try:
            if self.exiting:
                self._not_sent = job.box
            else:
                head = workerboxes.job_head(job.id, job.attempt, job.seconds)
                self._may_follow = self.transport.jobs.write(head, job.box)
            self._begin(job)
        except Exception:  # noqa: BLE001 - see the class
            self.fault("giving it a job")
        return True

    def _give_more(self, job: Job) -> bool:
        """Put `job` into the pipe behind what the worker has; False if it has no room."""
        packet = workerboxes.job_head(job.id, job.attempt + 1, job.seconds) + job.box
        if not self._may_follow or len(packet) > select.PIPE_BUF:
            return False
        try:
            if not self.transport.jobs.write_packet(packet):
                return False
        except Exception:  # noqa: BLE001 - see the class
            self.fault("giving it one more job")  # perhaps it was written
        self._jobs.append(job)
        self._packets[job.id] = packet
        return True

    def reclaim(self) -> list[int]:
        """See :meth:`IWorker.reclaim`."""
        if not self._packets:
            return []  # then not all in the pipe need be packets
        packets, self._taken = self._taken, []
        jobs = {packet: job_id for job_id, packet in self._packets.items()}
        try:
            self.transport.jobs.take_back(packets)
        except Exception:  # noqa: BLE001 - see the class
            self.fault("taking back the jobs that it has not begun")
            self._packets.clear()  # what was not taken out counts as begun from now on
        back = [jobs[packet] for packet in packets if packet in jobs]
        for job_id in back:
            self._packets.pop(job_id, None)
        if back:
            self._jobs = deque(job for job in self._jobs if job.id not in back)
        if not self._gone:
            self._put_back([packet for packet in packets if packet not in jobs])
        return back

    @_contained(None)
    def _put_back(self, packets: list[bytes]) -> None:
        """Let the worker have again what was in its pipe before the jobs that were reclaimed."""
        current = self._head_of(self._jobs[0]) if self._jobs else b""
        for packet in packets:
            if packet != workerboxes.PING_BOX and not (current and packet.startswith(current)):
                self.kill("was killed: something else than the server wrote to its pipe")
                return
            if not self.transport.jobs.write_packet(packet):
                raise OSError("the pipe does not take what was in it")

    @_contained(None)
    def interrupt(self, job: Job, why: bytes) -> None:
        """See :meth:`IWorker.interrupt`."""
        if self.transport.jobs.is_flushed:
            if why == b"time":
                self.show_stack()
            self.transport.say(workerboxes.stop(job.id, why))
            self._knock(job, FIRST_KNOCK)
        else:
            self.kill("was killed before it had read its job")

    @_contained(None)
    def _knock(self, job: Job, seconds: float) -> None:
        """Have the worker look whether `job` is to stop, again and again until that has ended.

        A signal may be lost on it: if another is just being handled, the system goes on with a
        wait for a lock, or another thread takes the signal.
        """
        self._knocking = None
        if self._jobs and self._jobs[0] is job and self._killed_for is None:
            self.transport.signal(commands.STOP_SIGNAL)
            longer = min(2 * seconds, LONGEST_KNOCK)
            self._knocking = self._clock.callLater(seconds, self._knock, job, longer)

    def show_stack(self) -> defer.Deferred[str]:
        """See :meth:`IProcess.show_stack`."""
        try:
            return self._show_stack()
        except Exception:  # noqa: BLE001 - see the class
            self.fault("showing its stack")
            return defer.succeed("")

    def _show_stack(self) -> defer.Deferred[str]:
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

    @_contained(None)
    def ping(self) -> None:
        """See :meth:`IProcess.ping`."""
        self.transport.jobs.write(workerboxes.PING_BOX, b"")
        self._pings += 1

    @_contained(True)
    def has_read(self) -> bool:
        """See :meth:`IProcess.has_read`."""
        may_wait = sum(map(len, self._packets.values()))
        if self._check.asked:
            may_wait += len(workerboxes.PING_BOX)
        return self.transport.jobs.unread <= may_wait

    @_contained(None)
    def verify(self) -> None:
        """See :meth:`IProcess.verify`."""
        jobs = self.transport.jobs
        if self._paused or self.exiting or not (jobs.can_take_back and jobs.is_flushed):
            return  # it cannot be asked, or not be heard
        unread = jobs.unread
        if self._check.look(self._job, unread):
            self.ping()
        elif self._check.is_lost(unread, self._clock.seconds()):
            self.kill(_ROBBED)

    @_contained(0)
    def memory(self) -> int:
        """See :meth:`IProcess.memory`."""
        memory = memory_of(self.pid)
        self._peak = max(self._peak, memory.peak)
        return memory.resident

    @_contained(None)
    def pause(self) -> None:
        """See :meth:`IWorker.pause`."""
        self._paused = True
        self.transport.pause()

    @_contained(None)
    def resume(self) -> None:
        """See :meth:`IWorker.resume`."""
        if self._paused:
            self._paused = False
            self.transport.resume()

    def kill(self, reason: str) -> None:
        """See :meth:`IWorker.kill`."""
        if self._killed_for is None:
            self._killed_for = reason
            self._holding = self._clock.callLater(GROUP_TIME, self._kill_what_holds)
            self.transport.finished.addBoth(self._is_held_no_more)
        try:
            self.transport.kill()
        except Exception:  # noqa: BLE001 - see the class
            log.failure("cannot kill worker {pid}; tried again in a moment", pid=self.pid)
            self._clock.callLater(TRY_AGAIN, self._kill_again)

    def _kill_what_holds(self) -> None:
        """Kill what keeps the worker, which was killed, from being gone; again and again."""
        self._holding = self._clock.callLater(GROUP_TIME, self._kill_what_holds)
        self.transport.kill_group()
        self.transport.kill_tracers()

    def _is_held_no_more(self, result: object) -> object:
        if self._holding is not None and self._holding.active():
            self._holding.cancel()
        return result

    def _kill_again(self) -> None:
        if not self._gone:
            self.kill("")

    @_contained(None)
    def stop(self) -> None:
        """See :meth:`IProcess.stop`."""
        if not self._booted:
            self.kill("was stopped while it started")
        elif not self._gone:
            self._leaving = True
            self.transport.close_input()
            reason = f"had not exited after {STOP_GRACE:g} s and was killed"
            alarm = self._clock.callLater(STOP_GRACE, self.kill, reason)
            self.transport.finished.addBoth(_cancel_alarm, alarm)

    def fault(self, doing: str) -> None:
        """The server itself failed, while `doing` something with this worker: end the worker.

        To be called where the exception is caught.
        """
        self._silenced = True
        job = self._job.id if self._job is not None else None
        log.failure(
            "worker {pid}, job {job}: {doing} failed; the worker is killed",
            pid=self.pid,
            job=job,
            doing=doing.strip("_").replace("_", " "),
        )
        self.kill("was killed because the server failed in dealing with it; its log has more")

    def _begin(self, job: Job) -> None:
        """`job` is the one that it runs."""
        self.performed += 1
        self.output.begin_job(job.id)

    # Called by the connector.

    @_contained(None)
    def has_printed(self, data: bytes, left_over: bool) -> None:
        """Take what the worker has printed; `left_over` if what an earlier job left has."""
        output = self.left_over if left_over else self.output
        output.received(data)
        if output.floods and self._flood_rest is None and not self.exiting:
            self.transport.pause_output()
            self._flood_rest = self._clock.callLater(FLOOD_REST, self._read_on)

    def _read_on(self) -> None:
        """Read again what the worker prints, which is too much: so it waits, and not the parent."""
        self._flood_rest = None
        self.transport.resume_output()

    @_contained(None)
    def pipe_closed(self) -> None:
        """A pipe is closed: by the worker, which has exited or must; or here, for it to leave."""
        if not (self._gone or self._leaving):
            alarm = self._clock.callLater(CLOSED_GRACE, self.kill, "closed its pipe and was killed")
            self.transport.finished.addBoth(_cancel_alarm, alarm)

    def exited(self, status: Failure) -> None:
        """The process is gone; all that it wrote has been read."""
        self._gone = True
        if self._knocking is not None:
            self._see_to("leaving its job alone", self._knocking.cancel)
        if self._flood_rest is not None:
            self._see_to("reading its output no more", self._flood_rest.cancel)
        self._see_to("making the guardian forget it", self._guardian.forget, self.pid)
        self._see_to("logging what it printed", self.output.flush)
        ended = self._see_to("reading its status", self._how_it_ended, status) or "is gone"
        how = self._killed_for or self._last_words or ended
        usage = self._see_to("reading what it took", self._last_usage) or b""
        details = self._see_to("describing its end", self._details, status) or ""
        unread = self._see_to("looking for its job", self._unread_request) or b""
        self._jobs.clear()
        level = log.info if isinstance(status.value, error.ProcessDone) else log.warn
        level(
            "worker {pid} {how}, after {jobs}{details}",
            pid=self.pid,
            how=how,
            jobs=counted(self.performed, "job"),
            details=details,
        )
        self._see_to("closing its output", self.output.close)
        self._see_to("closing its other output", self.left_over.close)
        self._tell_of_death(Death(how, details, usage, unread))

    def _tell_of_death(self, death: Death) -> None:
        """Tell the supervisor, and again if need be: else its job never ends."""
        try:
            self._supervisor.worker_exited(self, death, self.performed)
        except Exception:  # noqa: BLE001 - see the class
            log.failure("the end of worker {pid} could not be dealt with", pid=self.pid)
            self._clock.callLater(TRY_AGAIN, self._tell_of_death, death)

    def _see_to(
        self, doing: str, act: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T | None:
        """What `act` returns; None if it fails, which is logged, and keeps nothing else from it."""
        try:
            return act(*args, **kwargs)
        except Exception:  # noqa: BLE001 - see the class; the worker is dead already
            job = self._job.id if self._job is not None else None
            log.failure(
                "worker {pid}, job {job}: {doing} failed", pid=self.pid, job=job, doing=doing
            )
            return None

    def _how_it_ended(self, status: Failure) -> str:
        """The process's end in words, with what it said if it has not come as far as its Hello."""
        how = how_it_ended(status)
        if self._booted:
            return how
        words = last_lines(self.output.tail)
        return f"{how} before it was ready" + (f"; it printed last: {words}" if words else "")

    def _last_usage(self) -> bytes:
        """What the job took that it ran when it died, in the form of ``Job.usage``."""
        cpu, peak = self._deaths.take_last()
        self._peak = max(self._peak, peak)
        before = int(self._usage.split()[2]) if self._usage else self._cpu_of_boot
        return b"%d %d" % (max(0, int(cpu * 1e6) - before), self._peak // 1024)

    def _details(self, status: Failure) -> str:
        """What is known of a death beyond its cause: memory, and what was printed last."""
        details = about_memory(self._peak, self._supervisor.recycle_limits.max_memory)
        if self._killed_for is None and by_sigkill(status) and self._deaths.kernel_killed_some():
            details += ", and the system has killed a process for want of memory"
        job = self._job
        if job is not None and job.stopped_for is None:
            words = last_lines(self.output.tail)
            details += f"; it printed last: {words}" if words else ""
        return details

    def _unread_request(self) -> boxes.Raw:
        """The request of the job that it was to run when it died, if it had not read that."""
        job = self._job
        if job is None or self._not_sent:
            return self._not_sent
        self.transport.jobs.take_back(self._taken)  # what it had not begun is reclaimed from there
        head = self._head_of(job)
        if not self._may_follow:  # then it is a stream, which it has read in part, or not at all
            return self.transport.jobs.unread_request(head, job.size, self._taken)
        for packet in self._taken:
            if packet.startswith(head):
                return packet[len(head) :]
        return b""

    # The boxes of a worker.

    def _box_received(self, box: boxes.Box) -> None:
        raw = box.raw
        if raw is None:
            raise boxes.Garbage(f"a box of {box.size} bytes, more than any answer may have")
        head = raw if isinstance(raw, bytes) else bytes(raw[: workerboxes.MAX_HEAD])
        key, value, start = workerboxes.split(head)
        if key == workerboxes.DONE:
            if box.keys:
                raise boxes.Garbage("a result with reserved keys in it")
            self._answered(value, raw[start:], failed=False)
        elif key == workerboxes.FAILED:
            if box.keys.keys() != workerboxes.ERROR_KEYS or box.size > workerboxes.MAX_ERROR:
                raise boxes.Garbage("an error that is none of AMP's")
            self._answered(value, bytes(raw[start:]), failed=True)
        elif key == boxes.COMMAND:
            self._command_received(value, bytes(raw))
        elif box.keys:
            raise boxes.Garbage("a box with reserved keys in it")
        elif key in _NEWS:
            self._news_received(key, value, raw, start)
        elif raw == workerboxes.PONG_BOX and self._pings:
            self._pings -= 1
            if not self._pings and self._check.answered(self._job):
                self.kill(_ROBBED)
            self._supervisor.worker_answered(self)
        else:
            raise boxes.Garbage("a box that is neither an answer nor a command")

    def _answered(self, head: bytes, body: boxes.Raw, failed: bool) -> None:
        job_id, usage = workerboxes.read_answer(head)
        jobs = self._jobs
        if not jobs or job_id != b"%d" % jobs[0].id:
            raise boxes.Garbage(f"an answer to job {job_id!r}, which it was not given")
        self._usage = usage
        marks = usage[-1]  # an ASCII digit, whose last bits are those of its value
        if marks & workerboxes.PRINTED:
            self.transport.drain_output()
        self.output.end_job()
        if self._paused:
            self.resume()
        jobs.popleft()
        printed = bool(marks & workerboxes.PRINTED or self.output.tail)
        due = self._pings * len(workerboxes.PONG_BOX)
        trailing = not jobs and self._reader.held > due  # with no job to do it is silent
        reusable = not (marks & workerboxes.NOT_REUSABLE or trailing or self._killed_for)
        if self.performed == self._most_jobs:
            self._supervisor.recycle_worker(self, f"it has done {counted(self.performed, 'job')}")
        if jobs and reusable:
            self._packets.pop(jobs[0].id, None)
            self._begin(jobs[0])
        self._events.job_finished(self, failed, body, usage, reusable=reusable, printed=printed)

    @property
    def _job(self) -> Job | None:
        """The job that it runs."""
        return self._jobs[0] if self._jobs else None

    def _news_received(self, key: bytes, job_id: bytes, raw: boxes.Raw, start: int) -> None:
        job = self._job
        if job is None or job_id != b"%d" % job.id:
            raise boxes.Garbage(f"news of job {job_id[:20]!r}, which it was not given")
        if not (job.wants_progress if key == workerboxes.REPORT else job.wants_chunks):
            raise boxes.Garbage("news that nobody has asked for")
        if key == workerboxes.REPORT:
            self._count_report(job)
            workerboxes.check_report(raw, start)
        else:
            workerboxes.check_part(raw, start)
        self._events.job_reported(self, raw[start:], parts=key == workerboxes.PART)

    def _count_report(self, job: Job) -> None:
        if job is not self._reporting:
            self._reporting, self._reports = job, 0
        self._reports += 1
        ran = self._clock.seconds() - job.started_at
        if self._reports > REPORTS_AT_ONCE + ran * REPORTS_A_SECOND:
            raise boxes.Garbage("more progress than a job tells")

    def _head_of(self, job: Job) -> bytes:
        """What was put before the request of `job`, which runs."""
        return workerboxes.job_head(job.id, job.attempt, job.seconds)

    def _command_received(self, name: bytes, raw: bytes) -> None:
        if self._booted and len(raw) > boxes.LARGE:
            raise boxes.Garbage(f"a command of {len(raw)} bytes")
        strings = boxes.unpack(raw)
        if name == commands.Hello.commandName and not self._booted:
            try:
                hello = commands.Hello.parseArguments(strings, None)
                Offer(hello["catalogue"])
            except (KeyError, ValueError) as error:
                raise boxes.Garbage(f"a Hello that cannot be read: {error}") from None
            if self._killed_for is not None:
                return
            self._booted = True
            log.info("worker {pid} is ready", pid=self.pid)
            self._cpu_of_boot = hello["cpu"]
            self._supervisor.worker_booted(self, hello["catalogue"])
        elif name == commands.LastWords.commandName and self._last_words is None:
            self._last_words = strings.get(b"reason", b"")[:2000].decode("utf-8", "replace")
        else:
            raise boxes.Garbage(f"a command {name[:40]!r} that it may not send now")


def _cancel_alarm(result: object, alarm: Any) -> object:
    if alarm.active():
        alarm.cancel()
    return result
