"""The rules under random histories: dispatcher and supervisor together, with all that may happen.

Everything outside them is a stand-in that complains of an illegal order of calls. The promises of
the design are checked after each step, some of them at each start of a job, and some whenever a
client is told of an outcome: it may submit, cancel and leave in that moment.

A history is a row of numbers: each stands for a deed of somebody's, with its particulars. Which
deeds may happen in it, and how the server is set up, is another number, its seed. One that fails is
told in words, as short as it could be made.

With ``DANGAD_SOAK_SECONDS`` set, as by ``make soak``, it goes on for so long, and for so many
histories at least, always with new ones; a failure prints the seed to give as
``DANGAD_SOAK_SEED``, to see it again.
"""

from __future__ import annotations

import itertools
import os
import random
import time
import unittest
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from dangad.errors import Cancelled, NoWorkers, UnhandledCommand, WorkerLost
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.endings import ALARMS, GRACE
from dangad.scheduler.failingstarts import LONGEST_DELAY
from dangad.scheduler.record import END_STATES, Job, JobState
from dangad.scheduler.state import AGEING
from dangad.scheduler.supervisor import Supervisor
from dangad.scheduler.workerrecord import RecycleLimits
from dangad.wire import boxes
from dangad.wire.values import Priority
from tests.fakes import FakeClient, FakeSpawner, FakeWorker, catalogue, make_job
from tests.unit.scheduler.whole import assert_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from twisted.logger import ILogObserver, LogEvent

    from dangad.scheduler.concurrency import Paused

    T = TypeVar("T")

TIME_LIMIT = 5.0
COMMANDS = [*["Stop", "Finish", "Timed", "Again", "Few", "Soft"] * 3, "Nope"]
PERFORMS = [
    catalogue(
        "Stop",
        Finish={"on_disconnect": "finish"},
        Timed={"time_limit": TIME_LIMIT},
        Again={"retries": 2},
        Few={"max_running": 1, "retries": 1},
        Soft={"stoppable": True, "time_limit": TIME_LIMIT},
        Alone={"isolate": True, "retries": 1},
        AloneFew={"isolate": True, "max_running": 1},
    ),
    catalogue(
        "Stop",
        Timed={"time_limit": TIME_LIMIT},
        Few={"max_running": 2},
        Again={"retries": 1},
        Soft={"time_limit": TIME_LIMIT},
        Alone={"isolate": True},
        AloneFew={"max_running": 1},
    ),
]
COMMANDS_OF = {
    PERFORMS[0]: {b"Stop", b"Finish", b"Timed", b"Again", b"Few", b"Soft", b"Alone", b"AloneFew"},
    PERFORMS[1]: {b"Stop", b"Timed", b"Few", b"Again", b"Soft", b"Alone", b"AloneFew"},
}
MOST_ATTEMPTS = {b"Again": 3, b"Few": 2, b"Alone": 2}
MOST_RUNNING = {
    PERFORMS[0]: {b"Few": 1, b"AloneFew": 1},
    PERFORMS[1]: {b"Few": 2, b"AloneFew": 1},
    "": {},
}
ISOLATED = {PERFORMS[0]: {b"Alone", b"AloneFew"}, PERFORMS[1]: {b"Alone"}, "": set[bytes]()}
STOPPABLE = {PERFORMS[0]: {b"Soft"}, PERFORMS[1]: set[bytes]()}
TIMED = b"Timed", b"Soft"
RESULT = b"\0\1k\0\1v\0\0"
"""An answer that is not that of a stopped job."""
STARTS_AT_ONCE = 2
HISTORIES = 90
"""Histories that are told by default, always the same."""
STEPS = 80
TRIES = 300
"""Histories that are tried, at most, to make one shorter that fails."""
CLIENTS = range(3)
ANY = range(1000)
DEADLINES = [*[None, 0.5, 5.0, 60.0] * 3, 0.0]
REACTIONS = ["submit", "cancel", "cancel all", "cancel another's", "hold", "leave"]
PRIORITIES = list(Priority)
ALL = "everything"
"""What stands for all commands when operators pause and resume."""
PAUSABLE = [*["Stop", "Timed", "Again", "Few", "Soft", "Alone", "AloneFew", "Nope"] * 2, ALL]
BOTH = (False, True)
MOSTLY = (True, True, True, False)
NUMBERS = itertools.count(1)
OTHER_ALARMS = 3
"""Alarms that are no job's: a drain's end, the next look at paused jobs, and when starts go on."""
RULES_KILL = "was killed: ", "was stopped: "
"""How the reasons begin for which the dispatcher kills workers: each for one job."""


def pick(things: Sequence[T], number: int) -> T:
    """One of `things`."""
    return things[number % len(things)]


def named(commands: list[str]) -> list[bytes] | None:
    """Commands as the dispatcher wants them; None for everything."""
    return None if ALL in commands else [command.encode() for command in commands]


def several(things: Sequence[T], least: int, most: int) -> Callable[[random.Random], list[T]]:
    """Some of `things`, so many of them."""
    return lambda chance: [chance.choice(things) for _ in range(chance.randint(least, most))]


class Deed(NamedTuple):
    """Something that may happen: how, when, and with which particulars, or how to choose them."""

    method: Callable[..., object]
    may_happen: Callable[[Any], object]
    particulars: dict[str, Any]


DEEDS: list[Deed] = []


def deed(
    may_happen: Callable[[Any], object] = lambda _: True, **particulars: Any
) -> Callable[[T], T]:
    """Have a method be a deed."""

    def note(method: T) -> T:
        DEEDS.append(Deed(cast("Callable[..., object]", method), may_happen, particulars))
        return method

    return note


