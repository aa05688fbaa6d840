"""The rules under random histories: dispatcher and supervisor together, with all that may happen.

Everything outside them is a stand-in that complains of an illegal order of calls, and after
each step the promises of the design are checked, some of them at each start of a job.

With ``DANGAD_SOAK_SECONDS`` set, as by ``make soak``, it goes on for so long, with new random
histories; a failure prints the seed to give as ``DANGAD_SOAK_SEED``, to see it again.
"""

from __future__ import annotations

import itertools
import os
import random
import time
import unittest
from typing import TYPE_CHECKING, cast

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from dangad.errors import Cancelled
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.endings import ALARMS, GRACE
from dangad.scheduler.failingstarts import LONGEST_DELAY
from dangad.scheduler.record import END_STATES, Job, JobState
from dangad.scheduler.state import AGEING
from dangad.scheduler.supervisor import Supervisor
from dangad.scheduler.workerrecord import RecycleLimits
from dangad.wire.commands import Chunk
from dangad.wire.values import Priority
from tests.fakes import FakeClient, FakeSpawner, FakeWorker, catalogue, make_job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    from twisted.logger import ILogObserver, LogEvent

    T = TypeVar("T")

TIME_LIMIT = 5.0
COMMANDS = [*["Stop", "Finish", "Timed", "Again", "Few"] * 3, "Nope"]
PERFORMS = [
    catalogue(
        "Stop",
        Finish={"on_disconnect": "finish"},
        Timed={"time_limit": TIME_LIMIT},
        Again={"retries": 2},
        Few={"max_running": 1, "retries": 1},
    ),
    catalogue(
        "Stop", Timed={"time_limit": TIME_LIMIT}, Few={"max_running": 2}, Again={"retries": 1}
    ),
]
COMMANDS_OF = {
    PERFORMS[0]: {b"Stop", b"Finish", b"Timed", b"Again", b"Few"},
    PERFORMS[1]: {b"Stop", b"Timed", b"Few", b"Again"},
}
MOST_ATTEMPTS = {b"Again": 3, b"Few": 2}
MOST_RUNNING = {PERFORMS[0]: 1, PERFORMS[1]: 2}
STARTS_AT_ONCE = 2
CLIENTS = st.integers(0, 2)
ANY = st.integers(0, 999)
DEADLINES = st.sampled_from([*[None, 0.5, 5.0, 60.0] * 3, 0.0])


def pick(things: Sequence[T], number: int) -> T:
    """One of `things`."""
    return things[number % len(things)]


