from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler.assignments import Assignments
from dangad.scheduler.fairqueue import JobQueue
from dangad.scheduler.prefetch import MOST, QUIET_TIME, SLOW, SOON, Prefetch
from dangad.scheduler.record import Event
from dangad.scheduler.registry import Registry
from dangad.wire.values import Priority
from tests.fakes import FakeClient, FakeWorker, make_job

if TYPE_CHECKING:
    from dangad.scheduler.interfaces import IWorker
    from dangad.scheduler.record import Job

HIGH, NORMAL, LOW = Priority
PLENTY = 1000


class PrefetchTestCase(SynchronousTestCase):
    """What two busy workers have prefetched, the queue, and clients."""

    def setUp(self) -> None:
        """Make them."""
        self.queue = JobQueue(30.0)
        self.failed: list[tuple[IWorker, Job]] = []
        self.assignments = Assignments(Registry())
        self.prefetch = self.make()
        self.ann, self.bob = FakeClient("ann"), FakeClient("bob")
        self.first, self.second = FakeWorker(), FakeWorker()
        for worker in (self.first, self.second):
            worker.say_hello()
            job = make_job(self.ann)
            worker.give(job)
            self.assignments.jobs[worker] = [job]

    def make(self) -> Prefetch:
        """One that knows nothing yet."""
        return Prefetch(
            self.assignments,
            self.queue,
            self.queue.put_back,
            lambda *what: self.failed.append(what),
        )

    def end(self, ran: float, count: int = 1, *, at: float = 1000.0, printed: bool = False) -> Job:
        """Let so many jobs end, each of which ran for so many seconds; the last is returned."""
        jobs = [make_job(self.ann) for _ in range(count)]
        for job in jobs:
            job.started_at, job.ended_at = at - ran, at
            self.prefetch.note(job, printed)
        return jobs[-1]

    def room(self, waiting: int = PLENTY, busy: int = 1) -> int:
        """How many jobs the first worker may have prefetched."""
        return self.prefetch.room(self.first, waiting, busy)

    def give(self, worker: FakeWorker) -> Job:
        """A job that `worker` has prefetched."""
        self.queue.push(self.ann, make_job(self.ann))
        job = self.queue.pop(0.0)
        assert job is not None
        self.assertTrue(self.prefetch.give(worker, job))
        return job

    def begin(self, worker: FakeWorker) -> Job:
        """The job that `worker` begins, as far as the dispatcher knows."""
        worker.finish()
        job = self.assignments.next_of(worker)
        assert job is not None
        job.live(Event.START)
        return job


class PaceTests(PrefetchTestCase):
    def test_pace(self) -> None:
        """As many are prefetched as begin soon at the pace of the last jobs; of slow ones none."""
        self.assertEqual(self.room(), 0)
        for ran, count, room in (
            (0.0, 1, 0),
            (0.0, 6, 1),
            (0.0, 24, MOST),
            (0.9 * SOON / MOST, 50, MOST),
            (SOON / 3.5, 50, 3),
            (0.9 * SOON, 50, 1),
            (2 * SOON, 50, 1),
            (0.9 * SLOW, 50, 1),
            (1.1 * SLOW, 50, 0),
        ):
            with self.subTest(ran=ran, count=count):
                self.prefetch = self.make()
                self.end(ran, count)
                self.assertEqual(self.room(), room)
        self.end(0.0, 50)
        self.end(1.1 * SLOW, 50)
        self.assertEqual(self.room(), 0)

    def test_one_very_long_job(self) -> None:
        """A job of an hour among quick ones stops it for no longer than one of 0.1 s does."""
        counts = []
        for ran in (5 * SLOW, 3600.0):
            self.prefetch = self.make()
            self.end(0.0, 50)
            self.end(ran)
            counts.append(0)
            while self.room() < MOST:
                self.end(0.0)
                counts[-1] += 1
        self.assertEqual(counts[0], counts[1])
        self.assertLessEqual(counts[1], 20)

    def test_share(self) -> None:
        """A worker has no more prefetched than its share of what waits, less what it has."""
        self.end(0.0, 50)
        self.assertEqual([self.room(waiting, 4) for waiting in (0, 3, 4, 11, 12)], [0, 0, 1, 2, 3])
        self.assertEqual(self.room(PLENTY, 4), MOST)
        for _ in range(3):
            self.give(self.first)
        self.assertEqual(self.room(), MOST - 3)
        self.assertEqual(self.prefetch.room(self.second, PLENTY, 1), MOST)
        self.begin(self.first)
        self.assertEqual(self.room(), MOST - 2)

    def test_quiet(self) -> None:
        """A type is not quiet for some time after the last job of it that printed."""
        job = self.end(0.0)
        self.assertTrue(self.prefetch.is_quiet(job, 1000.0))
        self.end(0.0, printed=True)
        self.end(0.0, at=1000.0 + QUIET_TIME - 1, printed=True)
        self.end(0.0, at=1000.0 + QUIET_TIME)  # a silent one ends nothing
        last = 1000.0 + QUIET_TIME - 1
        self.assertTrue(self.prefetch.is_quiet(make_job(self.ann, "Other"), last))
        for seconds, quiet in ((0, False), (QUIET_TIME - 0.01, False), (QUIET_TIME, True)):
            self.assertEqual(self.prefetch.is_quiet(job, last + seconds), quiet)
        self.assertTrue(self.prefetch.is_quiet(job, 0.0))  # it is forgotten


class FailureTests(PrefetchTestCase):
    """A worker that raises: whatever it was, it may have begun what it was given."""

    def raise_it(self, *_: object) -> bool:
        """What the worker does."""
        raise MemoryError

    def test_given(self) -> None:
        """A job counts as given, since it may be in the pipe; no more are to follow."""
        job = make_job(self.ann)
        self.first.can_prefetch = False
        self.assertFalse(self.prefetch.give(self.first, job))
        self.assertEqual((job.worker, self.queue.pop(0.0)), (None, job))
        self.patch(self.first, "give", self.raise_it)
        self.assertFalse(self.prefetch.give(self.first, job))
        self.assertEqual((self.failed, job.worker), ([(self.first, job)], self.first))
        self.assertEqual((self.assignments.prefetched, len(self.queue)), (1, 0))

    def test_reclaimed(self) -> None:
        """All counts as begun, until it can be learned what was not."""
        jobs = [self.give(self.first) for _ in range(2)]
        patch = self.patch(self.first, "reclaim", self.raise_it)
        self.assertFalse(self.prefetch.reclaim(self.first))
        self.assertEqual(self.failed, [(self.first, jobs[0])])
        self.assertEqual({job.worker for job in jobs}, {self.first})
        patch.restore()
        self.first.go_on()
        self.assertTrue(self.prefetch.reclaim(self.first))
        self.assertEqual([job.worker for job in jobs], [self.first, None])
