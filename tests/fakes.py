"""Stand-ins for what the dispatcher and the supervisor talk to; an illegal order of calls raises.

They record what they are told, so that a test can ask. :class:`FakeSpawner` has the whole
life of its workers in hand: a test boots them, lets them answer, and kills them.
"""

from __future__ import annotations

import itertools
import json
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from dangad.scheduler.interfaces import IClient, IProcess, ISpawner, ISupervisor, IWorker
from dangad.scheduler.prefetch import MOST
from dangad.scheduler.record import Death, Job
from dangad.scheduler.workerrecord import TRANSITIONS, WorkerEvent, WorkerState
from dangad.server.acceptgate import AcceptGate
from dangad.server.factory import ClientFactory
from dangad.wire.values import Priority

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.errors import DangadError
    from dangad.scheduler.dispatcher import Dispatcher
    from dangad.scheduler.supervisor import Supervisor

_job_ids = itertools.count(1)
_pids = itertools.count(4711)


def catalogue(*commands: str, **policies: dict[str, Any]) -> str:
    """What workers say in their Hello if they perform these commands.

    Those that are given as keywords have what the keyword says in their policy.
    """
    default = {"time_limit": None, "retries": 0, "max_running": None, "on_disconnect": "cancel"}
    entries = {name: policies.get(name, {}) for name in (*commands, *policies)}
    return json.dumps(
        {"commands": [{"name": name, "policy": default | own} for name, own in entries.items()]}
    )


@cache
def isolated_by(performs: str) -> frozenset[bytes]:
    """The commands of a catalogue after which a worker takes no other job."""
    entries = json.loads(performs)["commands"] if performs else []
    isolated = [entry["name"] for entry in entries if entry["policy"].get("isolate")]
    return frozenset(name.encode("ascii") for name in isolated)


def make_job(
    client: FakeClient | None,
    command: str = "Echo",
    priority: Priority = Priority.NORMAL,
    accepted_at: float = 0.0,
    *,
    deadline: float | None = None,
    wants_chunks: bool = False,
    box: bytes = b"\0\0",
) -> Job:
    """A job that nobody has submitted yet, with an id that no other has."""
    number = next(_job_ids)
    job = Job(
        number,
        client,
        b"%d" % number,
        command.encode("ascii"),
        box,
        priority,
        deadline,
        wants_chunks,
    )
    job.accepted_at = accepted_at
    return job


def noted_events(case: Any) -> list[LogEvent]:
    """The log events from now on, until the end of the test."""
    events: list[LogEvent] = []
    observer = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(observer)
    case.addCleanup(globalLogPublisher.removeObserver, observer)
    return events


def lines_of(events: list[LogEvent], *modules: str) -> list[str]:
    """The lines of the log that these modules wrote."""
    return [formatEvent(event) for event in events if event.get("log_namespace") in modules]


def client_factory(clock: Any, dispatcher: Any, **limits: Any) -> ClientFactory:
    """What makes the connections of real clients, over transports of memory."""
    usual = {"max_payload": 2**20, "max_in_flight": 1000, "max_connections": 10}
    return ClientFactory(clock, dispatcher, AcceptGate(clock, [], lambda: 0), **usual | limits)


