"""One worker as the parent sees it: the link gives it jobs and reads what it writes.

A link stands between :mod:`dangad.scheduler.dispatcher` and the worker's pipe, which is in
:mod:`dangad.pool.processes`. The dispatcher gives it jobs through :class:`IWorker` and gets the
answers through :class:`IJobEvents`. :mod:`dangad.scheduler.supervisor` is told of the worker's
birth and death through :class:`IWorkerEvents`. The parts of a link are modules of their own: the
worker's jobs (:mod:`.givenjobs`), what it may write (:mod:`.speech`) and print
(:mod:`.workeroutput`), whether it has its job (:mod:`.jobprobe`), and what ends its job or itself
(:mod:`.interruption`, :mod:`.killing`, :mod:`.obituary`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.logger import Logger
from zope.interface import implementer

from dangad.pool import speech
from dangad.pool.containment import LastSteps, contained
from dangad.pool.givenjobs import ROOM, GivenJobs
from dangad.pool.interruption import Interruption
from dangad.pool.jobprobe import JobProbe
from dangad.pool.killing import Killing
from dangad.pool.obituary import Obituary, is_orderly
from dangad.pool.workeroutput import WorkerOutput
from dangad.scheduler.interfaces import IProcess
from dangad.scheduler.joblog import fields_of
from dangad.scheduler.workerrecord import TRANSITIONS, WorkerEvent, WorkerState
from dangad.text import counted, worker_name
from dangad.wire import boxes, commands, workerboxes

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from dangad.host.memory import KernelKills
    from dangad.host.reaping import Taken
    from dangad.pool.connector import Connector
    from dangad.pool.guardian import Guardian
    from dangad.pool.outputlog import OutputLog
    from dangad.scheduler.interfaces import IJobEvents, IWorkerEvents
    from dangad.scheduler.record import Death, Job

log = Logger()

_ROBBED = "did not have a job that something else had read from its pipe, and was killed"

BOX_OVERHEAD = 2**16
"""Bytes by which a worker's box may exceed the largest payload, for pairs of its own."""
STOP_GRACE = 5.0
"""Seconds in which a worker must exit after it was asked to stop."""
CLOSED_GRACE = 2.0
"""Seconds in which a worker must exit after it closed its pipe."""
TELL_AGAIN = 1.0
"""Seconds until a death is reported again, if the supervisor failed to deal with it."""


