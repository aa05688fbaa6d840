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

    def push(self, priority: Priority = NORMAL, client: FakeClient | None = None) -> Job:
        """A job, of Ann's if nobody else is named, that waits in the queue."""
        client = client or self.ann
        job = make_job(client, priority=priority)
        self.queue.push(client, job)
        return job

    def give(
        self,
        worker: FakeWorker,
        priority: Priority = NORMAL,
        client: FakeClient | None = None,
    ) -> Job:
        """A job that `worker` has prefetched."""
        job = self.push(priority, client)
        self.assertIs(self.queue.pop(0.0), job)
        self.assertTrue(self.prefetch.give(worker, job))
        return job

    def begin(self, worker: FakeWorker) -> Job:
        """The job that `worker` begins, as far as the dispatcher knows."""
        worker.finish()
        job = self.assignments.next_of(worker)
        assert job is not None
        job.live(Event.START)
        return job

    def prefetched_of(self, client: FakeClient) -> list[Job]:
        """The jobs of `client` that workers have prefetched."""
        rows = self.assignments.jobs.values()
        return [job for row in rows for job in row[1:] if job.client is client]


class PaceTests(PrefetchTestCase):
    def test_begins_slow(self) -> None:
        """Before it is known that jobs are short, nothing is prefetched."""
        self.assertEqual(self.room(), 0)
        self.end(0.0)
        self.assertEqual(self.room(), 0)

    def test_a_few_quick_jobs_make_room(self) -> None:
        """Six jobs that took no time are enough for one prefetched, and 24 for the most."""
        self.end(0.0, 6)
        self.assertEqual(self.room(), 1)
        self.end(0.0, 18)
        self.assertEqual(self.room(), MOST)

    def test_quick_jobs(self) -> None:
        """There is room for the most as long as all of them take no longer than they may."""
        self.end(0.9 * SOON / MOST, 50)
        self.assertEqual(self.room(), MOST)

    def test_jobs_of_middling_length(self) -> None:
        """Of longer jobs, as many are prefetched as will begin soon."""
        self.end(SOON / 3.5, 50)
        self.assertEqual(self.room(), 3)

    def test_one_prefetched(self) -> None:
        """Of jobs each of which takes longer than soon, but is not slow, one is prefetched."""
        for ran in (0.9 * SOON, 2 * SOON, 0.9 * SLOW):
            self.end(ran, 50)
            self.assertEqual(self.room(), 1)

    def test_slow_jobs(self) -> None:
        """Once jobs are slow, nothing is prefetched any more."""
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


class RoomTests(PrefetchTestCase):
    def setUp(self) -> None:
        """Let jobs be quick."""
        super().setUp()
        self.end(0.0, 50)

    def test_shared_between_the_busy(self) -> None:
        """A worker has no more prefetched than its share of what waits, rounded down."""
        self.assertEqual([self.room(waiting, 4) for waiting in (0, 3, 4, 11, 12)], [0, 0, 1, 2, 3])
        self.assertEqual(self.room(PLENTY, 4), MOST)

    def test_less_what_it_has(self) -> None:
        """What a worker has prefetched takes its own room, and no other's."""
        for _ in range(3):
            self.give(self.first)
        self.assertEqual(self.room(), MOST - 3)
        self.assertEqual(self.prefetch.room(self.second, PLENTY, 1), MOST)
        self.begin(self.first)
        self.assertEqual(self.room(), MOST - 2)

    def test_never_too_many(self) -> None:
        """With all that a worker may have, there is room for no more."""
        for _ in range(MOST):
            self.give(self.first)
        self.assertEqual(self.room(), 0)


class QuietTests(PrefetchTestCase):
    def test_quiet(self) -> None:
        """A type none of whose jobs has printed is quiet."""
        self.assertTrue(self.prefetch.is_quiet(self.end(0.0), 1000.0))

    def test_printed(self) -> None:
        """A type is not quiet for some time after a job of it has printed, and then it is."""
        job = self.end(0.0, printed=True)
        self.assertFalse(self.prefetch.is_quiet(job, 1000.0))
        self.assertFalse(self.prefetch.is_quiet(job, 1000.0 + QUIET_TIME - 0.01))
        self.assertTrue(self.prefetch.is_quiet(job, 1000.0 + QUIET_TIME))
        self.assertTrue(self.prefetch.is_quiet(job, 1000.0 + QUIET_TIME))

    def test_only_its_type(self) -> None:
        """What one type prints says nothing of another."""
        self.end(0.0, printed=True)
        self.assertTrue(self.prefetch.is_quiet(make_job(self.ann, "Other"), 1000.0))

    def test_printed_again(self) -> None:
        """The time counts from the last job that printed; silent ones do not end it."""
        self.end(0.0, printed=True)
        self.end(0.0, at=1000.0 + QUIET_TIME - 1, printed=True)
        job = self.end(0.0, at=1000.0 + QUIET_TIME)
        self.assertFalse(self.prefetch.is_quiet(job, 1000.0 + QUIET_TIME))
        self.assertTrue(self.prefetch.is_quiet(job, 1000.0 + 2 * QUIET_TIME - 1))