@implementer(IClient)
class FakeClient:
    """A client that notes the outcome of each of its jobs.

    :ivar answers: what was delivered, in order: job, whether it failed, and the body.
    :ivar reports: the news of its jobs, in order: job, body, and whether it is a part.
    :ivar failures: the jobs that ended without an answer, or were refused, and why, in order.
    :ivar told: the ids of all these jobs.
    :ivar gone: set it to have any further news raise.
    :ivar aborted: whether its connection was closed because it could not be told.
    :ivar watch: called first with each job whose outcome is told; looks, and changes nothing.
    :ivar when_told: called with each job whose outcome is told; may submit, cancel and leave.
    :ivar when_reported: called with each job of which news are told; may put it on hold.
    """

    def __init__(self, name: str = "client", outranks: bool = False) -> None:
        self.name = name
        self.outranks = outranks
        self.peer = name
        self.was_served = False
        self.answers: list[tuple[Job, bool, bytes]] = []
        self.reports: list[tuple[Job, bytes, bool]] = []
        self.failures: list[tuple[Job, DangadError]] = []
        self.told: set[int] = set()
        self.gone = False
        self.aborted = False
        self.watch: Callable[[Job], object] | None = None
        self.when_told: Callable[[Job], object] | None = None
        self.when_reported: Callable[[Job], object] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def deliver(self, job: Job, failed: bool, body: bytes | memoryview) -> None:
        """See :meth:`IClient.deliver`."""
        self.answers.append((job, failed, bytes(body)))
        self._tell(job)

    def report(self, job: Job, body: bytes | memoryview, parts: bool) -> None:
        """See :meth:`IClient.report`."""
        if self.gone or job.id in self.told:
            raise AssertionError(f"{self} is told news of {job}, which has ended for it")
        self.reports.append((job, bytes(body), parts))
        if self.when_reported is not None:
            self.when_reported(job)

    def fail(self, job: Job, error: DangadError) -> None:
        """See :meth:`IClient.fail`."""
        self.failures.append((job, error))
        self._tell(job)

    def abort(self) -> None:
        """See :meth:`IClient.abort`."""
        self.aborted = self.gone = True

    def failure_of(self, job: Job) -> str:
        """The code and the text with which `job` ended."""
        (error,) = [error for ended, error in self.failures if ended is job]
        return f"{error.code.decode()}: {error}"

    def _tell(self, job: Job) -> None:
        if self.gone:
            raise AssertionError(f"{self} is gone, and is told of {job}")
        if job.id in self.told:
            raise AssertionError(f"{self} is told of {job} once more")
        self.told.add(job.id)
        if self.watch is not None:
            self.watch(job)
        if self.when_told is not None:
            self.when_told(job)


class OneJobAtATime:
    """The part of :class:`IWorker` of those that take no job behind another."""

    room = 0

    def give(self, job: Job) -> bool:
        """See :meth:`IWorker.give`."""
        return True

    def reclaim(self) -> list[int]:
        """See :meth:`IWorker.reclaim`."""
        return []