class RulesMachine(RuleBasedStateMachine):
    """A server without sockets and processes, and all that may happen to it.

    `jobs` are all that were submitted, and `refused` those of them that were turned away;
    `sealed` has the jobs that must not start (any more), with how often they had; `held` the
    clients on hold; `stopped` the running jobs that were cancelled first; `interrupted` when
    each job that is being stopped was seen to be; `overtaken` how many turns a
    client (the first) has seen another (the second) have while it could have had its own;
    `had_turn` the jobs that were given to a worker, perhaps prefetched;
    `returned` the jobs that a dead worker had not read; `everybody` all workers there ever were,
    and `reclaimed` how many jobs were reclaimed from them when last looked at;
    `late` is whether the clock's calls have not come although they are due; `drains` are the
    drains that were asked for, with the answers that each gave, and `reloads` likewise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[LogEvent] = []
        globalLogPublisher.addObserver(cast("ILogObserver", self.note_failure))
        self.clock = Clock()
        self.clock.advance(1000)
        self.clients = [FakeClient(f"client {number}") for number in range(3)]
        self.held: set[FakeClient] = set()
        self.stopped: set[Job] = set()
        self.interrupted: dict[Job, float] = {}
        self.jobs: list[Job] = []
        self.owners: dict[int, FakeClient] = {}
        self.workers_of: dict[Job, list[FakeWorker]] = {}
        self.refused: set[int] = set()
        self.returned: set[Job] = set()
        self.everybody: list[FakeWorker] = []
        self.reclaimed = 0
        self.sealed: dict[Job, int] = {}
        self.overtaken: dict[tuple[FakeClient, FakeClient], int] = {}
        self.had_turn: set[Job] = set()
        self.late = False
        self.drains: list[list[object]] = []
        self.descriptions: list[list[object]] = []
        self.reloads: list[list[object]] = []

    @initialize(
        min_workers=st.integers(0, 3),
        more=st.integers(0, 3),
        booted=st.integers(0, 3),
        max_queued=st.sampled_from([*[50] * 6, 6, 2, 0]),
        max_queued_bytes=st.sampled_from([*[1000] * 4, 60]),
        quarantine_after=st.integers(0, 3),
        spare=st.sampled_from([0, 0, 1, 2]),
        quick=st.booleans(),
        seed=ANY,
    )
    def start(
        self,
        min_workers: int,
        more: int,
        booted: int,
        max_queued: int,
        max_queued_bytes: int,
        quarantine_after: int,
        spare: int,
        quick: bool,
        seed: int,
    ) -> None:
        """Put the server together, and start it; jobs have been `quick` so far, or not."""
        self.quarantine_after = quarantine_after
        self.dispatcher = Dispatcher(
            self.clock,
            max_queued,
            max_queued_bytes=max_queued_bytes,
            quarantine_after=quarantine_after,
            quarantine_time=10.0,
            chance=random.Random(seed),
        )
        if quick:
            self.dispatcher._prefetch._pace = 0.0
        self.supervisor = Supervisor(
            self.clock,
            self.dispatcher,
            min_workers,
            max(1, min_workers + more),
            spare,
            RecycleLimits(memory=50, max_memory=100, age=100.0),
            starts_at_once=STARTS_AT_ONCE,
        )
        self.ceiling = self.supervisor.max_workers
        self.spawner = FakeSpawner(self.supervisor, self.dispatcher)
        self.spawner.when_spawned = self.watch
        self.supervisor.start(self.spawner)
        for worker in self.bootable()[:booted]:
            self.spawner.boot(worker, PERFORMS[0])

    # What clients do.

    @rule(
        client=CLIENTS,
        command=st.sampled_from(COMMANDS),
        priority=st.sampled_from(Priority),
        deadline=DEADLINES,
        wants_chunks=st.booleans(),
        size=st.sampled_from([2, 20, 50]),
    )
    def submit(
        self,
        client: int,
        command: str,
        priority: Priority,
        deadline: float | None,
        wants_chunks: bool,
        size: int,
    ) -> None:
        """A client submits a job."""
        self.submit_for(
            self.clients[client], command, priority, deadline, wants_chunks=wants_chunks, size=size
        )

    def submit_for(
        self,
        client: FakeClient,
        command: str,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        *,
        wants_chunks: bool = False,
        size: int = 2,
    ) -> None:
        """Submit a job, and see that it is accepted or refused as it must be."""
        job = make_job(
            client,
            command,
            priority,
            deadline=deadline,
            wants_chunks=wants_chunks,
            box=bytes(size),
        )
        self.jobs.append(job)
        self.owners[job.id] = client
        draining, before = bool(self.drains), self.dispatcher.counters.refused
        self.dispatcher.submit(job)
        if job.client is client and job.state is JobState.QUEUED and job not in self.queued():
            self.refused.add(job.id)
            assert self.dispatcher.counters.refused > before
            assert client.failures
        assert job.id in self.refused or not (draining or deadline == 0)

    @rule(client=CLIENTS, priority=st.sampled_from(Priority), times=st.integers(2, 8))
    def flood(self, client: int, priority: Priority, times: int) -> None:
        """A client submits many jobs at once."""
        for number in range(times):
            self.submit_for(
                self.clients[client], pick(["Again", "Few", "Timed", "Stop"], number), priority
            )

    @precondition(lambda self: self.serving())
    @rule(client=CLIENTS, priority=st.sampled_from(Priority), deeds=st.lists(ANY, max_size=8))
    def rush(self, client: int, priority: Priority, deeds: list[int]) -> None:
        """A client submits many short jobs; workers answer some, and begin the prefetched."""
        self.dispatcher._prefetch._pace = 0.0
        for _ in range(6):
            self.submit_for(self.clients[client], "Stop", priority)
        for number in deeds:
            if number % 2 and self.eager():
                self.go_on(number // 2)
            elif self.answerable():
                self.answer(number // 2, False, True)

    @rule(client=CLIENTS, budget=st.integers(1, 3), number=ANY)
    def react(self, client: int, budget: int, number: int) -> None:
        """From now on the client submits, and cancels another job, whenever it is told of one."""
        left = [budget]
        told = self.clients[client]

        def when_told(job: Job) -> None:
            if left[0] and not told.gone:
                left[0] -= 1
                self.submit_for(told, "Stop")
                mine = [job for job in self.jobs if self.owners[job.id] is told]
                for job in mine if number % 2 else [pick(mine, number)]:
                    self.cancel_job(job)

        told.when_told = when_told

    @rule(client=CLIENTS)
    def hold_when_told(self, client: int) -> None:
        """From now on the client is on hold as soon as it is told news of a job."""
        told = self.clients[client]
        told.when_reported = lambda _: self.hold_client(told)

    @precondition(lambda self: self.jobs)
    @rule(number=ANY)
    def cancel(self, number: int) -> None:
        """Some job is cancelled, whatever became of it."""
        self.cancel_job(pick(self.jobs, number))

    @precondition(lambda self: self.spawner.busy)
    @rule(number=ANY)
    def cancel_running(self, number: int) -> None:
        """Some job that runs is cancelled."""
        job = pick(self.spawner.busy, number).job
        assert job is not None
        self.cancel_job(job)

    def cancel_job(self, job: Job) -> None:
        """Cancel a job, and see that it waits no more."""
        self.dispatcher.cancel(job)
        self.seal(job)
        assert job not in self.queued() or self.is_begun(job)
        if isinstance(job.worker, FakeWorker) and job is self.last_of(job.worker):
            assert job.worker.interrupts or job.worker.killed
            if isinstance(job.stopped_for, Cancelled):
                self.stopped.add(job)

    @precondition(lambda self: len(self.jobs) > 5)
    @rule(client=CLIENTS)
    def disconnect(self, client: int) -> None:
        """A client goes, and another comes."""
        gone = self.clients[client]
        mine = {
            worker: job
            for worker in self.spawner.busy
            if (job := self.last_of(worker)) and self.owners[job.id] is gone
        }
        finishing = {
            worker: list(worker.interrupts)
            for worker, job in mine.items()
            if job.command == b"Finish"
        }
        gone.gone = True
        self.held.discard(gone)
        self.dispatcher.client_gone(gone)
        for worker, job in mine.items():
            if self.last_of(worker) is job:
                assert worker in finishing or worker.interrupts or worker.killed
                if self.performs == PERFORMS[0] and worker in finishing:
                    assert worker.interrupts == finishing[worker]
        for job in self.jobs:
            if self.owners[job.id] is gone:
                self.seal(job)
        self.clients[client] = FakeClient(f"client {len(self.jobs)}-{client}")

    @rule(client=CLIENTS)
    def hold(self, client: int) -> None:
        """A client stops to read its answers."""
        self.hold_client(self.clients[client])

    def hold_client(self, client: FakeClient) -> None:
        """Put a client on hold."""
        self.held.add(client)
        self.dispatcher.hold(client)

    @precondition(lambda self: self.answerable())
    @rule(number=ANY)
    def hold_running(self, number: int) -> None:
        """A client stops to read while one of its jobs runs."""
        job = pick(self.answerable(), number).job
        assert job is not None
        if not self.owners[job.id].gone:
            self.hold_client(self.owners[job.id])

    @rule(client=CLIENTS)
    def release(self, client: int) -> None:
        """A client reads its answers again."""
        released = self.clients[client]
        self.held.discard(released)
        self.forget_turns(released)
        self.dispatcher.release(released)

    @precondition(lambda self: not self.descriptions)
    @rule()
    def describe(self) -> None:
        """Somebody asks for the catalogue."""
        answers: list[object] = []
        self.dispatcher.describe().addBoth(answers.append)
        self.descriptions.append(answers)

    # What workers do, or what happens to them.

    @precondition(lambda self: self.bootable())
    @rule(number=ANY, performs=st.sampled_from([0, 0, 0, 1]))
    def boot(self, number: int, performs: int) -> None:
        """A worker says Hello; a few have other code."""
        if PERFORMS[performs] != self.performs:
            self.overtaken.clear()
        self.spawner.boot(pick(self.bootable(), number), PERFORMS[performs])

    @precondition(lambda self: self.bootable() or self.killed())
    @rule()
    def replace_all(self) -> None:
        """All that were killed are gone, and all that start say Hello."""
        for worker in self.killed():
            self.bury(worker)
        for worker in self.bootable():
            self.spawner.boot(worker, self.performs or PERFORMS[0])

    @precondition(lambda self: self.answerable())
    @rule(number=ANY, failed=st.booleans(), reusable=st.sampled_from([True, True, True, False]))
    def answer(self, number: int, failed: bool, reusable: bool) -> None:
        """A worker answers its job, perhaps because it was interrupted, or as its last."""
        worker = pick(self.answerable(), number)
        job = worker.job
        assert job is not None
        reusable = reusable or worker.begun > 0  # one that is not reusable begins nothing
        owner = self.owners[job.id]
        interrupted = bool(worker.interrupts) and job is self.last_of(worker)
        told = len(owner.answers)
        self.spawner.answer(worker, failed, reusable=reusable)
        if interrupted:
            assert worker.killed
            assert len(owner.answers) == told
        else:
            assert reusable or worker.stopping
            assert job.state is (JobState.FAILED if failed else JobState.DONE)
            assert owner.gone or owner.answers[told][0] is job

    @precondition(lambda self: self.reporting())
    @rule(number=ANY, parts=st.booleans())
    def report(self, number: int, parts: bool) -> None:
        """A worker tells news of its job."""
        worker = pick(self.reporting(), number)
        job = worker.job
        assert job is not None
        owner = self.owners[job.id]
        interrupted = bool(worker.interrupts) and job is self.last_of(worker)
        told = len(owner.reports)
        self.spawner.report(worker, parts=parts)
        if interrupted or owner.gone:
            assert len(owner.reports) == told
        else:
            assert owner.reports[told] == (job, b"\0\0", parts)
            if parts:
                self.sealed.setdefault(job, job.attempt)

    @precondition(lambda self: self.eager())
    @rule(number=ANY)
    def go_on(self, number: int) -> None:
        """A worker answers its job, unnoticed, and begins one that it has prefetched."""
        pick(self.eager(), number).go_on()

    @precondition(lambda self: self.answerable())
    @rule(number=ANY)
    def die_unread(self, number: int) -> None:
        """A worker dies before it has read its job."""
        worker = pick(self.answerable(), number)
        job = worker.job
        if job is None or worker.begun or job in self.sealed:
            return
        self.workers_of[job].pop()
        self.returned.add(job)
        self.overtaken.clear()  # a turn is given back
        self.bury(worker, unread=worker.boxes[-1])
        if job.attempt > len(self.workers_of[job]):
            assert worker.interrupts
            self.workers_of[job].append(worker)

    @precondition(lambda self: self.eager())
    @rule(number=ANY)
    def go_wrong(self, number: int) -> None:
        """A worker goes on, and writes garbage: its last answers do not count."""
        worker = pick(self.eager(), number)
        worker.go_on()
        worker.silenced = True
        worker.kill("wrote garbage to its pipe and was killed")

    @precondition(lambda self: self.doomed())
    @rule(number=ANY, by_client=st.booleans())
    def cancel_doomed(self, number: int, by_client: bool) -> None:
        """A job that such a worker has begun is cancelled, or its client goes."""
        job = pick(self.doomed(), number)
        if by_client and not self.owners[job.id].gone:
            self.disconnect(self.clients.index(self.owners[job.id]))
        else:
            self.cancel_job(job)

    def bury(self, worker: FakeWorker, how: str = "died", *, unread: bytes = b"") -> None:
        """Have `worker` be gone, when the answers are read that it has written."""
        while worker.begun and not worker.silenced:
            worker.paused = False
            self.spawner.answer(worker)
        for job in worker.prefetched[: worker.begun]:
            self.workers_of.setdefault(job, []).append(worker)
        self.spawner.die(worker, how, unread=unread)

    @precondition(lambda self: self.spawner.workers)
    @rule(number=ANY)
    def die(self, number: int) -> None:
        """A worker dies, whatever it is about."""
        self.bury(pick(self.spawner.workers, number))

    @precondition(lambda self: self.killed())
    @rule(number=ANY)
    def die_as_told(self, number: int) -> None:
        """A worker that was killed is gone."""
        self.bury(pick(self.killed(), number))

    @precondition(lambda self: self.leaving())
    @rule(number=ANY)
    def leave(self, number: int) -> None:
        """A worker that was asked to stop is gone."""
        self.bury(pick(self.leaving(), number), "exited (status 0)")

    @precondition(lambda self: self.serving())
    @rule(number=ANY)
    def wear_out(self, number: int) -> None:
        """A worker has done enough."""
        self.supervisor.recycle_worker(pick(self.serving(), number), "it has done enough")

    @precondition(lambda self: self.serving())
    @rule(number=ANY, bytes_=st.sampled_from([0, 60, 120]))
    def grow(self, number: int, bytes_: int) -> None:
        """A worker has more memory than it may, or than is good, or less again."""
        pick(self.serving(), number).resident = bytes_

    @precondition(lambda self: self.spawner.idle)
    @rule(number=ANY)
    def freeze(self, number: int) -> None:
        """A worker gives no sign of life any more."""
        pick(self.spawner.idle, number).when_pinged = None

    @precondition(lambda self: self.spawner.busy)
    @rule(number=ANY)
    def die_at_work(self, number: int) -> None:
        """A worker dies of its job."""
        self.bury(pick(self.spawner.busy, number), "was killed by SIGSEGV")

    @precondition(lambda self: self.reporting())
    @rule(number=ANY)
    def die_after_a_part(self, number: int) -> None:
        """A worker dies when it has sent a part of its job's result."""
        worker = pick(self.reporting(), number)
        self.report(number, Chunk.commandName)
        self.bury(worker)

    @precondition(lambda self: len(self.jobs) > 10)
    @rule(refused=st.booleans())
    def refuse_processes(self, refused: bool) -> None:
        """The system has no room for another process, or has again."""
        self.spawner.refusal = OSError(11, "Resource temporarily unavailable") if refused else None

    # What the operator does, and the clock.

    @rule(seconds=st.sampled_from([0, 0.1, 0.2, 0.5, 0.5, 1, 1, GRACE, 5, 10, 31, 61]))
    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.late = False
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([0.1, 0.5, 5]))
    def lag(self, seconds: float) -> None:
        """Time passes, and the reactor is too busy to notice."""
        self.late = True
        self.clock.rightNow += seconds

    @precondition(lambda self: len(self.reloads) < 3)
    @rule()
    def reload(self) -> None:
        """The operator wants the workers replaced."""
        answers: list[object] = []
        self.reloads.append(answers)
        self.supervisor.reload().addBoth(answers.append)

    @rule(min_workers=st.integers(0, 3), more=st.integers(0, 3))
    def resize(self, min_workers: int, more: int) -> None:
        """The operator wants another number of workers."""
        self.supervisor.scale(min_workers, max(1, min_workers + more))

    @precondition(lambda self: len(self.jobs) > 30 and len(self.drains) < 2)
    @rule(seconds=st.sampled_from([0, 1, 60]))
    def drain(self, seconds: float) -> None:
        """The server is told to stop, perhaps twice."""
        answers: list[object] = []
        self.drains.append(answers)
        self.dispatcher.drain(seconds).addBoth(answers.append)

    # What can be seen.

    @property
    def performs(self) -> str:
        """The latest catalogue."""
        return next(reversed(self.dispatcher.state.registry._offers), "")

    def queued(self) -> list[Job]:
        """The jobs that wait, those included that workers have prefetched."""
        rows = self.dispatcher.state.assignments.jobs.values()
        return [*self.dispatcher.state.queue, *(job for row in rows for job in row[1:])]

    def last_of(self, worker: FakeWorker) -> Job | None:
        """The job that `worker` runs in truth."""
        return worker.prefetched[worker.begun - 1] if worker.begun else worker.job

    def startable(self, workers: Sequence[FakeWorker]) -> list[Job]:
        """The jobs that wait and would start if these workers were idle."""
        begun = {job for worker in self.spawner.busy for job in worker.prefetched[: worker.begun]}
        performed = set().union(*(COMMANDS_OF[worker.performs] for worker in workers))
        few = self.few_running() >= MOST_RUNNING.get(self.performs, 1)
        return [
            job
            for job in self.queued()
            if job.rest_alarm is None
            and job not in begun
            and job.command in performed
            and self.owners[job.id] not in self.held
            and not (few and job.command == b"Few")
        ]

    def running(self) -> list[tuple[FakeWorker, Job]]:
        """What runs where; what was stopped runs until its worker is gone, answer or not."""
        return [
            (worker, worker.job or worker.given[-1])
            for worker in self.spawner.workers
            if worker.job or (worker.interrupts and worker.killed)
        ]

    def few_running(self) -> int:
        """How many jobs run of the type that has a limit."""
        return sum(job.command == b"Few" for _, job in self.running())

    def bootable(self) -> list[FakeWorker]:
        """The workers that may say Hello."""
        return [worker for worker in self.spawner.starting if worker.killed is None]

    def serving(self) -> list[FakeWorker]:
        """The workers that have booted, and were not told to go."""
        return [
            worker
            for worker in self.spawner.workers
            if worker.booted and worker.killed is None and not worker.stopping
        ]

    def leaving(self) -> list[FakeWorker]:
        """The workers that were asked to stop."""
        return [worker for worker in self.spawner.workers if worker.stopping]

    def answerable(self) -> list[FakeWorker]:
        """The workers that may answer, or have written an answer before they were killed."""
        return [
            worker
            for worker in self.spawner.busy
            if (worker.killed is None or worker.begun) and not (worker.silenced or worker.paused)
        ]

    def reporting(self) -> list[FakeWorker]:
        """The workers that may tell news of the job that they run as far as is known."""
        return [w for w in self.answerable() if w.killed is None and not w.begun]

    def eager(self) -> list[FakeWorker]:
        """The workers that may begin what they have prefetched."""
        return [
            worker
            for worker in self.answerable()
            if worker.begun < len(worker.prefetched)
            and not worker.interrupts
            and worker.killed is None
        ]

    def is_begun(self, job: Job) -> bool:
        """Whether a worker has begun `job` unnoticed."""
        return (
            job.state is JobState.PREFETCHED
            and isinstance(job.worker, FakeWorker)
            and job in job.worker.prefetched[: job.worker.begun]
        )

    def is_doomed(self, job: Job) -> bool:
        """Whether a worker that is being killed had begun `job` unnoticed."""
        return (
            self.is_begun(job)
            and isinstance(job.worker, FakeWorker)
            and job.worker.killed is not None
        )

    def doomed(self) -> list[Job]:
        """The jobs that a worker that is being killed had begun unnoticed."""
        return [job for job in self.queued() if self.is_doomed(job)]

    def seal(self, job: Job) -> None:
        """See that `job` does not start any more."""
        self.sealed.setdefault(job, job.attempt + self.is_begun(job))

    def killed(self) -> list[FakeWorker]:
        """The workers that are about to be gone."""
        return [worker for worker in self.spawner.workers if worker.killed is not None]

    # The promises at each start.

    def watch(self, worker: FakeWorker) -> None:
        """See what `worker` is given."""
        self.everybody.append(worker)
        worker.when_prefetching = lambda job: self.check_turn(worker, job)
        worker.when_beginning = lambda job: self.check_start(worker, job)
        worker.when_performing = lambda job: self.check_both(worker, job)

    def check_both(self, worker: FakeWorker, job: Job) -> None:
        """A job that is performed at once does so in its turn."""
        self.check_turn(worker, job)
        self.check_start(worker, job)

    def check_start(self, worker: FakeWorker, job: Job) -> None:
        """A job that starts may do so, and nowhere else."""
        owner = self.owners[job.id]
        assert worker.begun or not owner.gone
        assert worker.begun or owner not in self.held
        assert job.box
        assert worker.begun or job not in self.sealed
        assert worker.begun or not self.dispatcher.state.quarantine.seconds_left(
            job.command, self.clock.seconds()
        )
        if job.command == b"Few":
            assert worker.begun or self.few_running() < MOST_RUNNING[self.performs]
        earlier = self.workers_of.setdefault(job, [])
        assert all(other.dead for other in earlier)
        earlier.append(worker)
        assert job.command in COMMANDS_OF[worker.performs]

    def check_turn(self, worker: FakeWorker, job: Job) -> None:
        """A job that is given to a worker, perhaps prefetched, is the one whose turn it is."""
        now, owner = self.clock.seconds(), self.owners[job.id]
        assert job.deadline is None or now < job.accepted_at + job.deadline
        startable = [other for other in self.startable([worker]) if other.worker is None]
        ready = {self.owners[other.id] for other in startable}
        for useless in self.queued():
            if self.dispatcher.state.quarantine.seconds_left(useless.command, now):
                ready.discard(self.owners[useless.id])  # it has used its turn
        if self.reclaimed != (reclaimed := self.reclaims()):
            self.reclaimed = reclaimed
            self.overtaken.clear()  # turns were given back
        if self.dispatcher.state.registry.partial:
            self.overtaken.clear()  # there are several rows now, one for each kind of worker
        for key in list(self.overtaken):
            if key[0] is owner or key[0] not in ready:
                del self.overtaken[key]
        others = {self.owners[each.id] for _, each in self.running() if each is not job}
        again = job in self.had_turn  # it was reclaimed since, or is tried again
        self.had_turn.add(job)
        for other in ready:
            if other is owner or again:
                continue
            if others != {other}:  # who runs all the others lets others by
                key = other, owner
                self.overtaken[key] = self.overtaken.get(key, 0) + 1
                assert self.overtaken[key] <= 2, (job, key)
        if any(
            self.owners[other.id] is owner and other.priority < job.priority for other in startable
        ):
            assert any(
                self.owners[old.id] is owner
                and old.priority is job.priority
                and now - old.accepted_at >= AGEING
                for old in self.jobs
            ), job

    def reclaims(self) -> int:
        """How many jobs were reclaimed so far."""
        return sum(worker.reclaimed for worker in self.everybody)

    def forget_turns(self, client: FakeClient) -> None:
        """What `client` has seen of others' turns does not count any more."""
        self.overtaken = {key: n for key, n in self.overtaken.items() if key[0] is not client}

    def note_failure(self, event: LogEvent) -> None:
        """Note that something in the rules raised, and was contained."""
        if "log_failure" in event:
            self.failures.append(event)

    # The promises after each step.

    @invariant()
    def nothing_raises(self) -> None:
        """No part of the rules has raised where the rules contain it."""
        assert not self.failures, self.failures[0]["log_failure"].getTraceback()

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        """A job was refused, waits, runs on exactly one worker, or has ended."""
        queued = {job.id for job in self.queued()}
        running = [job for _, job in self.running()]
        assert len(running) == len(set(running)) == self.dispatcher.running
        assert len(queued) == self.dispatcher.waiting
        rows = self.dispatcher.state.assignments.jobs.values()
        prefetched = {job.id for row in rows for job in row[1:]}
        for worker, job in self.running():
            assert job.worker is worker
            assert job.state is JobState.RUNNING
        for job in self.jobs:
            places = [
                job.id in self.refused,
                job.id in queued and job.state in (JobState.QUEUED, JobState.PREFETCHED),
                job in running,
                job.state in END_STATES,
            ]
            assert places.count(True) == 1, (job, places)
            assert (job.state is JobState.PREFETCHED) == (job.id in prefetched), job
            assert job.attempt == len(self.workers_of.get(job, ()))
            assert job.attempt <= MOST_ATTEMPTS.get(job.command, 1)

    @invariant()
    def every_end_is_told_once(self) -> None:
        """A client is told of the end of each of its jobs, once, and of nothing when it is gone."""
        for job in self.jobs:
            owner = self.owners[job.id]
            told = [told for told, *_ in owner.answers + owner.failures if told is job]
            ended = job.state in END_STATES or job.id in self.refused
            if not owner.gone:
                assert len(told) == ended, (job, told)
            assert len(told) <= 1

    @invariant()
    def books_balance(self) -> None:
        """The counters add up."""
        counters = self.dispatcher.counters
        assert counters.accepted == (
            sum(counters.ended.values()) + self.dispatcher.waiting + self.dispatcher.running
        )
        assert counters.accepted + counters.refused == len(self.jobs)

    @invariant()
    def what_was_cancelled_does_not_start(self) -> None:
        """A job that was cancelled, told in part, or lost its client does not start any more."""
        for job, attempts in self.sealed.items():
            assert job.attempt + self.is_begun(job) == attempts, job

    @invariant()
    def what_was_stopped_is_cancelled(self) -> None:
        """A job that was cancelled while it ran ends as cancelled, however its worker dies."""
        for job in self.stopped:
            assert job.state in (JobState.RUNNING, JobState.CANCELLED) or self.is_begun(job)

    @invariant()
    def what_is_out_of_time_is_stopped(self) -> None:
        """What is out of time does not wait or run on, and what is being stopped is killed."""
        now = self.clock.seconds()
        for worker in self.spawner.busy:
            if worker.interrupts and (job_running := self.last_of(worker)):
                self.interrupted.setdefault(job_running, now)
        if self.late:
            return
        for job in self.queued():
            assert (
                job.deadline is None or self.is_begun(job) or now < job.accepted_at + job.deadline
            )
        for worker in self.spawner.busy:
            job_running = self.last_of(worker)
            assert job_running is not None
            if worker.killed is not None:
                continue
            if worker.interrupts:
                assert now < self.interrupted[job_running] + GRACE
                continue
            if job_running.deadline is not None:
                assert now < job_running.accepted_at + job_running.deadline
            if job_running.command == b"Timed" and not worker.begun:
                assert now < job_running.started_at + TIME_LIMIT

    @invariant()
    def only_parts_are_held_back(self) -> None:
        """A worker's output is held back exactly while its job's client does not read parts."""
        for worker in self.spawner.busy:
            if worker.job is not None and worker.killed is None:
                held = self.owners[worker.job.id] in self.held
                waits = held and worker.job.wants_chunks and not worker.interrupts
                assert worker.paused == waits, worker
        assert not any(worker.paused for worker in self.spawner.idle)

    @invariant()
    def no_worker_is_idle_while_a_job_may_start(self) -> None:
        """No worker is idle while a job waits that may start."""
        assert self.dispatcher.idle == len(self.spawner.idle)
        assert not self.startable(self.spawner.idle)

    @invariant()
    def more_urgent_go_before_prefetched(self) -> None:
        """What a worker has prefetched, and not begun, is the most urgent that its client has."""
        for worker in self.answerable():
            ready = [job for job in self.startable([worker]) if job.worker is None]
            for job in worker.prefetched[worker.begun :]:
                owner = self.owners[job.id]
                above = [
                    other
                    for other in ready
                    if other.priority < job.priority and self.owners[other.id] is owner
                ]
                assert not above, (job, above)

    @invariant()
    def bounds_hold(self) -> None:
        """Neither jobs nor workers are more than may be, nor workers fewer without a reason."""
        queued = self.queued()
        size = self.dispatcher.state.queue.size + self.dispatcher.state.assignments.size
        assert size == sum(job.size for job in queued)
        fresh = [job.size for job in queued if not job.attempt and job not in self.returned]
        assert len(fresh) <= self.dispatcher.admission.max_queued
        assert sum(fresh) <= self.dispatcher.admission.max_queued_bytes
        lives = self.supervisor.records
        assert set(lives) == set(self.spawner.workers)
        assert all(lives[worker].released for worker in self.leaving())
        working = [worker for worker in self.spawner.workers if not lives[worker].released]
        self.ceiling = max(self.supervisor.max_workers, min(self.ceiling, len(working) - 1))
        assert len(working) <= self.ceiling + 1  # a replacement comes before the old one goes
        if not self.supervisor._failing.resting and self.supervisor._pace.may_start:
            assert self.supervisor.size >= self.supervisor.min_workers

    @invariant()
    def few_start_at_a_time(self) -> None:
        """No more workers start than may at a time, and it is known which do."""
        starting = {worker for worker, life in self.supervisor.records.items() if life.starting}
        assert starting == self.supervisor._pace._starting
        assert len(starting) <= STARTS_AT_ONCE

    @invariant()
    def quarantine_may_be_off(self) -> None:
        """Nobody is told of a quarantine that is off."""
        if not self.quarantine_after:
            for client in self.clients:
                assert not any("in a row" in str(error) for _, error in client.failures)

    @invariant()
    def alarms_belong_to_somebody(self) -> None:
        """No alarm is left for what has ended."""
        supervisor, dispatcher = self.supervisor, self.dispatcher
        calls = [
            supervisor._failing._retry,
            supervisor._failing._alarm,
            supervisor._pruning,
            supervisor._watching,
            supervisor._pace._turn,
            dispatcher.state.alarms._wake,
            dispatcher.state.chores._call,
            dispatcher.state.quiet._alarm,
        ]
        calls += [life.boot_alarm for life in supervisor.records.values()]
        assert all(call in calls for call in self.clock.getDelayedCalls())
        alarms = [dispatcher._drain.alarm, dispatcher._pauses._alarm]
        for job in self.queued() + list(dispatcher.state.assignments.running()):
            alarms += [getattr(job, name) for name in ALARMS]
        assert dispatcher.state.alarms._pending == len(alarms) - alarms.count(None)

    @invariant()
    def drains_end_with_the_last_job(self) -> None:
        """A drain ends once, with the last job, and not before."""
        for answers in self.drains:
            assert answers == ([] if self.dispatcher.waiting + self.dispatcher.running else [None])

    def teardown(self) -> None:
        """With workers that start and answer, everything comes to its end."""
        globalLogPublisher.removeObserver(cast("ILogObserver", self.note_failure))
        if not hasattr(self, "spawner"):
            return
        self.spawner.refusal = None
        for worker in self.spawner.workers:
            worker.resident = 0
        self.advance(0)
        for client in self.clients:
            client.when_told = client.when_reported = None
            self.held.discard(client)
            self.forget_turns(client)
            self.dispatcher.release(client)
        self.describe()
        for _ in range(400):
            if self.bootable():
                self.boot(0, 0)
            elif self.answerable():
                self.answer(0, False, True)
            elif self.killed():
                self.die_as_told(0)
            elif self.leaving():
                self.leave(0)
            elif self.dispatcher.waiting + self.dispatcher.running or not all(
                self.descriptions + self.reloads
            ):
                self.advance(LONGEST_DELAY)
            else:
                break
            self.check_invariants_now()
        assert self.dispatcher.waiting == self.dispatcher.running == 0
        assert all(len(answers) == 1 for answers in self.descriptions + self.reloads)
        self.advance(10)  # whatever is in quarantine is free again
        if self.spawner.idle and not self.drains:
            self.submit_for(self.clients[0], "Stop", Priority.LOW)  # as good as new
            assert self.spawner.answer(self.spawner.busy[0]) is self.jobs[-1]
        self.check_invariants_now()
        self.supervisor.stop()
        if not self.drains:
            self.drain(1)
        self.drains_end_with_the_last_job()
        assert self.clock.getDelayedCalls() == []

    def check_invariants_now(self) -> None:
        """Check all invariants."""
        for promise in (
            self.every_job_is_in_one_place,
            self.every_end_is_told_once,
            self.books_balance,
            self.what_was_cancelled_does_not_start,
            self.what_was_stopped_is_cancelled,
            self.what_is_out_of_time_is_stopped,
            self.only_parts_are_held_back,
            self.no_worker_is_idle_while_a_job_may_start,
            self.more_urgent_go_before_prefetched,
            self.bounds_hold,
            self.quarantine_may_be_off,
            self.alarms_belong_to_somebody,
            self.drains_end_with_the_last_job,
        ):
            promise()