@implementer(IProcess)
class WorkerLink:
    """The parent's end of one worker's pipe, and everything that the parent knows of the worker.

    ampoule makes one for each process, as the AMP protocol of its pipe, and calls
    `makeConnection`, `dataReceived`, `connectionLost` and `callRemote`.

    No method raises, because the caller's work concerns other workers and clients, too. A failure
    here, or in a part called from here, is logged with the job and the worker is killed. Its death
    accounts for its jobs: see `fault`.

    The worker's life is `state` alone: each change is one of :data:`TRANSITIONS`.
    """

    transport: Connector
    _given: GivenJobs
    _killing: Killing
    _interruption: Interruption

    def __init__(
        self,
        clock: IReactorTime,
        supervisor: IWorkerEvents,
        events: IJobEvents,
        guardian: Guardian,
        kernel_kills: KernelKills,
        max_payload: int,
        output_log: OutputLog | None = None,
    ) -> None:
        """Begin without a process; `makeConnection` follows when it has started."""
        #: Where the worker is in its life.
        self.state = WorkerState.STARTING
        #: The id of its process; 0 before it has started.
        self.pid = 0
        #: How many jobs it has begun.
        self.performed = 0
        #: Everything that it prints.
        self.printed = WorkerOutput(clock, output_log, self.fault)
        #: The output of the running job.
        self.output = self.printed.of_job
        self._clock = clock
        self._supervisor = supervisor
        self._events = events
        self._guardian = guardian
        self._most_jobs = supervisor.recycle_limits.jobs
        self._reader = boxes.BoxReader(max_payload + BOX_OVERHEAD, workerboxes.AMP_KEYS, True)
        self._news = speech.News()
        self._probe = JobProbe()
        self._obituary = Obituary(kernel_kills, supervisor.recycle_limits.max_memory)
        #: Whether everything that it writes is ignored: after garbage or a fault, and at its death.
        self._silenced = False
        #: Whether the reading of its pipe is paused.
        self._paused = False

    # Called by ampoule.

    @contained(None)
    def makeConnection(self, connector: Connector) -> None:
        """Begin: the process has started, and its pipe is open."""
        self.transport = connector
        self._given = GivenJobs(connector.jobs)
        self._killing = Killing(self._clock, connector, self.kill, self.show_stack)
        self._interruption = Interruption(
            self._clock, connector, self._given, self._killing, self.fault
        )
        self.printed.connect(connector)
        self._supervisor.worker_started(self)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes that the worker wrote, cut anywhere: its Hello, answers, and news of jobs."""
        if self._silenced:
            return
        try:
            self._reader.feed(data)
            while (box := self._reader.next()) is not None:
                key, value, body = speech.read(box)
                if key in speech.ANSWERS:
                    self._answered(value, body, failed=key == workerboxes.FAILED)
                else:
                    self._news_received(key, value, body)
        except boxes.Garbage as garbage:
            self._silenced = True
            self.kill(f"wrote garbage to its pipe ({garbage}) and was killed")
        except Exception:  # noqa: BLE001 - see the class
            self.fault("taking what it wrote")

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: `exited` was called before and dealt with the death."""

    def callRemote(self, command: type, **arguments: object) -> defer.Deferred[dict[str, Any]]:
        """Stop the worker: ampoule itself sends no command but ``Shutdown``."""
        self.stop()
        return defer.succeed({})

    # Called by the dispatcher and the supervisor.

    @property
    def room(self) -> int:
        """See :attr:`IWorker.room`."""
        given = self._given
        if not (given.may_follow and self.transport.jobs.can_reclaim):
            return 0
        if not self._most_jobs:
            return ROOM
        return max(0, self._most_jobs - self.performed - len(given.packets))

    def give(self, job: Job) -> bool:
        """See :meth:`IWorker.give`."""
        given = self._given
        try:
            if given.row:
                return given.follow(job)
            self.state = TRANSITIONS[self.state, WorkerEvent.GIVE]
            given.run(job)
            self.performed += 1
            self.output.begin_job(job)
        except Exception:  # noqa: BLE001 - see the class; perhaps it was written
            self.fault("giving it a job")
        return True

    def reclaim(self) -> list[int]:
        """See :meth:`IWorker.reclaim`."""
        given = self._given
        if not given.packets:
            return []  # the pipe may hold a stream, not packets
        try:
            given.take_out()
        except Exception:  # noqa: BLE001 - see the class
            self.fault("reclaiming the jobs that it has not begun")
            back, _ = given.reclaim()
            given.packets.clear()  # a job that was not taken out counts as begun from now on
            return back
        back, others = given.reclaim()
        if self.state is not WorkerState.DEAD:
            self._put_back(others)
        return back

    @contained(None)
    def _put_back(self, packets: list[bytes]) -> None:
        if not self._given.put_back(packets):
            self.kill("was killed: a process other than the server wrote to its pipe")

    @contained(None)
    def interrupt(self, job: Job, why: bytes) -> None:
        """See :meth:`IWorker.interrupt`."""
        if self.transport.jobs.is_flushed:
            if why == b"time":
                self.show_stack()
            self._interruption.begin(job, why)
        else:
            self.kill("was killed before it had read its job")

    def show_stack(self) -> defer.Deferred[str]:
        """See :meth:`IProcess.show_stack`."""
        try:
            return self.printed.show_stack()
        except Exception:  # noqa: BLE001 - see the class
            self.fault("showing its stack")
            return defer.succeed("")

    @contained(None)
    def ping(self) -> None:
        """See :meth:`IProcess.ping`."""
        self._probe.ping(self.transport.jobs)

    @contained(True)
    def has_read(self) -> bool:
        """See :meth:`IProcess.has_read`."""
        may_wait = sum(map(len, self._given.packets.values()))
        if self._probe.asked:
            may_wait += len(workerboxes.PING_BOX)
        return self.transport.jobs.unread <= may_wait

    @contained(None)
    def verify(self) -> None:
        """See :meth:`IProcess.verify`."""
        jobs = self.transport.jobs
        if self._paused or not (jobs.can_reclaim and jobs.is_flushed):
            return  # it cannot be asked, or its answer is not read
        if self._probe.look(self._given.running, jobs, self._clock.seconds()):
            self.kill(_ROBBED)

    @contained(0)
    def memory(self) -> int:
        """See :meth:`IProcess.memory`."""
        return self._obituary.weigh(self.pid)

    @contained(None)
    def pause(self) -> None:
        """See :meth:`IWorker.pause`."""
        self._paused = True
        self.transport.pause()

    @contained(None)
    def resume(self) -> None:
        """See :meth:`IWorker.resume`."""
        if self._paused:
            self._paused = False
            self.transport.resume()

    def kill(self, reason: str) -> None:
        """See :meth:`IWorker.kill`."""
        if self.state is not WorkerState.DEAD:
            self.state = TRANSITIONS[self.state, WorkerEvent.KILL]
            self._killing.kill(reason)

    @contained(None)
    def stop(self) -> None:
        """See :meth:`IProcess.stop`."""
        if self.state is WorkerState.STARTING:
            self.kill("was stopped while it started")
        elif self.state in (WorkerState.IDLE, WorkerState.BUSY):
            self.state = TRANSITIONS[self.state, WorkerEvent.STOP]
            self.transport.close_input()
            reason = f"had not exited after {STOP_GRACE:g} s and was killed"
            self._killing.kill_after(STOP_GRACE, reason)

    def fault(self, doing: str) -> None:
        """Kill the worker: the server itself failed while `doing` something with it.

        To be called in the ``except`` clause, so that the log gets the traceback.
        """
        self._silenced = True
        text = "worker {worker}, job {job}: {doing} failed; the worker is killed"
        log.failure(text, worker=self.pid, job=self._given.running_id, doing=doing)
        self.kill("was killed because the server failed in dealing with it; its log has more")

    # Called by the connector.

    def has_process(self, pid: int) -> None:
        """Note the process id; `makeConnection` was called before."""
        self.pid = pid
        self.printed.of_process(pid)
        self._guardian.watch(pid)

    def pipe_closed(self) -> None:
        """Note that a pipe is closed: by the worker, which must exit now, or to stop the worker."""
        if self.state not in (WorkerState.STOPPING, WorkerState.DEAD):
            self._killing.kill_after(CLOSED_GRACE, "closed its pipe and was killed")

    def exited(self, status: Failure, taken: Taken | None) -> None:
        """Report the death: the process is gone, and everything that it wrote has been read."""
        booted = self.state is not WorkerState.STARTING
        self.state = TRANSITIONS[self.state, WorkerEvent.EXIT]
        self._silenced = True
        steps = LastSteps(self.pid, self._given.running_id)
        steps.take("leaving its job alone", self._interruption.end)
        steps.take("reading its output no more", self.printed.stop_resting)
        steps.take("making the guardian forget it", self._guardian.forget, self.pid)
        steps.take("logging what it printed", self.output.flush)
        death = self._obituary.write(
            status,
            taken,
            steps,
            booted=booted,
            killed_for=self._killing.reason,
            job=self._given.running,
            printed=self.output.tail,
            unread=steps.take("looking for its job", self._given.unread_request) or b"",
        )
        job = self._given.running
        level = log.info if is_orderly(status, job) else log.warn
        of_job = steps.take("naming its job", fields_of, job) if job is not None else None
        fields = {**(of_job or {}), "worker": self.pid, "details": death.details.removeprefix("; ")}
        self._given.row.clear()
        did = f"; it had done {counted(self.performed, 'job')}" if self.pid else ""
        text, name = "{_name} {how}{_did}{_about}", worker_name(self.pid)
        level(text, _name=name, how=death.how, _did=did, _about=death.details, **fields)
        steps.take("closing its output", self.output.close)
        steps.take("closing its other output", self.printed.left_over.close)
        self._tell_of_death(death)

    def _tell_of_death(self, death: Death) -> None:
        """Tell the supervisor, again and again if this fails: otherwise the job never ends."""
        try:
            self._supervisor.worker_exited(self, death, self.performed)
        except Exception:  # noqa: BLE001 - see the class
            log.failure("the end of worker {worker} could not be dealt with", worker=self.pid)
            self._clock.callLater(TELL_AGAIN, self._tell_of_death, death)

    # Boxes from the worker.

    def _answered(self, head: bytes, body: boxes.Raw, failed: bool) -> None:
        job_id, usage = workerboxes.read_answer(head)
        given = self._given
        jobs = given.row
        if not jobs or job_id != b"%d" % jobs[0].id:
            if any(job_id == b"%d" % job.id for job in jobs):  # it answers them in order
                self.kill(_ROBBED)
                return
            raise boxes.Garbage(f"an answer to job {job_id!r}, which it was not given")
        self._obituary.usage = usage
        marks = usage[-1]  # an ASCII digit, whose last bits are those of its value
        if marks & workerboxes.PRINTED:
            self.transport.drain_output()
        self.output.end_job()
        if self._paused:
            self.resume()
        jobs.popleft()
        printed = bool(marks & workerboxes.PRINTED or self.output.tail)
        trailing = False
        if not jobs:
            self.state = TRANSITIONS[self.state, WorkerEvent.ANSWER]
            due = self._probe.pings * len(workerboxes.PONG_BOX)
            trailing = self._reader.held > due  # a worker without a job writes nothing
        stopping = self.state is WorkerState.STOPPING
        reusable = not (marks & workerboxes.NOT_REUSABLE or trailing or stopping)
        if self.performed == self._most_jobs:
            self._supervisor.recycle_worker(self, f"it has done {counted(self.performed, 'job')}")
        if jobs and reusable:
            given.packets.pop(jobs[0].id, None)
            self.performed += 1
            self.output.begin_job(jobs[0])
        self._events.job_finished(self, failed, body, usage, reusable=reusable, printed=printed)

    def _news_received(self, key: bytes, value: bytes, body: boxes.Raw) -> None:
        if key == boxes.COMMAND:
            self._command_received(value, bytes(body))
        elif key in speech.NEWS:
            self._news.check(self._given.running, self._clock.seconds(), key, value, body)
            self._events.job_reported(self, body, parts=key == workerboxes.PART)
        elif self._probe.pings:
            if self._probe.pong(self._given.running):
                self.kill(_ROBBED)
            self._supervisor.worker_answered(self)
        else:
            raise boxes.Garbage("a sign of life that nobody has asked for")

    def _command_received(self, name: bytes, raw: bytes) -> None:
        starting = self.state is WorkerState.STARTING
        if not starting and len(raw) > boxes.LARGE:
            raise boxes.Garbage(f"a command of {len(raw)} bytes")
        if name == commands.Hello.commandName and starting:
            catalogue, *self._obituary.at_boot = speech.read_hello(raw)
            self.state = TRANSITIONS[self.state, WorkerEvent.HELLO]
            log.info("worker {worker} is ready", worker=self.pid)
            self._supervisor.worker_booted(self, catalogue)
        elif name == commands.LastWords.commandName and self._obituary.last_words is None:
            self._obituary.last_words = speech.read_last_words(raw)
        else:
            raise boxes.Garbage(f"a command {name[:40]!r} that it may not send now")