class GivingTests(PrefetchTestCase):
    def test_nothing(self) -> None:
        """At first no worker has anything prefetched, and asking changes nothing."""
        self.assertEqual(self.assignments.prefetched, 0)
        self.assertIsNone(self.assignments.first_with_prefetched())
        self.assertFalse(self.prefetch.reclaim(self.first))
        self.assertFalse(self.prefetch.reclaim_some())
        self.prefetch.reclaim_all()
        self.assertEqual(self.assignments.prefetched, 0)

    def test_in_the_order_given(self) -> None:
        """A worker begins its jobs in the order in which it was given them."""
        jobs = [self.give(self.first) for _ in range(3)]
        other = self.give(self.second)
        self.assertEqual([self.begin(self.first) for _ in range(3)], jobs)
        self.assertIs(self.begin(self.second), other)
        self.assertEqual(self.assignments.prefetched, 0)

    def test_refused(self) -> None:
        """A job that the worker cannot be given is the next in the queue, as it was."""
        self.first.can_prefetch = False
        jobs = [self.push(), self.push()]
        self.assertIs(self.queue.pop(0.0), jobs[0])
        self.assertFalse(self.prefetch.give(self.first, jobs[0]))
        self.assertEqual(self.assignments.prefetched, 0)
        self.assertIsNone(jobs[0].worker)
        self.assertEqual([self.queue.pop(0.0) for _ in jobs], jobs)

    def test_worker_of_a_job(self) -> None:
        """A prefetched job knows its worker, still when it is begun, and not when reclaimed."""
        begun, back = self.give(self.first), self.give(self.first)
        self.assertEqual((begun.worker, back.worker), (self.first, self.first))
        self.begin(self.first)
        self.prefetch.reclaim(self.first)
        self.assertEqual((begun.worker, back.worker), (self.first, None))

    def test_jobs_of_a_client(self) -> None:
        """A client's jobs are found on every worker, and no other's."""
        mine = [self.give(self.first), self.give(self.second)]
        theirs = self.give(self.first, client=self.bob)
        self.assertEqual(self.prefetched_of(self.ann), mine)
        self.assertEqual(self.prefetched_of(self.bob), [theirs])

    def test_longest_waiting(self) -> None:
        """The worker that has begun none for longest is known: to be given more changes nothing."""
        for worker in (self.first, self.second, self.first, self.second, self.first):
            self.give(worker)
        self.assertIs(self.assignments.first_with_prefetched(), self.first)
        self.begin(self.first)
        self.assertIs(self.assignments.first_with_prefetched(), self.second)
        self.begin(self.second)
        self.assertIs(self.assignments.first_with_prefetched(), self.first)
        self.begin(self.second)
        self.begin(self.first)
        self.assertIs(self.assignments.first_with_prefetched(), self.first)
        self.give(self.second)
        self.assertIs(self.assignments.first_with_prefetched(), self.second)
        self.begin(self.first)
        self.assertIs(self.assignments.first_with_prefetched(), self.second)


class ReclaimTests(PrefetchTestCase):
    def test_order(self) -> None:
        """What is reclaimed waits in its order, before what has come since."""
        jobs = [self.give(self.first) for _ in range(3)]
        later = self.push()
        self.assertTrue(self.prefetch.reclaim(self.first))
        self.assertEqual((self.first.prefetched, bool(self.assignments.prefetched)), ([], False))
        self.assertEqual([self.queue.pop(0.0) for _ in range(4)], [*jobs, later])
        self.assertFalse(self.prefetch.reclaim(self.first))

    def test_begun_stays(self) -> None:
        """What the worker has begun by now stays with it, and is its next."""
        begun, back = self.give(self.first), self.give(self.first)
        self.first.go_on()
        self.assertTrue(self.prefetch.reclaim(self.first))
        self.assertEqual([job.worker for job in (begun, back)], [self.first, None])
        self.assertIs(self.queue.pop(0.0), back)
        self.assertIsNone(self.queue.pop(0.0))
        self.assertFalse(self.prefetch.reclaim(self.first))
        self.assertIs(self.begin(self.first), begun)

    def test_all(self) -> None:
        """All that can be is reclaimed from all workers, and it is told what cannot."""
        begun = self.give(self.first)
        back = [self.give(self.first), self.give(self.second)]
        self.first.go_on()
        self.prefetch.reclaim_all()
        self.assertEqual(self.prefetched_of(self.ann), [begun])
        self.assertCountEqual([self.queue.pop(0.0) for _ in range(2)], back)
        self.assertIsNone(self.queue.pop(0.0))

    def test_some(self) -> None:
        """For an idle worker jobs are reclaimed from one other, of those that have begun none."""
        begun, jobs = self.give(self.first), [self.give(self.second) for _ in range(2)]
        self.first.go_on()
        self.assertTrue(self.prefetch.reclaim_some())
        self.assertEqual([self.queue.pop(0.0) for _ in range(3)], [*jobs, None])
        self.assertFalse(self.prefetch.reclaim_some())
        self.assertIs(self.begin(self.first), begun)

    def test_only_from_one(self) -> None:
        """For an idle worker the jobs of one other are enough."""
        self.give(self.first)
        self.give(self.second)
        self.assertTrue(self.prefetch.reclaim_some())
        self.assertEqual(len(self.first.prefetched) + len(self.second.prefetched), 1)


