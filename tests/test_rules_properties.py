"""The rules under random histories: dispatcher and workforce together, with all that may happen.

Everything outside them is a stand-in that complains of an illegal order of calls, and after
each step the promises of the design are checked.
"""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from twisted.internet.task import Clock

from dangad.dispatcher import Dispatcher
from dangad.jobrecord import END_STATES, Job, JobState, Priority
from dangad.workforce import LONGEST_DELAY, Workforce
from tests.fakes import FakeClient, FakeHatchery, FakeWorker, catalogue, make_job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    T = TypeVar("T")

COMMANDS = ["Stop", "Finish", "Nope"]
PERFORMS = [catalogue("Stop", Finish={"on_disconnect": "finish"}), catalogue("Stop")]
CLIENTS = st.integers(0, 2)
ANY = st.integers(0, 999)


def pick(things: Sequence[T], number: int) -> T:
    """One of `things`."""
    return things[number % len(things)]


class RulesMachine(RuleBasedStateMachine):
    """A server without sockets and processes, and all that may happen to it.

    `jobs` are all that were submitted, and `refused` those of them that were turned away;
    `sealed` has the jobs that must not start (any more), with how often they had; `held` the
    clients on hold, with how many of their jobs had started when the hold began; `stopped` the
    running jobs that were cancelled; `drains` are the drains that were asked for, with the
    answers that each gave.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.clock.advance(1000)
        self.clients = [self.new_client() for _ in range(3)]
        self.held: dict[FakeClient, int] = {}
        self.stopped: set[Job] = set()
        self.jobs: list[Job] = []
        self.owners: dict[int, FakeClient] = {}
        self.refused: set[int] = set()
        self.sealed: dict[Job, int] = {}
        self.drains: list[list[object]] = []
        self.descriptions: list[list[object]] = []

    @initialize(
        min_workers=st.integers(0, 2), more=st.integers(0, 2), max_queued=st.sampled_from([0, 2, 6])
    )
    def start(self, min_workers: int, more: int, max_queued: int) -> None:
        """Put the server together, and start it."""
        self.dispatcher = Dispatcher(self.clock, max_queued)
        self.workforce = Workforce(
            self.clock, self.dispatcher, min_workers, max(1, min_workers + more)
        )
        self.hatchery = FakeHatchery(self.workforce, self.dispatcher)
        self.workforce.start(self.hatchery)

    def new_client(self) -> FakeClient:
        """Somebody who has just connected."""
        return FakeClient(f"client {len(getattr(self, 'owners', ()))}")

    # What clients do.

    @rule(client=CLIENTS, command=st.sampled_from(COMMANDS), priority=st.sampled_from(Priority))
    def submit(self, client: int, command: str, priority: Priority) -> None:
        """A client submits a job."""
        self.submit_for(self.clients[client], command, priority)

    def submit_for(self, client: FakeClient, command: str, priority: Priority) -> None:
        """Submit a job, and see that it is accepted or refused as it must be."""
        job = make_job(client, command, priority)
        self.jobs.append(job)
        self.owners[job.id] = client
        draining, before = bool(self.drains), self.dispatcher.tally.refused
        self.dispatcher.submit(job)
        if job.client is client and job.state is JobState.QUEUED and job not in self.queued():
            self.refused.add(job.id)
            assert self.dispatcher.tally.refused > before
            assert client.failures
        assert job.id in self.refused or not draining

    @rule(client=CLIENTS, priority=st.sampled_from(Priority), times=st.integers(2, 8))
    def flood(self, client: int, priority: Priority, times: int) -> None:
        """A client submits many jobs at once."""
        for _ in range(times):
            self.submit_for(self.clients[client], "Stop", priority)

    @rule(client=CLIENTS, budget=st.integers(1, 3), number=ANY)
    def react(self, client: int, budget: int, number: int) -> None:
        """From now on the client submits, and cancels another job, whenever it is told of one."""
        left = [budget]
        told = self.clients[client]

        def when_told(job: Job) -> None:
            if left[0] and not told.gone:
                left[0] -= 1
                self.submit_for(told, "Stop", Priority.NORMAL)
                mine = [job for job in self.jobs if self.owners[job.id] is told]
                for job in mine if number % 2 else [pick(mine, number)]:
                    self.cancel_job(job)

        told.when_told = when_told

    @precondition(lambda self: self.jobs)
    @rule(number=ANY)
    def cancel(self, number: int) -> None:
        """Some job is cancelled, whatever became of it."""
        self.cancel_job(pick(self.jobs, number))

    def cancel_job(self, job: Job) -> None:
        """Cancel a job, and see that it waits no more."""
        self.dispatcher.cancel(job)
        self.sealed.setdefault(job, job.attempt)
        assert job not in self.queued()
        if job.state is JobState.RUNNING:
            assert isinstance(job.worker, FakeWorker)
            assert job.worker.killed
            self.stopped.add(job)

    @rule(client=CLIENTS)
    def disconnect(self, client: int) -> None:
        """A client goes, and another comes."""
        gone = self.clients[client]
        gone.gone = True
        self.held.pop(gone, None)
        finishing = [
            worker
            for worker in self.answerable()
            if worker.job and self.owners[worker.job.id] is gone and worker.job.command == b"Finish"
        ]
        self.dispatcher.client_gone(gone)
        for worker in self.answerable():
            if worker.job and self.owners[worker.job.id] is gone:
                assert worker in finishing
        if PERFORMS[0] == self.dispatcher._catalogue:
            assert all(worker.killed is None for worker in finishing)
        for job in self.jobs:
            if self.owners[job.id] is gone:
                self.sealed.setdefault(job, job.attempt)
        self.clients[client] = self.new_client()

    @rule(client=CLIENTS)
    def hold(self, client: int) -> None:
        """A client stops to read its answers."""
        held = self.clients[client]
        self.held.setdefault(held, self.starts_of(held))
        self.dispatcher.hold(self.clients[client])

    @rule(client=CLIENTS)
    def release(self, client: int) -> None:
        """A client reads its answers again."""
        self.held.pop(self.clients[client], None)
        self.dispatcher.release(self.clients[client])

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
        """A worker says Hello; a few have an older catalogue."""
        self.hatchery.boot(pick(self.bootable(), number), PERFORMS[performs])

    @precondition(lambda self: self.answerable())
    @rule(number=ANY, failed=st.booleans())
    def answer(self, number: int, failed: bool) -> None:
        """A worker answers its job."""
        self.hatchery.answer(pick(self.answerable(), number), failed)

    @precondition(lambda self: self.hatchery.workers)
    @rule(number=ANY)
    def die(self, number: int) -> None:
        """A worker dies, whatever it is about."""
        self.hatchery.die(pick(self.hatchery.workers, number))

    @rule(refused=st.booleans())
    def refuse_processes(self, refused: bool) -> None:
        """The system has no room for another process, or has again."""
        self.hatchery.refusal = OSError(11, "Resource temporarily unavailable") if refused else None

    # What the operator does, and the clock.

    @rule(seconds=st.sampled_from([0, 0.1, 1, 5, 31, 61]))
    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @precondition(lambda self: len(self.jobs) > 12 and len(self.drains) < 2)
    @rule(seconds=st.sampled_from([0, 1, 60]))
    def drain(self, seconds: float) -> None:
        """The server is told to stop, perhaps twice."""
        answers: list[object] = []
        self.drains.append(answers)
        self.dispatcher.drain(seconds).addBoth(answers.append)

    # What can be seen.

    def queued(self) -> list[Job]:
        """The jobs that wait."""
        return list(self.dispatcher._queue)

    def bootable(self) -> list[FakeWorker]:
        """The workers that may say Hello."""
        return [worker for worker in self.hatchery.starting if worker.killed is None]

    def answerable(self) -> list[FakeWorker]:
        """The workers that may answer."""
        return [worker for worker in self.hatchery.busy if worker.killed is None]

    def starts_of(self, client: FakeClient) -> int:
        """How many jobs of `client` have started."""
        return sum(job.attempt for job in self.jobs if self.owners[job.id] is client)

    # The promises.

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        """A job was refused, waits, runs on exactly one worker, or has ended."""
        queued = {job.id for job in self.queued()}
        running = [worker.job for worker in self.hatchery.busy]
        assert len(running) == len(set(running)) == self.dispatcher.running
        assert len(queued) == self.dispatcher.waiting
        for worker in self.hatchery.busy:
            assert worker.job is not None
            assert worker.job.worker is worker
            assert worker.job.state is JobState.RUNNING
        for job in self.jobs:
            places = [
                job.id in self.refused,
                job.id in queued and job.state is JobState.QUEUED,
                job in running,
                job.state in END_STATES,
            ]
            assert places.count(True) == 1, (job, places)
            assert job.attempt <= 1

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
        """The tally adds up."""
        tally = self.dispatcher.tally
        assert tally.accepted == (
            sum(tally.ended.values()) + self.dispatcher.waiting + self.dispatcher.running
        )
        assert tally.accepted + tally.refused == len(self.jobs)

    @invariant()
    def what_was_cancelled_does_not_start(self) -> None:
        """A job that was cancelled, or whose client is gone, does not start any more."""
        for job, attempts in self.sealed.items():
            assert job.attempt == attempts, job
        for client, starts in self.held.items():
            assert self.starts_of(client) == starts, client

    @invariant()
    def what_was_stopped_is_cancelled(self) -> None:
        """A job that was cancelled while it ran ends as cancelled, however its worker dies."""
        for job in self.stopped:
            assert job.state in (JobState.RUNNING, JobState.CANCELLED)

    @invariant()
    def no_worker_is_idle_while_a_job_may_start(self) -> None:
        """No worker is idle while a job waits that may start."""
        assert self.dispatcher.idle == len(self.hatchery.idle)
        if self.hatchery.idle:
            assert all(self.owners[job.id] in self.held for job in self.queued())

    @invariant()
    def bounds_hold(self) -> None:
        """Neither jobs nor workers are more than may be, nor workers fewer without a reason."""
        assert self.dispatcher.waiting <= self.dispatcher.max_queued
        working = [worker for worker in self.hatchery.workers if not worker.stopping]
        assert len(working) == self.workforce.size <= self.workforce.max_workers
        if self.workforce._retry is None:
            assert self.workforce.size >= self.workforce.min_workers

    @invariant()
    def drains_end_with_the_last_job(self) -> None:
        """A drain ends once, with the last job, and not before."""
        for answers in self.drains:
            assert answers == ([] if self.dispatcher.waiting + self.dispatcher.running else [None])

    def teardown(self) -> None:
        """With workers that start and answer, everything comes to its end."""
        if not hasattr(self, "hatchery"):
            return
        self.hatchery.refusal = None
        for client in self.clients:
            self.held.pop(client, None)
            self.dispatcher.release(client)
        self.describe()
        for _ in range(200):
            if self.bootable():
                self.hatchery.boot(self.bootable()[0], PERFORMS[0])
            elif self.answerable():
                self.hatchery.answer(self.answerable()[0])
            elif killed := [worker for worker in self.hatchery.workers if worker.killed]:
                self.hatchery.die(killed[0])
            elif self.dispatcher.waiting + self.dispatcher.running or not all(self.descriptions):
                self.clock.advance(LONGEST_DELAY)
            else:
                break
            self.check_invariants_now()
        assert self.dispatcher.waiting == self.dispatcher.running == 0
        assert all(len(answers) == 1 for answers in self.descriptions)
        if self.hatchery.idle and not self.drains:
            self.clients[0].when_told = None
            self.submit(0, "Stop", Priority.LOW)  # the server is as good as new
            assert self.hatchery.answer(self.hatchery.busy[0]) is self.jobs[-1]
        self.check_invariants_now()
        self.workforce.stop()
        if not self.drains:
            self.drain(1)
        self.drains_end_with_the_last_job()
        assert self.clock.getDelayedCalls() == []

    def check_invariants_now(self) -> None:
        """Check all invariants."""
        self.every_job_is_in_one_place()
        self.every_end_is_told_once()
        self.books_balance()
        self.what_was_cancelled_does_not_start()
        self.what_was_stopped_is_cancelled()
        self.no_worker_is_idle_while_a_job_may_start()
        self.bounds_hold()
        self.drains_end_with_the_last_job()


class RulesTests(RulesMachine.TestCase):  # type: ignore[misc, valid-type]
    """Whatever happens, in whatever order, the promises of the design hold."""

    settings = settings(max_examples=300, stateful_step_count=50, deadline=None, derandomize=True)


assert issubclass(RulesTests, unittest.TestCase)