def soak(seconds: float, first_seed: int) -> None:
    """Try new histories for so long; a failure says which seed made it."""
    end = time.monotonic() + seconds
    for seed in itertools.count(first_seed):
        machine = hypothesis.seed(seed)(type("SoakMachine", (RulesMachine,), {}))
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    phases=SOAK_PHASES,
                    max_examples=30,
                    stateful_step_count=100,
                    deadline=None,
                    database=None,
                    print_blob=True,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except BaseException:
            print(f"to see it again: make soak DANGAD_SOAK_SEED={seed}")
            raise
        if time.monotonic() > end:
            print(f"{seconds:g} s, seeds {first_seed} to {seed}: the promises hold")
            return


SOAK_SECONDS = float(os.environ.get("DANGAD_SOAK_SECONDS") or 0)
SOAK_PHASES = [Phase.generate, *([Phase.shrink] if os.environ.get("DANGAD_SOAK_SEED") else [])]
"""To shorten a history that fails takes minutes: that is for when it is seen again."""
SOAK_SEED = int(os.environ.get("DANGAD_SOAK_SEED") or random.SystemRandom().getrandbits(32))


class RulesTests(unittest.TestCase):
    def test_promises(self) -> None:
        """Whatever happens, in whatever order, the promises of the design hold."""
        if SOAK_SECONDS:
            soak(SOAK_SECONDS, SOAK_SEED)
        else:
            run_state_machine_as_test(
                RulesMachine,
                settings=settings(
                    max_examples=200,
                    stateful_step_count=80,
                    deadline=None,
                    derandomize=True,
                ),
            )
