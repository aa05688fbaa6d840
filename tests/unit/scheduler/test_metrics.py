"""What is counted of each command, what is remembered of workers, and who may watch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from dangad.errors import DangadError, QueueFull
from dangad.scheduler.counters import Counters
from dangad.scheduler.interfaces import IJournal
from dangad.scheduler.metrics import (
    EDGES,
    FACTOR,
    MOST_CODES,
    MOST_COMMANDS,
    OTHER,
    SHORTEST,
    Metrics,
    percentiles,
)
from dangad.scheduler.outbox import Outbox
from dangad.scheduler.record import Cause, Death, JobState
from dangad.scheduler.retries import LONGEST_RETRY
from dangad.scheduler.workerhistory import MOST_DEATHS, WorkerHistory
from dangad.scheduler.workerrecord import WorkerRecord
from tests.fakes import FakeWorker, catalogue, make_job
from tests.unit.scheduler.dispatching import MAX_QUEUED, DispatcherTestCase

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.scheduler.record import Job


@implementer(IJournal)
class FakeJournal:
    """Writes down what it is told of jobs."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        #: Called whenever it is told something.
        self.then: Callable[[], object] = lambda: None

    def job_accepted(self, job: Job) -> None:
        """See :meth:`IJournal.job_accepted`."""
        self.note("accepted", job)

    def job_started(self, job: Job) -> None:
        """See :meth:`IJournal.job_started`."""
        self.note("started", job, job.pid)

    def job_retried(self, job: Job, error: DangadError) -> None:
        """See :meth:`IJournal.job_retried`."""
        self.note("retried", job, error.code)

    def job_ended(self, job: Job) -> None:
        """See :meth:`IJournal.job_ended`."""
        self.note(job.state.value, job, job.ended_for and job.ended_for[0])

    def job_refused(self, job: Job, error: DangadError) -> None:
        """See :meth:`IJournal.job_refused`."""
        self.note("refused", job, error.code)

    def note(self, *what: object) -> None:
        """Write this down."""
        self.told.append(what)
        self.then()


class PercentileTests(SynchronousTestCase):
    @given(
        st.lists(st.floats(2 * SHORTEST, EDGES[-1]), min_size=1, max_size=200),
        st.sampled_from([0.5, 0.9, 0.99, 1.0]),
    )
    def test_near(self, times: list[float], fraction: float) -> None:
        """A percentile is right to within the width of a bucket."""
        counters = Counters(Outbox(), log_jobs="none")
        for time in times:
            job = make_job(None)
            job.attempt, job.started_at, job.state = 1, 0.0, JobState.DONE
            counters.note_acceptance(job)
            counters.note_end(job, time)
        (found,) = percentiles(counters.metrics.others.runtimes.counts, [fraction])
        right = sorted(times)[math.ceil(len(times) * fraction) - 1]
        assert found is not None
        assert right / FACTOR * 0.999 <= found <= right * FACTOR * 1.001, (found, right)

    def test_extremes(self) -> None:
        """No times have no percentile. Times beyond the last bucket count as its edge."""
        self.assertEqual(percentiles([0] * (len(EDGES) + 1), [0.5, 0.9]), [None, None])
        self.assertEqual(percentiles([0] * len(EDGES) + [3], [0.5, 0.99]), [EDGES[-1]] * 2)
        (first,) = percentiles([4] + [0] * len(EDGES), [0.5])
        assert first is not None
        self.assertAlmostEqual(first, SHORTEST / 2)


class BoundTests(SynchronousTestCase):
    def test_commands(self) -> None:
        """So many commands are counted one by one, and the rest together."""
        metrics = Metrics()
        metrics.know(b"C%d" % number for number in range(MOST_COMMANDS + 5))
        self.assertEqual(len(metrics.by_command), MOST_COMMANDS)
        self.assertIs(metrics.of(b"C%d" % MOST_COMMANDS), metrics.others)
        self.assertIsNot(metrics.of(b"C0"), metrics.others)

    def test_codes(self) -> None:
        """Job code may invent codes without end: only so many are counted one by one."""
        metrics = Metrics()
        metrics.know([b"C"])
        for number in range(MOST_CODES + 5):
            metrics.note_code(b"C", f"E{number}")
        for codes in (metrics.codes, metrics.of(b"C").codes):
            self.assertEqual(len(codes), MOST_CODES + 1)
            self.assertEqual(codes[OTHER], 5)