class GivingWayTests(PrefetchTestCase):
    def ways(self, priority: Priority) -> list[int]:
        """How many each worker has prefetched after a job of this priority has come, and gone."""
        job = self.push(priority)
        self.prefetch.reclaim_outranked()
        self.queue.remove(job)
        return [len(self.first.prefetched), len(self.second.prefetched)]

    def test_only_to_what_is_more_urgent(self) -> None:
        """What is prefetched gives way to a higher priority, and to no other."""
        for priority in (HIGH, NORMAL, LOW):
            self.give(self.first, priority)
            for other in (LOW, NORMAL, HIGH):
                expected = 0 if other < priority else 1
                self.assertEqual(self.ways(other), [expected, 0])
                if not expected:
                    break
            self.prefetch.reclaim_all()
            self.queue.drop(self.ann)

    def test_only_where_something_is_less_urgent(self) -> None:
        """A worker all of whose jobs are as urgent keeps them; one that has a lower gives all."""
        self.give(self.first, HIGH)
        self.give(self.second, HIGH)
        self.give(self.second, LOW)
        self.assertEqual(self.ways(NORMAL), [1, 0])

    def test_whatever_was_before(self) -> None:
        """The lowest prefetched priority is known whatever was begun and reclaimed before."""
        self.give(self.first, LOW)
        self.give(self.second, LOW)
        self.prefetch.reclaim(self.first)
        self.assertEqual(self.ways(LOW), [0, 1])
        self.assertEqual(self.ways(NORMAL), [0, 0])
        self.queue.drop(self.ann)
        self.give(self.first, HIGH)
        self.give(self.first, LOW)
        self.begin(self.first)
        self.give(self.second, NORMAL)
        self.begin(self.second)
        self.assertEqual(self.ways(NORMAL), [0, 0])
        self.queue.drop(self.ann)
        self.give(self.first, NORMAL)
        self.assertEqual(self.ways(NORMAL), [1, 0])
        self.assertEqual(self.ways(HIGH), [0, 0])

    def test_what_was_reclaimed(self) -> None:
        """What one worker gives back may be more urgent than what another has prefetched."""
        self.give(self.first, HIGH)
        self.give(self.second, LOW)
        self.prefetch.reclaim(self.first)
        self.assertEqual(self.second.prefetched, [])


class LastTests(PrefetchTestCase):
    def test_nothing_prefetched(self) -> None:
        """The last that a worker has begun is the job that it runs, if it has none prefetched."""
        job = self.first.job
        assert job is not None
        self.assertIs(self.assignments.last(self.first), job)
        self.give(self.first)
        self.prefetch.reclaim(self.first)
        self.assertIs(self.assignments.last(self.first), job)

    def test_begun(self) -> None:
        """It is the last of those that it has begun unnoticed, if it has."""
        running = self.first.job
        assert running is not None
        begun = [self.give(self.first) for _ in range(3)]
        self.first.go_on()
        self.first.go_on()
        self.prefetch.reclaim(self.first)
        self.assertIs(self.assignments.last(self.first), begun[1])
        self.assertEqual([begun[0].worker, begun[2].worker], [self.first, None])


class BooksTests(PrefetchTestCase):
    def test_count_and_size(self) -> None:
        """Prefetched jobs are in no queue; how many they are, and how large, is known."""
        self.give(self.first)
        self.give(self.first)
        self.give(self.second)
        self.assertEqual(
            (self.assignments.prefetched, self.assignments.size, len(self.queue)), (3, 6, 0)
        )
        self.begin(self.second)
        self.prefetch.reclaim(self.first)
        self.assertEqual((self.assignments.prefetched, self.assignments.size), (0, 0))
        self.assertEqual((len(self.queue), self.queue.size), (2, 4))


class FailureTests(PrefetchTestCase):
    """A worker that raises: whatever it was, it may have begun what it was given."""

    def raise_it(self, *_: object) -> bool:
        """What the worker does."""
        raise MemoryError

    def test_given(self) -> None:
        """A job counts as given, since it may be in the pipe; no more are to follow."""
        job = self.push()
        self.queue.pop(0.0)
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
