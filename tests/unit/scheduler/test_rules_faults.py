"""Each call that leaves the rules raises in turn: whom may that cost anything?

Random histories of dispatcher and supervisor, each told again with an exception at one call out
of them, before the call has done anything or after it has done it all. Whoever the call was to
may pay: a client with its connection, a worker with its life. Nobody else may notice.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler import joblog as joblog_module
from dangad.scheduler import retries as retries_module
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.record import END_STATES, Job, JobState
from dangad.scheduler.supervisor import Supervisor
from dangad.scheduler.workerrecord import RecycleLimits
from dangad.wire.values import Priority
from tests.fakes import FakeClient, FakeSpawner, FakeWorker, catalogue, make_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.logger import ILogObserver, LogEvent

PERFORMS = [
    catalogue(
        "Echo",
        Finish={"on_disconnect": "finish"},
        Timed={"time_limit": 3.0},
        Again={"retries": 2},
        Few={"max_running": 1},
    ),
    catalogue("Echo", Timed={"time_limit": 2.0}, Few={"max_running": 2}, Again={"retries": 1}),
]
COMMANDS = [*["Echo"] * 4, "Timed", "Again", "Few", "Finish"]
CLIENT_CALLS = ("deliver", "report", "fail")
WORKER_CALLS = (
    *("give", "reclaim", "interrupt"),
    *("pause", "resume", "kill"),
)
PROCESS_CALLS = ("stop", "ping", "memory", "has_read")
OTHER_CALLS = (
    *("demand", "worker_released", "spawn"),
    *("callLater", "cancel", "info", "warn", "emit"),
)
STEPS = 80
HISTORIES = 2
"""Histories for each call, and moment: more are for who changes the rules."""


class Trouble(Exception):
    """What is raised."""


class Fuse:
    """Counts the calls out of the rules by name, and has one of them raise.

    :ivar counts: how many there were.
    :ivar blown: whom the one that raised was to; None before.
    :ivar name: which raises; `number` which of these, `late` whether when it is done.
    """

    def __init__(self, name: str, number: int, late: bool) -> None:
        """Have call `number` of that name raise: when it is done, if `late`."""
        self.counts: dict[str, int] = {}
        self.blown: object = None
        self.name = name
        self.number = number
        self.late = late

    def guard(self, whom: object, *names: str) -> None:
        """Count calls of these methods of `whom`."""
        for name in names:
            setattr(whom, name, self.wire(whom, name, getattr(whom, name)))

    def wire(self, whom: object, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, counted."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.counts[name] = count = self.counts.get(name, 0) + 1
            blows = name == self.name and count >= self.number and self.blown is None
            if not blows:
                return call(*args, **kwargs)
            self.blown = whom
            if self.late:
                call(*args, **kwargs)
            raise Trouble(f"{name} of {whom}")

        return counted


class GuardedClock(Clock):
    """A clock of which each call, and each cancellation of one, is counted."""

    fuse: Fuse

    def callLater(self, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`IReactorTime.callLater`."""
        set_call = super().callLater

        def guarded() -> Any:
            call = set_call(*args, **kwargs)
            self.fuse.guard(call, "cancel")
            return call

        return self.fuse.wire(self, "callLater", guarded)()