class CommandTests(DispatcherTestCase):
    performs = catalogue("Echo", Again={"retries": 1})

    def test_counted(self) -> None:
        """Each command's jobs are counted by their ends, with their waits and runtimes."""
        worker = self.ready()
        first, *_ = self.submit(self.ann), self.submit(self.ann), self.submit(self.bob, "Again")
        self.clock.advance(0.5)
        self.answer(worker)
        metrics = self.dispatcher.counters.metrics
        echo, again = metrics.of(b"Echo"), metrics.of(b"Again")
        self.assertEqual((first.state, echo.ended[JobState.DONE]), (JobState.DONE, 1))
        self.assertEqual(metrics.present, {b"Echo": 1, b"Again": 1})
        self.assertEqual((echo.waits.sum, echo.runtimes.sum), (0.0, 0.5))
        self.clock.advance(0.25)
        self.answer(worker, failed=True)
        self.clock.advance(0.25)
        self.answer(worker)
        self.assertEqual(sum(echo.ended.values()) + sum(again.ended.values()), 3)
        self.assertEqual((echo.codes, again.codes), ({}, {"UNKNOWN": 1}))
        self.assertEqual(sum(metrics.latencies.counts), 3)
        self.assertAlmostEqual(metrics.latencies.sum, 0.5 + 0.75 + 1.0)
        self.assertEqual(metrics.present, {})

    def test_before_the_catalogue(self) -> None:
        """A job that is accepted before the first worker is ready counts as its command's."""
        job = self.submit(self.ann)
        worker = self.ready()
        self.answer(worker)
        self.assertEqual(self.dispatcher.counters.metrics.of(b"Echo").ended[job.state], 1)

    def test_refused(self) -> None:
        """Refusals are counted by code."""
        for _ in range(MAX_QUEUED + 2):
            self.submit(self.ann)
        metrics = self.dispatcher.counters.metrics
        self.assertEqual(metrics.refusals, {QueueFull.code.decode(): 2})
        self.assertEqual(self.dispatcher.counters.refused, 2)


class JournalTests(DispatcherTestCase):
    performs = catalogue("Echo", Again={"retries": 1})

    def setUp(self) -> None:
        """Watch."""
        super().setUp()
        self.journal = FakeJournal()
        self.dispatcher.counters.journals = (self.journal,)

    def test_life(self) -> None:
        """Each change of a job's state is told, in order."""
        worker = self.ready()
        job = self.submit(self.ann, "Again")
        waiting = self.submit(self.ann)
        self.die(worker)
        self.dispatcher.cancel(waiting)
        other = self.ready()
        self.clock.advance(LONGEST_RETRY)
        self.answer(other, failed=True)
        self.assertEqual(
            self.journal.told,
            [
                ("accepted", job),
                ("started", job, worker.pid),
                ("accepted", waiting),
                ("retried", job, b"WORKER_LOST"),
                ("cancelled", waiting, "CANCELLED"),
                ("started", job, other.pid),
                ("failed", job, "UNKNOWN"),
            ],
        )

    def test_refused(self) -> None:
        """A refusal is told."""
        self.ready()
        job = self.submit(self.ann, "Missing")
        self.assertEqual(self.journal.told, [("refused", job, b"UNHANDLED")])

    def test_raises(self) -> None:
        """A journal that raises changes nothing but the log."""
        self.journal.then = self.raise_memory_error
        worker = self.ready()
        job = self.submit(self.ann)
        self.answer(worker)
        self.assertIs(job.state, JobState.DONE)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 3)

    def raise_memory_error(self) -> None:
        """Raise as if there was no memory."""
        raise MemoryError


class WorkerHistoryTests(SynchronousTestCase):
    def bury(self, cause: Cause, *, booted: bool = True, released: bool = False) -> Cause:
        """What is remembered as the cause of a death."""
        history, record = WorkerHistory(), WorkerRecord(FakeWorker(), 1, 10.0)
        record.booted_at = 11.0 if booted else None
        record.released = released
        history.note_death(record, Death("is gone", "; so it is", cause=cause), 7, 15.0)
        [gone] = history.gone
        self.assertEqual((gone.age, gone.jobs, gone.why), (5.0, 7, "is gone; so it is"))
        self.assertEqual([each for each, number in history.deaths.items() if number], [gone.cause])
        return gone.cause

    def test_causes(self) -> None:
        """What a worker died of depends on what the server had wanted of it."""
        self.assertIs(self.bury(Cause.CRASHED), Cause.CRASHED)
        self.assertIs(self.bury(Cause.EXITED), Cause.EXITED)
        self.assertIs(self.bury(Cause.EXITED, released=True), Cause.RELEASED)
        self.assertIs(self.bury(Cause.KILLED, released=True), Cause.KILLED)
        self.assertIs(self.bury(Cause.CRASHED, booted=False), Cause.FAILED_START)
        self.assertIs(self.bury(Cause.KILLED, booted=False, released=True), Cause.KILLED)

    def test_bounded(self) -> None:
        """Only the last deaths are remembered, and all are counted."""
        history = WorkerHistory()
        for _ in range(MOST_DEATHS + 3):
            record = WorkerRecord(FakeWorker(), 1, 0.0)
            record.booted_at = 0.0
            history.note_death(record, Death("exited"), 0, 1.0)
        self.assertEqual(len(history.gone), MOST_DEATHS)
        self.assertEqual(history.deaths[Cause.EXITED], MOST_DEATHS + 3)