class RulesMachine:
    """A server without sockets and processes, and all that may happen to it.

    `jobs` are all that were submitted, `refused` those of them that were turned away, and `open`
    those that have not ended;
    `sealed` has the jobs that must not start (any more), with how often they had; `held` the
    clients on hold, and `ever_held` those that ever were; `cancelled` the jobs that were
    cancelled, and `stopped` those that ran then; `interrupted` when
    each job that is being stopped was seen to be; `costly` the clients of which a job was on a
    worker when it died, or was its last; `overtaken` how many turns a
    client (the first) has seen another (the second) have while it could have had its own, and how
    many of its own it may have had before their time;
    `paused` what operators have paused, in the words of `pause`; `withdrawn` the jobs that they
    cancelled;
    `had_turn` the jobs that were given to a worker, perhaps prefetched;
    `returned` the jobs that a dead worker had not read; `everybody` all workers there ever were,
    and `reclaimed` how many jobs were reclaimed from them when last looked at;
    `late` is whether the clock's calls have not come although they are due; `was_wary` whether
    jobs have ever stood back for others, which leaves turns in disorder; `performs` the
    catalogue of the last Hello; `ends_badly` whether no worker can be started in the end, for a
    while; `failed_at` when a start may last have failed; `drains` are the
    drains that were asked for, with the answers that each gave, and `reloads` likewise.
    """

    def __init__(self, seed: int) -> None:
        """Put a server together, and start it; `seed` says how."""
        self.story: list[str] = []
        chance = random.Random(seed)
        share = chance.choice([0.3, 0.6, 0.8])  # with few deeds, more of its turns are looked at
        self.deeds = [each for each in DEEDS if chance.random() < share]
        self.failures: list[LogEvent] = []
        globalLogPublisher.addObserver(cast("ILogObserver", self.note_failure))
        self.clock = Clock()
        self.clock.advance(1000)
        self.clients = [self.connect() for _ in range(3)]
        self.held: set[FakeClient] = set()
        self.ever_held: set[FakeClient] = set()
        self.cancelled: set[Job] = set()
        self.withdrawn: set[Job] = set()
        self.paused: set[str] = set()
        self.stopped: set[Job] = set()
        self.interrupted: dict[Job, float] = {}
        self.costly: set[FakeClient] = set()
        self.jobs: list[Job] = []
        self.open: list[Job] = []
        self.owners: dict[int, FakeClient] = {}
        self.workers_of: dict[Job, list[FakeWorker]] = {}
        self.refused: set[int] = set()
        self.returned: set[Job] = set()
        self.everybody: list[FakeWorker] = []
        self.reclaimed = 0
        self.sealed: dict[Job, int] = {}
        self.overtaken: dict[tuple[FakeClient, FakeClient], tuple[int, int]] = {}
        self.had_turn: set[Job] = set()
        self.late = self.was_wary = False
        self.performs = ""
        self.failed_at = -LONGEST_DELAY
        self.ends_badly = chance.random() < 0.3
        self.drains: list[list[object]] = []
        self.descriptions: list[list[object]] = []
        self.reloads: list[list[object]] = []

        min_workers = chance.randrange(4)
        self.quarantine_after = chance.randrange(4)
        self.dispatcher = Dispatcher(
            self.clock,
            chance.choice([*[50] * 6, 6, 2, 0]),
            max_queued_bytes=chance.choice([*[1000] * 4, 60]),
            quarantine_after=self.quarantine_after,
            quarantine_time=10.0,
            chance=chance,
        )
        self.supervisor = Supervisor(
            self.clock,
            self.dispatcher,
            min_workers,
            max(1, min_workers + chance.randrange(4)),
            chance.choice([0, 0, 1, 2]),
            RecycleLimits(memory=50, max_memory=100, age=100.0),
            starts_at_once=STARTS_AT_ONCE,
        )
        self.ceiling = self.supervisor.max_workers
        #: How many processes there were after the last step.
        self.processes = 0
        self.spawner = FakeSpawner(self.supervisor, self.dispatcher)
        self.spawner.when_spawned = self.watch
        self.supervisor.start(self.spawner)
        for worker in self.bootable()[: chance.randrange(4)]:
            self.boot_one(worker, PERFORMS[0])
        if chance.random() < 0.5:
            self.practise(20)  # jobs have been quick so far

    def take_step(self, number: int) -> None:
        """Let something happen that may, and see that the promises hold."""
        chance = random.Random(number)
        for each in chance.sample(self.deeds, len(self.deeds)):
            if each.may_happen(self):
                particulars = {
                    name: values(chance) if callable(values) else chance.choice(values)
                    for name, values in each.particulars.items()
                }
                self.story.append(f"{each.method.__name__} {particulars or ''}")
                each.method(self, **particulars)
                self.promises_hold()
                return

    def connect(self) -> FakeClient:
        """A new client."""
        client = FakeClient(f"client {next(NUMBERS)}")
        client.watch = lambda job: self.see_told(client, job)
        return client

    def practise(self, count: int) -> None:
        """So many jobs are done in no time, one after the other."""
        for _ in range(count):
            if self.spawner.idle and not self.drains:
                self.submit_for(self.clients[0], "Stop")
                if (worker := self.jobs[-1].worker) in self.answerable():
                    self.spawner.answer(cast("FakeWorker", worker))

    # What clients do.

    @deed(
        client=CLIENTS,
        command=COMMANDS,
        priority=PRIORITIES,
        deadline=DEADLINES,
        wants_chunks=BOTH,
        size=[2, 20, 50],
    )
    def submit(self, client: int, **about: Any) -> None:
        """A client submits a job."""
        self.submit_for(self.clients[client], **about)

    def submit_for(
        self,
        client: FakeClient,
        command: str,
        priority: Priority = Priority.NORMAL,
        size: int = 2,
        **about: Any,
    ) -> None:
        """Submit a job, and see that it is accepted or refused as it must be."""
        job = make_job(client, command, priority, box=bytes(size), **about)
        self.jobs.append(job)
        self.open.append(job)
        self.owners[job.id] = client
        draining, before = bool(self.drains), self.dispatcher.counters.refused
        self.dispatcher.submit(job)
        if job.client is client and job.state is JobState.QUEUED and job not in self.queued():
            self.refused.add(job.id)
            assert self.dispatcher.counters.refused > before
            assert client.failures
        assert job.id in self.refused or not (draining or job.deadline == 0)

    @deed(client=CLIENTS, priority=PRIORITIES, times=range(2, 9))
    def flood(self, client: int, priority: Priority, times: int) -> None:
        """A client submits many jobs at once."""
        for number in range(times):
            self.submit_for(
                self.clients[client],
                pick(["Again", "Few", "Timed", "Stop", "Soft"], number),
                priority,
            )

    @deed(client=CLIENTS, priority=PRIORITIES, commands=several(["Alone", "AloneFew"], 1, 3))
    def submit_isolated(self, client: int, priority: Priority, commands: list[str]) -> None:
        """A client submits jobs of which each needs an unused worker."""
        for command in commands:
            self.submit_for(self.clients[client], command, priority)

    @deed(
        lambda self: self.serving(), client=CLIENTS, priority=PRIORITIES, deeds=several(ANY, 0, 8)
    )
    def rush(self, client: int, priority: Priority, deeds: list[int]) -> None:
        """A client submits many short jobs; workers answer some, and begin the prefetched."""
        self.practise(10)
        for _ in range(6):
            self.submit_for(self.clients[client], "Stop", priority)
        for number in deeds:
            if number % 2 and self.eager():
                self.go_on_with(pick(self.eager(), number // 2))
            elif self.answerable():
                self.answer(number // 2, False, True, True)

    @deed(
        client=CLIENTS,
        deeds=several(REACTIONS, 1, 3),
        budget=range(1, 4),
        number=ANY,
    )
    def react(self, client: int, deeds: list[str], budget: int, number: int) -> None:
        """From now on the client does all this whenever it is told of a job, a few times."""
        left = [budget]
        told = self.clients[client]

        def when_told(job: Job) -> None:
            left[0] -= 1
            for deed in deeds if left[0] >= 0 else ():
                if not told.gone:
                    self.do(deed, told, number)

        told.when_told = when_told

    def do(self, deed: str, client: FakeClient, number: int) -> None:
        """A client does something, though it is just being told of a job."""
        mine = [job for job in self.jobs if self.owners[job.id] is client]
        if deed == "submit":
            self.submit_for(client, pick(["Stop", "Again", "Few", "Soft"], number))
        elif deed == "cancel":
            self.cancel_job(pick(mine, number))
        elif deed == "cancel all":
            for job in mine:
                self.cancel_job(job)
        elif deed == "cancel another's":
            self.cancel_job(pick(self.jobs, number))
        elif deed == "hold":
            self.hold_client(client)
        else:
            self.disconnect(self.clients.index(client))

    @deed(client=CLIENTS)
    def hold_when_told(self, client: int) -> None:
        """From now on the client is on hold as soon as it is told news of a job."""
        told = self.clients[client]
        told.when_reported = lambda _: self.hold_client(told)

    @deed(lambda self: self.jobs, number=ANY)
    def cancel(self, number: int) -> None:
        """Some job is cancelled, whatever became of it."""
        self.cancel_job(pick(self.jobs, number))

    @deed(lambda self: self.spawner.busy, number=ANY)
    def cancel_running(self, number: int) -> None:
        """Some job that runs is cancelled."""
        job = pick(self.spawner.busy, number).job
        assert job is not None
        self.cancel_job(job)

    def cancel_job(self, job: Job, by_operator: bool = False) -> None:
        """Cancel a job, and see that it waits no more."""
        if by_operator:
            if job.client is not None and job.stopped_for is None:
                self.withdrawn.add(job)
            self.dispatcher.cancel_by_operator(job)
        else:
            self.dispatcher.cancel(job)
        self.cancelled.add(job)
        self.seal(job)
        assert job not in self.queued() or self.is_begun(job)
        if isinstance(job.worker, FakeWorker) and job is job.worker.last:
            assert job.worker.interrupts or job.worker.killed
            if isinstance(job.stopped_for, Cancelled):
                self.stopped.add(job)

    @deed(lambda self: self.jobs, numbers=several(ANY, 1, 8))
    def withdraw(self, numbers: list[int]) -> None:
        """An operator cancels some jobs, whatever became of them."""
        for number in numbers:
            self.cancel_job(pick(self.jobs, number), by_operator=True)

    @deed(lambda self: len(self.jobs) > 5, client=CLIENTS)
    def disconnect(self, client: int) -> None:
        """A client goes, and another comes."""
        gone = self.clients[client]
        mine = {
            worker: job
            for worker in self.spawner.busy
            if (job := worker.last) and self.owners[job.id] is gone
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
            if worker.last is job:
                assert worker in finishing or worker.interrupts or worker.killed
                if self.performs == PERFORMS[0] and worker in finishing:
                    assert worker.interrupts == finishing[worker]
        for job in self.open:
            if self.owners[job.id] is gone:
                self.seal(job)
        self.clients[client] = self.connect()

    @deed(client=CLIENTS)
    def hold(self, client: int) -> None:
        """A client stops to read its answers."""
        self.hold_client(self.clients[client])

    def hold_client(self, client: FakeClient) -> None:
        """Put a client on hold."""
        if not client.gone:
            self.held.add(client)
            self.ever_held.add(client)
            self.dispatcher.hold(client)

    @deed(lambda self: self.answerable(), number=ANY)
    def hold_running(self, number: int) -> None:
        """A client stops to read while one of its jobs runs."""
        job = pick(self.answerable(), number).job
        assert job is not None
        self.hold_client(self.owners[job.id])

    @deed(client=CLIENTS)
    def release(self, client: int) -> None:
        """A client reads its answers again."""
        released = self.clients[client]
        self.held.discard(released)
        self.forget_turns(released)
        self.dispatcher.release(released)

    @deed(lambda self: not self.descriptions)
    def describe(self) -> None:
        """Somebody asks for the catalogue."""
        answers: list[object] = []
        self.dispatcher.describe().addBoth(answers.append)
        self.descriptions.append(answers)

    # What workers do, or what happens to them.

    @deed(lambda self: self.bootable(), number=ANY, performs=[0, 0, 0, 1])
    def boot(self, number: int, performs: int) -> None:
        """A worker says Hello; a few have other code."""
        self.boot_one(pick(self.bootable(), number), PERFORMS[performs])

    def boot_one(self, worker: FakeWorker, performs: str) -> None:
        """Have a worker say Hello."""
        if performs != self.performs:
            self.overtaken.clear()
        self.performs = performs
        self.spawner.boot(worker, performs)

    @deed(lambda self: self.bootable() or self.killed())
    def replace_all(self) -> None:
        """All that were killed are gone, and all that start say Hello."""
        for worker in self.killed():
            self.bury(worker)
        for worker in self.bootable():
            self.boot_one(worker, self.performs or PERFORMS[0])

    @deed(lambda self: self.answerable(), number=ANY, failed=BOTH, reusable=MOSTLY, empty=BOTH)
    def answer(self, number: int, failed: bool, reusable: bool, empty: bool) -> None:
        """A worker answers its job, perhaps because it was interrupted, or as its last."""
        worker = pick(self.answerable(), number)
        self.answer_of(worker, failed, reusable, boxes.END if empty and not failed else RESULT)

    @deed(lambda self: self.serving(), client=CLIENTS, number=ANY, reusable=MOSTLY, cancelled=BOTH)
    def stop_softly(self, client: int, number: int, reusable: bool, cancelled: bool) -> None:
        """Jobs that leave everything in order are stopped, and end by themselves."""
        if not self.running_softly():
            self.submit_for(self.clients[client], "Soft")
        for _ in range(number % 4):
            self.submit_for(pick(self.clients, number), "Stop")
        for worker in self.running_softly()[: 1 + number % 2]:
            assert worker.last is not None
            if not cancelled:
                self.advance(TIME_LIMIT)
            elif not worker.interrupts:
                self.cancel_job(worker.last)
            if worker in self.running_softly() and worker.interrupts:
                self.answer_of(worker, False, reusable, boxes.END)

    def answer_of(self, worker: FakeWorker, failed: bool, reusable: bool, body: bytes) -> None:
        """Have a worker answer its job, and see what becomes of both."""
        job = worker.job
        assert job is not None
        # One that is not reusable begins nothing.
        reusable = (reusable or worker.begun > 0) and not worker.ends_with_its_job
        killed = worker.killed is not None
        owner = self.owners[job.id]
        given_up = self.dispatcher.state.given_up is not None
        interrupted = (given_up or bool(worker.interrupts)) and job is worker.last
        why, stoppable = job.stopped_for, job.policy.stoppable
        told = len(owner.answers)
        if interrupted and not (reusable and not killed):
            self.costly.add(owner)
        self.spawner.answer(worker, failed, body, reusable=reusable)
        if interrupted and body == boxes.END and stoppable:
            assert job.state in (JobState.CANCELLED, JobState.TIMED_OUT), job
            assert owner.gone or (job, why) in owner.failures
            assert killed == (worker.killed is not None)
            may_go_on = self.dispatcher.is_idle(worker) or worker.job is not None
            assert may_go_on if reusable and not (killed or worker.stopping) else not may_go_on
        elif interrupted:
            assert worker.killed
            assert len(owner.answers) == told
        else:
            assert reusable or killed or worker.stopping
            assert job.state is (JobState.FAILED if failed else JobState.DONE)
            assert owner.gone or owner.answers[told][0] is job

    @deed(lambda self: self.reporting(), number=ANY, parts=BOTH)
    def report(self, number: int, parts: bool) -> None:
        """A worker tells news of its job."""
        worker = pick(self.reporting(), number)
        job = worker.job
        assert job is not None
        owner = self.owners[job.id]
        interrupted = bool(worker.interrupts)
        told = len(owner.reports)
        self.spawner.report(worker, parts=parts)
        if interrupted or owner.gone:
            assert len(owner.reports) == told
        else:
            assert owner.reports[told] == (job, b"\0\0", parts)
            if parts:
                self.sealed.setdefault(job, job.attempt)

    @deed(lambda self: self.eager(), number=ANY)
    def go_on(self, number: int) -> None:
        """A worker answers its job, unnoticed, and begins the next that it has prefetched."""
        self.go_on_with(pick(self.eager(), number))

    def go_on_with(self, worker: FakeWorker) -> None:
        """Have a worker go on, and see that it does not begin what has ended, as was told."""
        worker.go_on()
        if not worker.ended:
            assert worker.last is not None
            assert worker.last.state is JobState.PREFETCHED
            assert worker.last not in self.sealed

    @deed(lambda self: self.answerable(), number=ANY)
    def die_unread(self, number: int) -> None:
        """A worker dies before it has read its job."""
        worker = pick(self.answerable(), number)
        job = worker.job
        if job is None or worker.has_answered or job in self.sealed:
            return
        self.workers_of[job].pop()
        self.returned.add(job)
        self.overtaken.clear()  # a turn is given back
        self.bury(worker, unread=worker.boxes[-1])
        if job.attempt > len(self.workers_of[job]):
            assert worker.interrupts
            self.workers_of[job].append(worker)

    @deed(lambda self: self.eager(), number=ANY)
    def go_wrong(self, number: int) -> None:
        """A worker goes on, and writes garbage: its last answers do not count."""
        worker = pick(self.eager(), number)
        self.go_on_with(worker)
        worker.silenced = True
        worker.kill("wrote garbage to its pipe and was killed")

    @deed(lambda self: self.doomed(), number=ANY, by_client=BOTH)
    def cancel_doomed(self, number: int, by_client: bool) -> None:
        """A job that such a worker has begun is cancelled, or its client goes."""
        job = pick(self.doomed(), number)
        if by_client and not self.owners[job.id].gone:
            self.disconnect(self.clients.index(self.owners[job.id]))
        else:
            self.cancel_job(job)

    def bury(self, worker: FakeWorker, how: str = "died", *, unread: bytes = b"") -> None:
        """Have `worker` be gone, when the answers are read that it has written."""
        if not worker.performed:
            self.failed_at = self.clock.seconds()
        if worker.silenced:
            for job in worker.prefetched[: worker.begun]:
                self.workers_of.setdefault(job, []).append(worker)
        last = worker.last
        self.spawner.bury(worker, how, unread=unread)
        stopped = [last] if worker.interrupts and last is not None else []
        for job in (*stopped, *(() if unread else worker.given[-1:])):
            owner = self.owners[job.id]
            if not any(job is answered for answered, *_ in owner.answers):
                self.costly.add(owner)

    @deed(lambda self: self.spawner.workers, number=ANY)
    def die(self, number: int) -> None:
        """A worker dies, whatever it is about."""
        self.bury(pick(self.spawner.workers, number))

    @deed(lambda self: self.killed(), number=ANY)
    def die_as_told(self, number: int) -> None:
        """A worker that was killed is gone."""
        self.bury(pick(self.killed(), number))

    @deed(lambda self: self.leaving(), number=ANY)
    def leave(self, number: int) -> None:
        """A worker that was asked to stop is gone."""
        self.bury(pick(self.leaving(), number), "exited (status 0)")

    @deed(lambda self: self.serving(), number=ANY)
    def wear_out(self, number: int) -> None:
        """A worker has done enough."""
        self.supervisor.recycle_worker(pick(self.serving(), number), "it has done enough")

    @deed(lambda self: self.serving(), number=ANY, bytes_=[0, 60, 120])
    def grow(self, number: int, bytes_: int) -> None:
        """A worker has more memory than it may, or than is good, or less again."""
        pick(self.serving(), number).resident = bytes_

    @deed(lambda self: self.spawner.idle, number=ANY)
    def freeze(self, number: int) -> None:
        """A worker gives no sign of life any more."""
        pick(self.spawner.idle, number).when_pinged = None

    @deed(lambda self: self.spawner.busy, number=ANY)
    def die_at_work(self, number: int) -> None:
        """A worker dies of its job."""
        self.bury(pick(self.spawner.busy, number), "was killed by SIGSEGV")

    @deed(lambda self: self.reporting(), number=ANY)
    def die_after_a_part(self, number: int) -> None:
        """A worker dies when it has sent a part of its job's result."""
        worker = pick(self.reporting(), number)
        self.report(number, parts=True)
        self.bury(worker)

    @deed(lambda self: len(self.jobs) > 10, refused=BOTH)
    def refuse_processes(self, refused: bool) -> None:
        """The system has no room for another process, or has again."""
        self.spawner.refusal = OSError(11, "Resource temporarily unavailable") if refused else None
        self.failed_at = self.clock.seconds()

    # What the operator does, and the clock.

    @deed(seconds=[0, 0.1, 0.2, 0.5, 0.5, 1, 1, GRACE, 5, 10, 31, 61])
    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.late = False
        self.clock.advance(seconds)

    @deed(seconds=[0.1, 0.5, 5])
    def lag(self, seconds: float) -> None:
        """Time passes, and the reactor is too busy to notice."""
        self.late = True
        self.clock.rightNow += seconds

    @deed(lambda self: len(self.reloads) < 3)
    def reload(self) -> None:
        """The operator wants the workers replaced."""
        answers: list[object] = []
        self.reloads.append(answers)
        self.supervisor.reload().addBoth(answers.append)

    @deed(lambda self: len(self.reloads) < 3)
    def begin_reload(self) -> None:
        """The operator wants the workers replaced, and the new code takes time to prepare."""
        self.spawner.prompt = False
        self.reload()
        self.spawner.prompt = True

    @deed(broken=BOTH)
    def prepare(self, broken: bool) -> None:
        """The new code is prepared, if it is being, or cannot be."""
        self.spawner.prepare("no module named x" if broken else None)

    @deed(min_workers=range(4), more=range(4))
    def resize(self, min_workers: int, more: int) -> None:
        """The operator wants another number of workers."""
        self.supervisor.scale(min_workers, max(1, min_workers + more))

    @deed(lambda self: not self.drains, commands=several(PAUSABLE, 1, 3))
    def pause(self, commands: list[str]) -> None:
        """The operator pauses some commands, or everything."""
        self.paused.update({ALL} if ALL in commands else commands)
        self.see_paused(self.dispatcher.pause(named(commands)))

    @deed(lambda self: self.paused, commands=several(PAUSABLE, 1, 5))
    def resume(self, commands: list[str]) -> None:
        """The operator resumes some commands, or everything."""
        self.paused = set() if ALL in commands else self.paused - {*commands}
        self.overtaken.clear()
        self.see_paused(self.dispatcher.resume(named(commands)))

    def see_paused(self, paused: Paused) -> None:
        """See what is paused now; what is in a line of its own since has turns of its own."""
        assert paused == self.dispatcher.paused
        assert paused.all == (ALL in self.paused)
        assert paused.commands == {name.encode() for name in self.paused - {ALL}}
        self.overtaken.clear()

    @deed(lambda self: len(self.jobs) > 30 and len(self.drains) < 2, seconds=[0, 1, 60])
    def drain(self, seconds: float) -> None:
        """The server is told to stop, perhaps twice."""
        answers: list[object] = []
        self.drains.append(answers)
        if self.paused:
            self.paused.clear()
            self.overtaken.clear()
        self.dispatcher.drain(seconds).addBoth(answers.append)

    # What can be seen.

    def queued(self) -> list[Job]:
        """The jobs that wait, those included that workers have prefetched."""
        rows = self.dispatcher.state.assignments.jobs.values()
        return [*self.dispatcher.state.queue, *(job for row in rows for job in row[1:])]

    def startable(self, workers: Sequence[FakeWorker]) -> list[Job]:
        """The jobs that wait and would start if these workers were idle."""
        return self.startable_if(set().union(*(self.able_to(worker) for worker in workers)))

    def able_to(self, worker: FakeWorker) -> set[bytes]:
        """The commands that a worker could start if it was idle."""
        able = COMMANDS_OF[worker.performs]
        return able - ISOLATED[self.performs] if worker.given else able

    def startable_if(self, able: set[bytes]) -> list[Job]:
        """The jobs that wait and would start if some idle worker could start these commands."""
        begun = {job for worker in self.spawner.busy for job in worker.prefetched[: worker.begun]}
        able = able - self.full_types()
        return [
            job
            for job in self.queued()
            if job.rest_alarm is None
            and job not in begun
            and job.command in able
            and not self.is_paused(job)
            and self.owners[job.id] not in self.held
        ]

    def is_paused(self, job: Job) -> bool:
        """Whether operators have paused jobs like this one."""
        return ALL in self.paused or job.command.decode() in self.paused

    def running(self) -> list[tuple[FakeWorker, Job]]:
        """What runs where; what was stopped runs until its worker is gone, answer or not."""
        running = []
        for worker in self.spawner.workers:
            job = worker.job
            if job is None and worker.killed is not None:
                job = self.dispatcher.job_of(worker)
            if job is not None:
                running.append((worker, job))
        return running

    def full_types(self) -> set[bytes]:
        """The types of which as many jobs run as may."""
        running = Counter(job.command for _, job in self.running())
        limits = MOST_RUNNING[self.performs].items()
        return {command for command, most in limits if running[command] >= most}

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
        return [worker for worker in self.spawner.workers if worker.may_answer]

    def reporting(self) -> list[FakeWorker]:
        """The workers that may tell news of the job that they run as far as is known."""
        return [
            worker
            for worker in self.answerable()
            if worker.killed is None and not worker.has_answered
        ]

    def running_softly(self) -> list[FakeWorker]:
        """The workers that run a job which leaves everything in order when it is stopped."""
        return [
            worker
            for worker in self.reporting()
            if worker.job is not None and worker.job.command in STOPPABLE[worker.performs]
        ]

    def eager(self) -> list[FakeWorker]:
        """The workers that may answer unnoticed, and begin what they have prefetched."""
        return [worker for worker in self.answerable() if worker.may_go_on]

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
        if self.spawner.refusal is not None:
            self.failed_at = self.clock.seconds()
        worker.when_prefetching = lambda job: self.check_prefetched(worker, job)
        worker.when_beginning = lambda job: self.check_start(worker, job)
        worker.when_performing = lambda job: self.check_both(worker, job)

    def check_both(self, worker: FakeWorker, job: Job) -> None:
        """A job that is performed at once does so in its turn."""
        self.check_turn(worker, job)
        self.check_start(worker, job)
        isolated = ISOLATED[self.performs]
        if job.command in isolated:
            assert not worker.given, (worker.given, job)
        elif isolated and not worker.given:  # one that can do no more for isolated jobs goes first
            used = [other for other in self.spawner.idle if self.dispatcher.is_idle(other)]
            assert not any(other.given and job.command in self.able_to(other) for other in used)

    def check_prefetched(self, worker: FakeWorker, job: Job) -> None:
        """A job is prefetched in its turn, and neither before nor behind an isolated one."""
        self.check_turn(worker, job)
        assert not worker.ends_with_its_job
        assert not self.is_paused(job)
        assert job.command not in ISOLATED[self.performs]

    def check_start(self, worker: FakeWorker, job: Job) -> None:
        """A job that starts may do so, and nowhere else."""
        owner = self.owners[job.id]
        assert worker.begun or not owner.gone
        assert worker.begun or owner not in self.held
        assert worker.begun or job.box
        assert worker.begun or job not in self.sealed
        assert worker.begun or not self.is_paused(job)
        assert worker.begun or not self.dispatcher.state.quarantine.seconds_left(
            job.command, self.clock.seconds()
        )
        assert worker.begun or job.command not in self.full_types()
        earlier = self.workers_of.setdefault(job, [])
        assert all(other.dead for other in earlier)
        earlier.append(worker)
        assert job.command in COMMANDS_OF[worker.performs]

    def check_turn(self, worker: FakeWorker, job: Job) -> None:
        """A job that is given to a worker, perhaps prefetched, is the one whose turn it is."""
        now, owner = self.clock.seconds(), self.owners[job.id]
        assert job.deadline is None or now < job.accepted_at + job.deadline
        startable = [other for other in self.startable([worker]) if other.worker is None]
        # What was reclaimed keeps the turn that it had, perhaps some rounds later than this one.
        had = {self.owners[other.id] for other in startable if other in self.had_turn}
        ready = {self.owners[other.id] for other in startable} - had
        for useless in self.queued():
            if self.dispatcher.state.quarantine.seconds_left(useless.command, now):
                ready.discard(self.owners[useless.id])  # it has used its turn
        if self.reclaimed != (reclaimed := self.reclaims()):
            self.reclaimed = reclaimed
            self.overtaken.clear()  # turns were given back
        self.was_wary = self.was_wary or self.dispatcher.is_wary
        if self.was_wary:
            return
        if self.late or self.killed():
            self.overtaken.clear()  # jobs that are out of time, or being stopped, use turns
        if self.dispatcher.state.registry.partial:
            self.overtaken.clear()  # there are several rows now, one for each kind of worker
        for key in list(self.overtaken):
            if key[0] is owner or key[0] not in ready:
                del self.overtaken[key]
        others = {self.owners[each.id] for _, each in self.running() if each is not job}
        had_before = Counter(  # those who have these may have had turns before their time
            self.owners[each.id]
            for busy in self.spawner.busy
            for each in (busy.job, *busy.prefetched)
            if each is not None
        )
        given_back = sum(  # turns of what was reclaimed, which a more urgent job may have
            self.owners[other.id] is owner and other in self.had_turn for other in startable
        )
        again = job in self.had_turn  # it was reclaimed since, or is tried again
        self.had_turn.add(job)
        for other in ready:
            if other is owner or again:
                continue
            if others != {other}:  # who runs all the others lets others by
                key = other, owner
                times, early = self.overtaken.get(key, (0, 0))
                early = max(early, had_before[other])
                self.overtaken[key] = times + 1, early
                late = 2 * (owner in self.ever_held)  # its turns are those of an earlier round
                assert times < 2 + late + given_back + early, (job, key)
        above = [
            other
            for other in startable
            if self.owners[other.id] is owner and other.priority < job.priority
        ]
        aged = (  # one gives its whole lane a turn
            self.owners[old.id] is owner and now - old.accepted_at >= AGEING for old in self.jobs
        )
        assert not above or any(aged), (job, above)

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

    # The promises when a client is told.

    def see_told(self, client: FakeClient, job: Job) -> None:
        """Whoever is told of an outcome finds the state whole; an answer is told when it comes."""
        assert_whole(self.dispatcher)
        if client.answers and client.answers[-1][0] is job:
            assert self.spawner.answering, job
            assert self.spawner.answering[-1] is job

    # The promises after each step.

    def promises_hold(self) -> None:
        """All the promises that hold between two events."""
        assert not self.failures, self.failures[0]["log_failure"].getTraceback()
        assert_whole(self.dispatcher)
        self.every_job_is_in_one_place()
        self.every_end_is_told_once()
        self.what_is_out_of_time_is_stopped()
        self.only_parts_are_held_back()
        self.paused_jobs_ask_for_no_worker()
        self.no_worker_is_idle_while_a_job_may_start()
        self.no_used_worker_keeps_out_a_new_one()
        self.more_urgent_go_before_prefetched()
        self.nobody_owes_for_nothing()
        self.bounds_hold()
        for answers in self.drains:  # each ends once, with the last job, and not before
            assert answers == ([] if self.dispatcher.waiting + self.dispatcher.running else [None])

    def every_job_is_in_one_place(self) -> None:
        """A job was refused, waits, runs on exactly one worker, or has ended; and no other way."""
        counters = self.dispatcher.counters
        assert counters.accepted + counters.refused == len(self.jobs)
        waiting = {job.id for job in self.queued()}
        running = [job for _, job in self.running()]
        assert len(running) == self.dispatcher.running
        for worker, job in self.running():
            assert self.dispatcher.job_of(worker) is job
            assert job.state is JobState.RUNNING
        for job in self.open:
            places = [
                job.id in self.refused,
                job.id in waiting and job.state in (JobState.QUEUED, JobState.PREFETCHED),
                job in running,
                job.state in END_STATES,
            ]
            assert places.count(True) == 1, (job, places)
            workers = self.workers_of.get(job, [])
            assert job.attempt == len(workers), (job, job.attempt, workers)
            assert job.attempt <= MOST_ATTEMPTS.get(job.command, 1)
            lost = [(attempt.pid, bool(attempt.ended_for)) for attempt in job.attempts]
            assert lost == [(worker.pid, True) for worker in workers[: len(lost)]]
            assert job.state is not JobState.RUNNING or len(lost) == job.attempt - 1
            if job in self.sealed:
                assert job.attempt + self.is_begun(job) == self.sealed[job], job
            if job in self.stopped:
                assert job.state in (JobState.RUNNING, JobState.CANCELLED) or self.is_begun(job)

    def every_end_is_told_once(self) -> None:
        """A client is told of the end of each of its jobs, once, and of nothing when it is gone.

        To tell it twice, or when it is gone, is an error of the client's.
        """
        for job in self.open:
            if job.state in END_STATES or job.id in self.refused:
                owner = self.owners[job.id]
                assert owner.gone or job.id in owner.told, job
                if job.id not in self.refused:
                    self.see_reason(job, owner)
            else:
                assert job.id not in self.owners[job.id].told, job
        self.open = [
            job for job in self.open if not (job.state in END_STATES or job.id in self.refused)
        ]

    def see_reason(self, job: Job, owner: FakeClient) -> None:
        """Nobody pays for others: what ends without an answer has a reason of its own."""
        errors = [error for failed, error in owner.failures if failed is job]
        workers = self.workers_of.get(job)
        killed_for = workers[-1].killed if workers else None
        given_up = self.dispatcher.state.given_up is not None
        if job.state is JobState.DONE:
            assert not errors
        elif job.state is JobState.CANCELLED:
            unread = job.wants_chunks and owner in self.ever_held
            assert job in self.cancelled or owner.gone or given_up or unread, job
            if job in self.withdrawn and errors:
                assert "by an operator" in str(errors[0])
        elif job.state is JobState.TIMED_OUT:
            assert job.deadline is not None or job.command in TIMED, job
        elif job.state is JobState.LOST:
            assert workers, job
            assert killed_for is None or not killed_for.startswith(RULES_KILL), (job, killed_for)
        else:
            assert all(isinstance(error, (NoWorkers, UnhandledCommand)) for error in errors), job
        assert job.state is JobState.LOST or not any(isinstance(e, WorkerLost) for e in errors)

    def what_is_out_of_time_is_stopped(self) -> None:
        """What is out of time does not wait or run on, and what is being stopped is killed."""
        now = self.clock.seconds()
        for worker in self.spawner.busy:
            if worker.interrupts and worker.last:
                self.interrupted.setdefault(worker.last, now)
        if self.late:
            return
        for job in self.queued():
            assert (
                job.deadline is None or self.is_begun(job) or now < job.accepted_at + job.deadline
            )
        for worker in self.spawner.busy:
            last = worker.last
            assert last is not None
            if worker.killed is not None:
                continue
            if worker.interrupts:
                assert now < self.interrupted[last] + GRACE
                continue
            if last.deadline is not None:
                assert now < last.accepted_at + last.deadline
            if last.command in TIMED and not worker.begun:
                assert now < last.started_at + TIME_LIMIT

    def only_parts_are_held_back(self) -> None:
        """A worker's output is held back exactly while its job's client does not read parts."""
        for worker in self.spawner.busy:
            if worker.job is not None and worker.killed is None:
                held = self.owners[worker.job.id] in self.held
                waits = held and worker.job.wants_chunks and not worker.interrupts
                assert worker.paused == waits, worker
        assert not any(worker.paused for worker in self.spawner.idle)

    def paused_jobs_ask_for_no_worker(self) -> None:
        """Paused jobs are not prefetched, and nobody asks for workers for them."""
        paused = [job for job in self.queued() if self.is_paused(job) and not self.is_begun(job)]
        assert all(job.state is JobState.QUEUED for job in paused), paused
        rests = sum(job.rest_alarm is not None for job in paused)
        assert self.dispatcher.seeking == self.dispatcher.waiting - len(paused) + rests

    def no_worker_is_idle_while_a_job_may_start(self) -> None:
        """No worker is idle while a job waits that may start; but one may be kept for others."""
        idle = self.spawner.idle
        assert self.dispatcher.idle == len(idle)
        if self.dispatcher.is_wary and (len(idle) == 1 or self.dispatcher.state.queue.aside):
            return  # what stands back waits behind its client's first job, which may not start
        assert not (idle and self.startable(idle))

    def no_used_worker_keeps_out_a_new_one(self) -> None:
        """While a worker is idle in vain for a job that needs an unused one, one is started."""
        isolated = ISOLATED[self.performs]
        if not (isolated and self.spawner.idle) or self.dispatcher.is_wary or self.may_not_start():
            return
        assert self.spawner.starting or not self.startable_if(isolated)

    def may_not_start(self) -> bool:
        """Whether no worker may be started now, or one may be started in this turn."""
        now = self.clock.seconds()
        return (
            self.spawner.refusal is not None
            or now - self.failed_at <= LONGEST_DELAY
            or any(call.getTime() <= now for call in self.clock.getDelayedCalls())
            or len(self.supervisor.records) >= self.supervisor.most_processes
        )

    def nobody_owes_for_nothing(self) -> None:
        """Whose jobs have cost no worker, and do not now, leaves the last one to nobody."""
        if not self.dispatcher.is_wary:
            return
        costly = self.costly | {
            self.owners[job.id]
            for worker, job in self.running()
            if worker.interrupts or worker.killed is not None
        }
        wariness = self.dispatcher.admission.wariness
        for client in self.clients:
            if client not in costly:
                assert not wariness.stands_back(make_job(client), self.clock.seconds()), client

    def more_urgent_go_before_prefetched(self) -> None:
        """What a worker has prefetched, and not begun, is the most urgent that its client has.

        Except once jobs have stood back.
        """
        if self.was_wary:
            return
        for worker in self.answerable():
            if worker.begun == len(worker.prefetched):
                continue
            ready = [job for job in self.startable([worker]) if job.worker is None]
            for job in worker.prefetched[worker.begun :]:
                owner = self.owners[job.id]
                above = [
                    other
                    for other in ready
                    if other.priority < job.priority and self.owners[other.id] is owner
                ]
                assert not above, (job, above)

    def bounds_hold(self) -> None:
        """Neither jobs nor workers are more than may be, nor workers fewer without a reason."""
        queued = self.queued()
        fresh = [job.size for job in queued if not job.attempt and job not in self.returned]
        # The worker that was idle when a job was accepted may go to one that stood back, and waited
        # beyond the bounds since it is tried again.
        beyond = [job.size for job in self.jobs if job.attempt > 1] if self.was_wary else []
        assert len(fresh) <= self.dispatcher.admission.max_queued + len(beyond)
        assert sum(fresh) <= self.dispatcher.admission.max_queued_bytes + sum(beyond)
        alarms = [getattr(job, name) for job in self.open for name in ALARMS]
        others = self.dispatcher.state.alarms.pending - (len(alarms) - alarms.count(None))
        assert 0 <= others <= OTHER_ALARMS, "an alarm is left for what has ended"
        if not self.quarantine_after:
            for client in self.clients:
                assert not any("in a row" in str(error) for _, error in client.failures)
        records = self.supervisor.records
        assert set(records) == set(self.spawner.workers)
        assert all(records[worker].released for worker in self.leaving())
        working = [
            worker
            for worker in self.spawner.workers
            if not (records[worker].released or records[worker].doomed)
        ]
        self.ceiling = max(self.supervisor.max_workers, min(self.ceiling, len(working) - 1))
        assert len(working) <= self.ceiling + 1  # a replacement comes before the old one goes
        assert len(records) <= max(self.supervisor.most_processes, self.processes)
        self.processes = len(records)
        starting = sum(record.starting for record in records.values())
        assert starting <= STARTS_AT_ONCE
        if not (self.may_not_start() or starting == STARTS_AT_ONCE):
            assert self.supervisor.size >= self.supervisor.min_workers

    def come_to_an_end(self) -> None:
        """Nothing is left to be done in the end, not even if no worker can be started any more."""
        self.refuse_processes(self.ends_badly)
        for worker in self.spawner.workers:
            worker.resident = 0
        self.advance(0)
        for client in self.clients:
            client.when_told = client.when_reported = None
            self.held.discard(client)
            self.forget_turns(client)
            self.dispatcher.release(client)
        self.resume([ALL])
        self.describe()
        self.spawner.prepare()
        self.do_what_is_left()
        self.refuse_processes(False)
        self.do_what_is_left()
        assert all(len(answers) == 1 for answers in self.descriptions + self.reloads)
        self.advance(10)  # whatever is in quarantine is free again
        if self.spawner.idle and not self.drains:
            self.submit_for(self.clients[0], "Stop", Priority.LOW)  # as good as new
            assert self.spawner.answer(self.spawner.busy[0]) is self.jobs[-1]
        self.promises_hold()
        assert not self.open
        self.supervisor.stop()
        if not self.drains:
            self.drain(1)
        assert self.drains == [[None]] * len(self.drains)
        assert self.clock.getDelayedCalls() == []

    def do_what_is_left(self) -> None:
        """Have workers start, unless they cannot, and answer, until nothing is left to be done."""
        for _ in range(400):
            if self.bootable() and self.spawner.refusal is not None:
                self.bury(self.bootable()[0])
            elif self.bootable():
                self.boot(0, 0)
            elif self.answerable():
                self.answer(0, False, True, True)
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
            self.promises_hold()
        assert self.dispatcher.waiting == self.dispatcher.running == 0


def steps_of(seed: int) -> list[int]:
    """The steps of the history with this seed."""
    chance = random.Random(seed)
    return [chance.getrandbits(32) for _ in range(STEPS)]


def tell(seed: int, steps: Sequence[int]) -> RulesMachine:
    """Tell a history; raises if a promise does not hold, with the story."""
    machine = RulesMachine(seed)
    try:
        for number in steps:
            machine.take_step(number)
        machine.story.append("and all comes to its end")
        machine.come_to_an_end()
    except BaseException as error:
        error.add_note("\n".join(["The story so far:", *machine.story]))
        raise
    finally:
        globalLogPublisher.removeObserver(cast("ILogObserver", machine.note_failure))
    return machine


def fails(seed: int, steps: Sequence[int]) -> bool:
    """Whether a promise does not hold in this history."""
    try:
        tell(seed, steps)
    except Exception:  # noqa: BLE001 - whatever it is
        return True
    return False


def shortened(seed: int, steps: list[int]) -> list[int]:
    """A history that fails, with as many of its steps left out as can be found quickly."""
    tries, size = 0, len(steps) // 2
    while size and tries < TRIES:
        for start in range(len(steps) - size, -1, -size):
            tries += 1
            if fails(seed, less := steps[:start] + steps[start + size :]):
                steps = less
        size //= 2
    return steps


def tell_or_shorten(seed: int) -> int:
    """Tell a history; how many jobs it had. If it fails, a shorter one is told that does, too."""
    steps = steps_of(seed)
    try:
        return len(tell(seed, steps).jobs)
    except Exception:
        tell(seed, shortened(seed, steps))
        raise


def soak(seconds: float, first_seed: int) -> None:
    """Try new histories for so long, and so many at least; a failure says which seed made it."""
    end = time.monotonic() + seconds
    jobs = 0
    for count, seed in enumerate(itertools.count(first_seed), 1):
        try:
            jobs += tell_or_shorten(seed)
        except BaseException:
            print(f"to see it again: make soak DANGAD_SOAK_SEED={seed}")
            raise
        if time.monotonic() > end and count >= SOAK_HISTORIES:
            print(f"{count} histories, {jobs} jobs, from seed {first_seed} on: the promises hold")
            return


SOAK_SECONDS = float(os.environ.get("DANGAD_SOAK_SECONDS") or 0)
SOAK_HISTORIES = 2000
SOAK_SEED = int(os.environ.get("DANGAD_SOAK_SEED") or random.SystemRandom().getrandbits(32))


class RulesTests(unittest.TestCase):
    def test_promises(self) -> None:
        """Whatever happens, in whatever order, the promises of the design hold."""
        if SOAK_SECONDS:
            soak(SOAK_SECONDS, SOAK_SEED)
        else:
            for seed in range(HISTORIES):
                tell_or_shorten(seed)