class Story:
    """One history, in which one call raises."""

    def __init__(self, seed: int, fuse: Fuse) -> None:
        self.chance = random.Random(seed)
        self.fuse = fuse
        self.clock = GuardedClock()
        self.clock.fuse = Fuse("", 0, False)  # until all is set up
        self.clock.advance(1000)
        self.dispatcher = Dispatcher(
            self.clock, 40, quarantine_after=4, chance=random.Random(seed), log_jobs="all"
        )
        self.supervisor = Supervisor(self.clock, self.dispatcher, 2, 3, 0, RecycleLimits(age=60.0))
        self.spawner = FakeSpawner(self.supervisor, self.dispatcher)
        self.spawner.when_spawned = lambda worker: fuse.guard(worker, *WORKER_CALLS, *PROCESS_CALLS)
        fuse.guard(self.spawner, "spawn")
        self.supervisor.start(self.spawner)
        fuse.guard(self.supervisor, "demand", "worker_released")
        self.clock.fuse = fuse
        self.everybody: list[FakeClient] = []
        self.clients = [self.connect() for _ in range(3)]
        self.jobs: list[Job] = []
        self.owners: dict[int, FakeClient] = {}
        self.failures: list[LogEvent] = []

    def connect(self) -> FakeClient:
        """A new client, which may do something whenever it is told of a job."""
        client = FakeClient(f"client {len(self.everybody)}")
        self.everybody.append(client)
        client.when_told = lambda _: self.react(client)
        self.fuse.guard(client, *CLIENT_CALLS)
        return client

    def react(self, client: FakeClient) -> None:
        """The client is told of a job."""
        if self.chance.random() < 0.2 and not client.gone:
            self.submit(client)
            mine = [job for job in self.jobs[-20:] if self.owners[job.id] is client]
            self.dispatcher.cancel(self.chance.choice(mine))

    def submit(self, client: FakeClient) -> None:
        """The client submits a job, unless it was cut off."""
        if client.gone:
            return
        job = make_job(
            client,
            self.chance.choice(COMMANDS),
            self.chance.choice([Priority.HIGH, *[Priority.NORMAL] * 4, Priority.LOW]),
            deadline=self.chance.choice([None, None, 0.5, 5.0]),
            wants_chunks=self.chance.random() < 0.15,
        )
        self.jobs.append(job)
        self.owners[job.id] = client
        self.dispatcher.submit(job)

    # What may happen.

    def rush(self) -> None:
        """A client submits a few jobs, after some that were short."""
        client = self.chance.choice(self.clients)
        for worker in self.spawner.idle[:1] * 8:
            if worker.idle:
                self.submit(client)
                if worker.may_answer:
                    self.spawner.answer(worker)
        for _ in range(self.chance.randint(1, 6)):
            self.submit(client)

    def cancel(self) -> None:
        """Some job recently is cancelled."""
        if self.jobs:
            self.dispatcher.cancel(self.chance.choice(self.jobs[-15:]))

    def leave(self) -> None:
        """A client goes, and another comes."""
        self.end_connection(self.chance.randrange(3))

    def end_connection(self, number: int) -> None:
        """The connection of a client is closed."""
        self.clients[number].gone = True
        self.dispatcher.client_gone(self.clients[number])
        self.clients[number] = self.connect()

    def hold(self) -> None:
        """A client stops to read."""
        self.dispatcher.hold(self.chance.choice(self.clients))

    def release(self) -> None:
        """A client reads again."""
        self.dispatcher.release(self.chance.choice(self.clients))

    def pause(self) -> None:
        """An operator pauses a command, or everything."""
        command = self.chance.choice([*COMMANDS, None])
        self.dispatcher.pause(None if command is None else [command.encode()])

    def resume(self) -> None:
        """An operator resumes everything, or cancels a job."""
        if self.jobs and self.chance.random() < 0.3:
            self.dispatcher.cancel_by_operator(self.chance.choice(self.jobs[-15:]))
        else:
            self.dispatcher.resume(None)

    def answering(self) -> list[FakeWorker]:
        """The workers of which an answer can be read."""
        return [worker for worker in self.spawner.workers if worker.may_answer]

    def answer(self) -> None:
        """An answer is read, perhaps of a worker that is then to go."""
        if workers := self.answering():
            worker = self.chance.choice(workers)
            reusable = worker.begun > 0 or self.chance.random() < 0.9
            self.spawner.answer(worker, self.chance.random() < 0.2, reusable=reusable)

    def report(self) -> None:
        """A worker tells news of its job."""
        workers = [w for w in self.answering() if not w.has_answered and w.killed is None]
        if workers:
            self.spawner.report(self.chance.choice(workers), parts=self.chance.random() < 0.5)

    def go_on(self) -> None:
        """A worker answers its job, unnoticed, and begins the next that it has prefetched."""
        for worker in self.answering():
            if worker.may_go_on and self.chance.random() < 0.8:
                worker.go_on()

    def boot(self) -> None:
        """All that start say Hello; a few have other code."""
        for worker in [w for w in self.spawner.starting if w.killed is None]:
            self.spawner.boot(worker, self.chance.choice([*PERFORMS[:1] * 6, PERFORMS[1]]))

    def die(self) -> None:
        """A worker dies at its work."""
        if workers := self.spawner.busy:
            self.bury(self.chance.choice(workers))

    def bury(self, worker: FakeWorker) -> None:
        """A worker is gone, when the answers are read that it had written."""
        read = worker.has_answered or not worker.boxes or self.chance.random() < 0.8
        self.spawner.bury(worker, unread=b"" if read else worker.boxes[-1])

    def bury_all(self) -> None:
        """All are gone that were killed, or were to stop."""
        for worker in list(self.spawner.workers):
            if worker.killed is not None or worker.stopping:
                self.bury(worker)

    def wait(self) -> None:
        """Time passes."""
        self.clock.advance(self.chance.choice([0.0, 0.1, 0.5, 1.0, 2.0]))

    def tell(self) -> None:
        """Tell the whole history, and see that all holds after each step."""
        deeds = [
            *[self.rush] * 6,
            *[self.answer] * 8,
            *[self.go_on, self.boot, self.bury_all, self.wait] * 2,
            *[self.cancel, self.report, self.hold, self.release, self.leave, self.die],
            *[self.pause, self.resume, self.resume],
        ]
        for _ in range(STEPS):
            self.chance.choice(deeds)()
            self.notice_aborts()
            self.check()
        self.finish()

    def notice_aborts(self) -> None:
        """Connections that were cut off are closed."""
        for number, client in enumerate(self.clients):
            if client.aborted:
                self.end_connection(number)

    def finish(self) -> None:
        """The server drains, and ends, whatever has happened."""
        for client in self.clients:
            client.when_told = None
            self.dispatcher.release(client)
        drained: list[object] = []
        self.dispatcher.drain(30.0).addBoth(drained.append)
        for _ in range(400):
            self.notice_aborts()
            if drained:
                break
            self.boot()
            for worker in self.answering():
                self.spawner.answer(worker)
            self.bury_all()
            self.clock.advance(0.5)
            self.check()
        self.bury_all()  # one may have been killed in the last step
        assert drained == [None], (
            drained,
            self.dispatcher.state.assignments.jobs,
            list(self.dispatcher.state.queue),
        )
        refused = self.refused()
        for job in self.jobs:
            assert job.state in END_STATES or job.id in refused, job
        self.supervisor.stop()

    # What must hold.

    def refused(self) -> set[int]:
        """The jobs that never came in."""
        inside = {id(job) for job in self.waiting()} | {
            id(job) for job in self.dispatcher.state.assignments.running()
        }
        return {
            job.id for job in self.jobs if job.state is JobState.QUEUED and id(job) not in inside
        }

    def waiting(self) -> list[Job]:
        """The jobs that wait."""
        rows = self.dispatcher.state.assignments.jobs.values()
        return [*self.dispatcher.state.queue, *(job for row in rows for job in row[1:])]

    def check(self) -> None:
        """The scheduler is whole."""
        dispatcher = self.dispatcher
        waiting, running = self.waiting(), list(dispatcher.state.assignments.running())
        assert len(set(waiting)) == len(waiting) == dispatcher.waiting
        assert not set(waiting) & set(running)
        assert {job.state for job in waiting} <= {JobState.QUEUED, JobState.PREFETCHED}
        assert dispatcher.state.queue.size + dispatcher.state.assignments.size == sum(
            job.size for job in waiting
        )
        counters = dispatcher.counters
        assert counters.accepted == sum(counters.ended.values()) + len(waiting) + len(running)
        assert counters.accepted + counters.refused == len(self.jobs)
        refused = self.refused()
        assert counters.refused == len(refused)
        for worker in dispatcher.state.assignments.jobs:
            assert worker in self.spawner.workers, worker
        for worker in self.spawner.workers:
            idle = dispatcher.is_idle(worker)
            assert not (idle and dispatcher.job_of(worker)), worker
            served = self.supervisor.records[worker].serves and worker.killed is None
            assert idle or dispatcher.job_of(worker) or not served, worker
            assert worker.idle or not idle, worker
        told = Counter(
            job for client in self.everybody for job, *_ in [*client.answers, *client.failures]
        )
        for job in self.jobs:
            ended = job.state in END_STATES or job.id in refused
            assert told[job] == ended or (self.owners[job.id].gone and not told[job]), job
        if not self.fuse.blown:
            may_start: list[Job] = []

            def look(job: Job) -> bool:
                may_start.append(job)
                return False

            dispatcher.state.queue.pop_prefetch(-1.0, look)
            assert not (dispatcher.idle and may_start)