@implementer(IProcess)
class FakeWorker:
    """A worker process whose every step is the test's to make.

    :ivar state: where it is in its life.
    :ivar booted: whether it has said Hello.
    :ivar performs: the catalogue that it said Hello with.
    :ivar job: what it runs now, None if nothing.
    :ivar given: the jobs that it was given, in order.
    :ivar boxes: their requests, in order.
    :ivar prefetched: the jobs behind its own, which it has not begun as far as is known.
    :ivar begun: how many of them it has really begun; the answers before are in its pipe.
    :ivar ended: whether the answer to the last that it has begun is there, too.
    :ivar reclaimed: how many jobs were reclaimed from it.
    :ivar can_prefetch: whether it takes jobs behind another.
    :ivar interrupts: what it was interrupted for in the last job that it has begun, in order.
    :ivar paused: whether what it writes is not taken.
    :ivar stacks: how often its stack was asked for.
    :ivar pings: how often it was asked for a sign of life.
    :ivar reads: whether it reads what it is sent.
    :ivar resident: the bytes of memory that it has.
    :ivar killed: why it is being killed, None if it is not; what it wrote before counts.
    :ivar silenced: whether it wrote garbage, after which nothing that it wrote counts.
    :ivar stopping: whether it was asked to stop.
    :ivar when_performing: called with each job that it is given, before it begins.
    :ivar when_prefetching: called with each job that it is given behind another.
    :ivar when_beginning: called with each job that it was given behind another, when it begins.
    :ivar when_pinged: called when it is asked for a sign of life; set it to None to freeze it.
    """

    def __init__(self) -> None:
        self.pid = next(_pids)
        self.state = WorkerState.STARTING
        self.booted = False
        self.performs = ""
        self.job: Job | None = None
        self.given: list[Job] = []
        self.boxes: list[bytes] = []
        self.prefetched: list[Job] = []
        self.begun = 0
        self.ended = False
        self.reclaimed = 0
        self.can_prefetch = True
        self.interrupts: list[bytes] = []
        self.paused = False
        self.stacks = 0
        self.pings = 0
        self.resident = 0
        self.reads = True
        self.killed: str | None = None
        self.silenced = False
        self.stopping = False
        self.when_performing: Callable[[Job], object] | None = None
        self.when_prefetching: Callable[[Job], object] | None = None
        self.when_beginning: Callable[[Job], object] | None = None
        self.when_pinged: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<worker {self.pid}>"

    def live(self, event: WorkerEvent) -> None:
        """Go on to the state that `event` leads to."""
        self.state = TRANSITIONS[self.state, event]

    def say_hello(self, performs: str = "") -> None:
        """Have it boot; the caller tells whom it concerns."""
        self.live(WorkerEvent.HELLO)
        self.booted = True
        self.performs = performs

    @property
    def dead(self) -> bool:
        """Whether it is gone."""
        return self.state is WorkerState.DEAD

    @property
    def idle(self) -> bool:
        """Whether it may be given a job."""
        return self.state is WorkerState.IDLE

    @property
    def room(self) -> int:
        """See :attr:`IWorker.room`."""
        return MOST if self.can_prefetch and self.killed is None else 0

    def give(self, job: Job) -> bool:
        """See :meth:`IWorker.give`."""
        if self.job is not None:
            return self._give_more(job)
        if not self.idle:
            raise AssertionError(f"{self} is given {job}, but is not idle")
        if self.when_performing is not None:
            self.when_performing(job)
        self.interrupts = []
        self.live(WorkerEvent.GIVE)
        self._begin(job)
        return True

    def _give_more(self, job: Job) -> bool:
        if self.interrupts or self.stopping or self.dead:
            raise AssertionError(f"{self} is given {job}, but must not go on")
        if not self.can_prefetch or self.killed is not None:
            return False
        if self.when_prefetching is not None:
            self.when_prefetching(job)
        self.prefetched.append(job)
        if self.ended:
            self.begun, self.ended = len(self.prefetched), False
        return True

    def _begin(self, job: Job) -> None:
        self.job = job
        self.given.append(job)
        self.boxes.append(bytes(job.box))

    def reclaim(self) -> list[int]:
        """See :meth:`IWorker.reclaim`."""
        back = self.prefetched[self.begun :]
        del self.prefetched[self.begun :]
        self.reclaimed += len(back)
        return [job.id for job in back]

    @property
    def last(self) -> Job | None:
        """The last job that it has begun."""
        return self.prefetched[self.begun - 1] if self.begun else self.job

    @property
    def may_go_on(self) -> bool:
        """Whether it may answer a job that nobody has heard of yet."""
        return not (self.job is None or self.ended or self.interrupts or self.killed or self.dead)

    def go_on(self) -> None:
        """Have it answer its job, unnoticed, and begin the next that it has prefetched, if any."""
        if not self.may_go_on:
            raise AssertionError(f"{self} cannot go on")
        if self.begun < len(self.prefetched):
            self.begun += 1
        else:
            self.ended = True

    def interrupt(self, job: Job, why: bytes) -> None:
        """See :meth:`IWorker.interrupt`."""
        if self.begun < len(self.prefetched) and self.killed is None:
            raise AssertionError(f"{self} is interrupted in {job}, and has others prefetched")
        if (self.prefetched or self.given)[-1:] != [job] or self.dead:
            raise AssertionError(f"{self} is interrupted in {job}, which was not its last")
        if self.job is None:
            return  # it has ended
        if self.interrupts or why not in (b"cancelled", b"time"):
            raise AssertionError(f"{self} is interrupted once more, or for no reason: {why!r}")
        self.interrupts.append(why)

    def pause(self) -> None:
        """See :meth:`IWorker.pause`."""
        if self.dead or (self.job is None and self.killed is None):
            raise AssertionError(f"{self} is paused, but runs no job")
        self.paused = True

    def resume(self) -> None:
        """See :meth:`IWorker.resume`."""
        if self.dead:
            raise AssertionError(f"{self} is resumed, but is dead")
        self.paused = False

    def kill(self, reason: str) -> None:
        """See :meth:`IWorker.kill`."""
        if self.dead:
            raise AssertionError(f"{self} is killed ({reason}), but is dead")
        self.live(WorkerEvent.KILL)
        self.killed = self.killed or reason

    @property
    def performed(self) -> int:
        """See :attr:`IProcess.performed`."""
        return len(self.given)

    def show_stack(self) -> Deferred[str]:
        """See :meth:`IProcess.show_stack`."""
        if self.dead or self.state is WorkerState.IDLE:
            raise AssertionError(f"{self} is asked for its stack, but does nothing")
        self.stacks += 1
        return succeed("the stack\n")

    def ping(self) -> None:
        """See :meth:`IProcess.ping`."""
        if not self.idle:
            raise AssertionError(f"{self} is asked for a sign of life, but is not idle")
        self.pings += 1
        if self.when_pinged is not None:
            self.when_pinged()

    def has_read(self) -> bool:
        """See :meth:`IProcess.has_read`."""
        if self.dead:
            raise AssertionError(f"{self} is asked whether it reads, but is dead")
        return self.reads

    def verify(self) -> None:
        """See :meth:`IProcess.verify`."""

    def memory(self) -> int:
        """See :meth:`IProcess.memory`."""
        if self.dead:
            raise AssertionError(f"{self} is weighed, but is dead")
        return self.resident

    def stop(self) -> None:
        """See :meth:`IProcess.stop`."""
        if self.killed is not None:
            return
        runs = self.job is not None or self.prefetched or not self.booted
        if runs or self.state not in (WorkerState.IDLE, WorkerState.BUSY):
            raise AssertionError(f"{self} is asked to stop, but is not idle")
        self.live(WorkerEvent.STOP)
        self.stopping = True

    @property
    def has_answered(self) -> bool:
        """Whether an answer is in its pipe, and counts."""
        return (self.begun > 0 or self.ended) and not self.silenced

    @property
    def may_answer(self) -> bool:
        """Whether an answer of it can be read: one that is in its pipe, or that it gives now."""
        if self.job is None or self.silenced or self.paused or self.dead:
            return False
        return self.killed is None or self.has_answered

    @property
    def ends_with_its_job(self) -> bool:
        """Whether the job that it runs is its last: its type is isolated in the worker's code."""
        return self.job is not None and self.job.command in isolated_by(self.performs)

    def finish(self, reusable: bool = True) -> Job:
        """Have it done with its job, which is returned; the caller tells the dispatcher.

        :param reusable: whether it begins the next that it was given, if there is one.
        """
        if self.job is None or not self.may_answer:
            raise AssertionError(f"{self} cannot answer")
        job, self.job = self.job, None
        if not self.prefetched:
            self.live(WorkerEvent.ANSWER)
            self.ended = False
        elif reusable:
            if self.when_beginning is not None:
                self.when_beginning(self.prefetched[0])
            self.begun = max(0, self.begun - 1)
            self._begin(self.prefetched.pop(0))
        return job

    def die(self) -> None:
        """Have it gone; the caller tells whom it concerns."""
        if self.dead:
            raise AssertionError(f"{self} dies twice")
        self.live(WorkerEvent.EXIT)
        self.job = None