class FaultTests(SynchronousTestCase):
    """See the module."""

    def tell(self, seed: int, fuse: Fuse) -> Story:
        """Tell a history, with all failures that were logged in it."""
        failures: list[LogEvent] = []

        def note(event: LogEvent) -> None:
            if "log_failure" in event:
                failures.append(event)

        observer = cast("ILogObserver", note)
        globalLogPublisher.addObserver(observer)
        try:
            with (
                mock.patch.object(retries_module, "log", self.guarded_log(fuse)),
                mock.patch.object(joblog_module, "log", self.guarded_log(fuse)),
            ):
                story = Story(seed, fuse)
                story.failures = failures
                story.tell()
        except BaseException:
            print(f"seed {seed}, {fuse.name} {fuse.number}, late {fuse.late}: {fuse.blown}")
            raise
        finally:
            globalLogPublisher.removeObserver(observer)
        self.flushLoggedErrors()
        return story

    def guarded_log(self, fuse: Fuse) -> Any:
        """A log of which each line is counted."""
        log = mock.Mock(spec=["info", "warn", "emit"])
        fuse.guard(log, "info", "warn", "emit")
        return log

    def raise_at_each(self, *names: str) -> None:
        """Tell histories in which each call of these names raises, now here and now there."""
        for seed in range(HISTORIES):
            plain = Fuse("", 0, False)
            self.assertEqual(self.tell(seed, plain).failures, [])
            for name in names:
                count = plain.counts.get(name, 0)
                for late in (False, True):
                    number = random.Random(f"{seed} {name} {late}").randint(1, max(1, count))
                    with self.subTest(seed=seed, call=name, number=number, late=late):
                        self.see(self.tell(seed, Fuse(name, number, late)), name)

    def see(self, story: Story, name: str) -> None:
        """Only whoever the call was to has paid, and it is in the log, once, with its job."""
        blown = story.fuse.blown
        failures = [
            event["log_failure"]
            for event in story.failures
            # One that gave back jobs, and raised then, has no more what it is thought to have.
            if name != "reclaim" or event["log_failure"].type is not AssertionError
        ]
        self.assertEqual([failure.type for failure in failures], [Trouble] * bool(blown), failures)
        cut = [client for client in story.everybody if client.aborted]
        self.assertEqual(cut, [blown] if name in CLIENT_CALLS and blown else [])
        if blown and name in CLIENT_CALLS + WORKER_CALLS:
            self.assertIn(story.failures[0]["job"], story.owners)
        if isinstance(blown, FakeWorker):
            self.assertTrue(blown.dead or blown.killed)

    def test_clients(self) -> None:
        """A client that cannot be told of a job loses its connection; that is all."""
        self.raise_at_each(*CLIENT_CALLS)

    def test_workers(self) -> None:
        """A worker that cannot be spoken to is killed; that is all."""
        self.raise_at_each(*WORKER_CALLS, *PROCESS_CALLS)

    def test_others(self) -> None:
        """The supervisor, the clock and the log may fail; no connection is lost for it."""
        self.raise_at_each(*OTHER_CALLS)