@implementer(ISupervisor)
class FakeSupervisor:
    """A supervisor that only notes what is asked of it."""

    def __init__(self) -> None:
        self.demands: list[int] = []
        self.released: list[IWorker] = []
        self.doomed: list[IWorker] = []

    def demand(self, waiting: int) -> None:
        """See :meth:`ISupervisor.demand`."""
        if waiting < 0:
            raise AssertionError("workers are demanded for less than nothing")
        self.demands.append(waiting)

    def worker_doomed(self, worker: IWorker) -> None:
        """See :meth:`ISupervisor.worker_doomed`."""
        self.doomed.append(worker)

    def worker_released(self, worker: IWorker) -> None:
        """See :meth:`ISupervisor.worker_released`."""
        self.released.append(worker)


@implementer(ISpawner)
class FakeSpawner:
    """Starts workers that are not processes, and tells of their lives as the pool does.

    :ivar workers: those that live, in the order of their starts.
    :ivar spawned: how many were started.
    :ivar refusal: set it to have starts fail with it.
    :ivar answering: the jobs whose answers are being taken, the innermost last.
    :ivar renewed: how often the code has changed.
    :ivar prompt: whether workers have changed code at once, and not after `prepare`.
    :ivar proven: whether workers have booted with the code that was prepared, each time.
    :ivar when_spawned: called with each new worker, after its start was told.
    """

    def __init__(self, supervisor: Supervisor, dispatcher: Dispatcher) -> None:
        self.workers: list[FakeWorker] = []
        self.spawned = 0
        self.refusal: OSError | None = None
        self.answering: list[Job] = []
        self.when_spawned: Callable[[FakeWorker], object] | None = None
        self.renewed = 0
        self.prompt = True
        self.proven: list[bool] = []
        self._renewal: Callable[[str | None], object] | None = None
        self._supervisor = supervisor
        self._dispatcher = dispatcher

    def spawn(self) -> None:
        """See :meth:`ISpawner.spawn`."""
        self.spawned += 1
        if self.refusal is not None:
            raise self.refusal
        worker = FakeWorker()
        worker.when_pinged = lambda: self._supervisor.worker_answered(worker)
        self.workers.append(worker)
        self._supervisor.worker_started(worker)
        if self.when_spawned is not None:
            self.when_spawned(worker)

    def renew(self, done: Callable[[str | None], object]) -> None:
        """See :meth:`ISpawner.renew`."""
        self.renewed += 1
        self._renewal = done
        if self.prompt:
            self.prepare()

    def end_renewal(self, proven: bool) -> None:
        """See :meth:`ISpawner.end_renewal`."""
        self.proven.append(proven)

    def prepare(self, why_not: str | None = None) -> None:
        """Have the code been prepared that was asked for last, if it was not yet; or not at all."""
        done, self._renewal = self._renewal, None
        if done is not None:
            done(why_not)

    @property
    def starting(self) -> list[FakeWorker]:
        """The workers that have not said Hello."""
        return [worker for worker in self.workers if not worker.booted]

    @property
    def idle(self) -> list[FakeWorker]:
        """The workers that may be given a job."""
        return [worker for worker in self.workers if worker.idle]

    @property
    def busy(self) -> list[FakeWorker]:
        """The workers that run a job, those that are being killed included."""
        return [worker for worker in self.workers if worker.job is not None]

    def boot(self, worker: FakeWorker, performs: str) -> None:
        """Have `worker` say Hello."""
        if worker.killed is not None:
            raise AssertionError(f"{worker} is being killed, and says nothing any more")
        worker.say_hello(performs)
        self._supervisor.worker_booted(worker, performs)

    def boot_all(self, performs: str) -> None:
        """Have all that start say Hello, those included that are started meanwhile."""
        while self.starting:
            self.boot(self.starting[0], performs)

    def answer(
        self, worker: FakeWorker, failed: bool = False, body: bytes = b"\0\0", reusable: bool = True
    ) -> Job:
        """Have `worker` answer its job, which is returned."""
        reusable = reusable and worker.killed is None and not worker.ends_with_its_job
        job = worker.finish(reusable or worker.begun > 0)
        self.answering.append(job)
        try:
            self._dispatcher.answers.job_finished(
                worker, failed, body, b"1000 2000", reusable=reusable
            )
        finally:
            self.answering.pop()
        return job

    def report(self, worker: FakeWorker, body: bytes = b"\0\0", parts: bool = False) -> None:
        """Have `worker` tell news of its job."""
        if worker.job is None or worker.killed is not None or worker.paused:
            raise AssertionError(f"{worker} cannot tell anything")
        self._dispatcher.answers.job_reported(worker, body, parts)

    def die(
        self, worker: FakeWorker, how: str = "was killed by SIGKILL", *, unread: bytes = b""
    ) -> None:
        """Have `worker` be gone, perhaps before it had read its job."""
        worker.die()
        self.workers.remove(worker)
        death = Death(worker.killed or how, unread=unread)
        self._supervisor.worker_exited(worker, death, worker.performed)

    def bury(
        self, worker: FakeWorker, how: str = "was killed by SIGKILL", *, unread: bytes = b""
    ) -> None:
        """Have `worker` be gone, after the answers were read that it had written."""
        while worker.has_answered and worker.job is not None:
            worker.paused = False
            self.answer(worker)
        self.die(worker, how, unread=unread)
