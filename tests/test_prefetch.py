from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dangad.jobrecord import Job, Priority
from dangad.prefetch import MOST, QUIET_TIME, SLOW, SOON, Prefetch
from tests.fakes import FakeClient, FakeWorker, make_job

HIGH, NORMAL, LOW = Priority
PLENTY = 1000


class PrefetchTestCase(SynchronousTestCase):
    """What workers have ahead, two workers, and clients."""

    def setUp(self) -> None:
        """Make them."""
        self.ahead = Prefetch()
        self.ann, self.bob = FakeClient("ann"), FakeClient("bob")
        self.first, self.second = FakeWorker(), FakeWorker()

    def end(self, ran: float, count: int = 1, *, at: float = 1000.0, printed: bool = False) -> Job:
        """Let so many jobs end, each of which ran for so many seconds; the last is returned."""
        jobs = [make_job(self.ann) for _ in range(count)]
        for job in jobs:
            job.started_at, job.ended_at = at - ran, at
            self.ahead.note(job, printed)
        return jobs[-1]

    def room(self, waiting: int = PLENTY, busy: int = 1) -> int:
        """How many jobs the first worker may have ahead."""
        return self.ahead.room(self.first, waiting, busy)

    def give(self, worker: FakeWorker, priority: Priority = NORMAL) -> Job:
        """A job that `worker` was given ahead."""
        job = make_job(self.ann, priority=priority)
        self.ahead.add(worker, job)
        return job


class PaceTests(PrefetchTestCase):
    def test_begins_slow(self) -> None:
        """Before it is known that jobs are short, nothing goes ahead."""
        self.assertEqual(self.room(), 0)
        self.end(0.0)
        self.assertEqual(self.room(), 0)

    def test_a_few_quick_jobs_make_room(self) -> None:
        """Half a dozen jobs that took no time are enough for one ahead, and 24 for the most."""
        self.end(0.0, 6)
        self.assertEqual(self.room(), 1)
        self.end(0.0, 18)
        self.assertEqual(self.room(), MOST)

    def test_quick_jobs(self) -> None:
        """There is room for the most as long as all of them take no longer than they may."""
        self.end(0.9 * SOON / MOST, 50)
        self.assertEqual(self.room(), MOST)

    def test_jobs_of_middling_length(self) -> None:
        """Of longer jobs, as many go ahead as will begin soon."""
        self.end(SOON / 3.5, 50)
        self.assertEqual(self.room(), 3)

    def test_one_ahead(self) -> None:
        """Of jobs each of which takes longer than soon, but is not slow, one goes ahead."""
        for ran in (0.9 * SOON, 2 * SOON, 0.9 * SLOW):
            self.end(ran, 50)
            self.assertEqual(self.room(), 1)

    def test_slow_jobs(self) -> None:
        """Once jobs are slow, nothing goes ahead any more."""
        self.end(0.0, 50)
        self.end(1.1 * SLOW, 50)
        self.assertEqual(self.room(), 0)

    def test_one_very_long_job(self) -> None:
        """A job of an hour among quick ones stops it for no longer than one of 0.1 s does."""
        counts = []
        for ran in (5 * SLOW, 3600.0):
            self.ahead = Prefetch()
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
        """A worker has no more ahead than its share of what waits, rounded down."""
        self.assertEqual([self.room(waiting, 4) for waiting in (0, 3, 4, 11, 12)], [0, 0, 1, 2, 3])
        self.assertEqual(self.room(PLENTY, 4), MOST)

    def test_less_what_it_has(self) -> None:
        """What a worker has ahead takes its own room, and no other's."""
        for _ in range(3):
            self.give(self.first)
        self.assertEqual(self.room(), MOST - 3)
        self.assertEqual(self.ahead.room(self.second, PLENTY, 1), MOST)
        self.ahead.next(self.first)
        self.assertEqual(self.room(), MOST - 2)

    def test_never_too_many(self) -> None:
        """With all that a worker may have, there is room for no more."""
        for _ in range(MOST):
            self.give(self.first)
        self.assertEqual(self.room(), 0)


class QuietTests(PrefetchTestCase):
    def test_quiet(self) -> None:
        """A type none of whose jobs has printed is quiet."""
        self.assertTrue(self.ahead.is_quiet(self.end(0.0), 1000.0))

    def test_printed(self) -> None:
        """A type is not quiet for some time after a job of it has printed, and then it is."""
        job = self.end(0.0, printed=True)
        self.assertFalse(self.ahead.is_quiet(job, 1000.0))
        self.assertFalse(self.ahead.is_quiet(job, 1000.0 + QUIET_TIME - 0.01))
        self.assertTrue(self.ahead.is_quiet(job, 1000.0 + QUIET_TIME))
        self.assertTrue(self.ahead.is_quiet(job, 1000.0 + QUIET_TIME))

    def test_only_its_type(self) -> None:
        """What one type prints says nothing of another."""
        self.end(0.0, printed=True)
        self.assertTrue(self.ahead.is_quiet(make_job(self.ann, "Other"), 1000.0))

    def test_printed_again(self) -> None:
        """The time counts from the last job that printed; silent ones do not end it."""
        self.end(0.0, printed=True)
        self.end(0.0, at=1000.0 + QUIET_TIME - 1, printed=True)
        job = self.end(0.0, at=1000.0 + QUIET_TIME)
        self.assertFalse(self.ahead.is_quiet(job, 1000.0 + QUIET_TIME))
        self.assertTrue(self.ahead.is_quiet(job, 1000.0 + 2 * QUIET_TIME - 1))


class DeckTests(PrefetchTestCase):
    def test_nothing(self) -> None:
        """At first no worker has anything ahead, and asking changes nothing."""
        self.assertFalse(self.ahead)
        self.assertIsNone(self.ahead.longest_waiting())
        self.assertIsNone(self.ahead.next(self.first))
        self.assertEqual(self.ahead.remove(self.first, [1]), [])
        self.assertFalse(self.ahead)

    def test_in_the_order_given(self) -> None:
        """A worker begins its jobs in the order in which it was given them."""
        jobs = [self.give(self.first) for _ in range(3)]
        other = self.give(self.second)
        self.assertEqual([self.ahead.next(self.first) for _ in range(4)], [*jobs, None])
        self.assertIs(self.ahead.next(self.second), other)
        self.assertFalse(self.ahead)

    def test_worker_of_a_job(self) -> None:
        """A job that is ahead knows its worker, still when it is begun, and not when taken back."""
        begun, back = self.give(self.first), self.give(self.first)
        self.assertIs(back.worker, self.first)
        self.ahead.next(self.first)
        self.ahead.remove(self.first, [back.id])
        self.assertEqual((begun.worker, back.worker), (self.first, None))

    def test_remove(self) -> None:
        """Those that are taken back come in their order, whatever that of their ids."""
        begun, *back = [self.give(self.first) for _ in range(3)]
        other = self.give(self.second)
        removed = self.ahead.remove(self.first, [back[1].id, back[0].id, other.id])
        self.assertEqual(removed, back)
        self.assertIs(self.ahead.next(self.first), begun)
        self.assertFalse(self.ahead.has(self.first))
        self.assertTrue(self.ahead.has(self.second))

    def test_remove_all(self) -> None:
        """A worker from which all is taken back has nothing ahead."""
        back = [self.give(self.first) for _ in range(2)]
        self.assertEqual(self.ahead.remove(self.first, {job.id for job in back}), back)
        self.assertFalse(self.ahead.has(self.first))
        self.assertFalse(self.ahead)

    def test_jobs_of_a_client(self) -> None:
        """A client's jobs are found on every worker, and no other's."""
        mine = [self.give(self.first), self.give(self.second)]
        theirs = make_job(self.bob)
        self.ahead.add(self.first, theirs)
        self.assertEqual(self.ahead.jobs_of(self.ann), mine)
        self.assertEqual(self.ahead.jobs_of(self.bob), [theirs])

    def test_lowest(self) -> None:
        """The lowest priority ahead is known whatever is given, begun and taken back."""
        self.assertEqual(self.lowest(), (HIGH, HIGH, HIGH))
        high, low = self.give(self.first, HIGH), self.give(self.first, LOW)
        self.assertEqual(self.lowest(), (LOW, LOW, HIGH))
        normal, also_low = self.give(self.second, NORMAL), self.give(self.second, LOW)
        self.assertEqual(self.lowest(), (LOW, LOW, LOW))
        self.assertEqual(self.ahead.remove(self.first, [low.id]), [low])
        self.assertEqual(self.lowest(), (LOW, HIGH, LOW))
        self.assertEqual(self.ahead.remove(self.second, [also_low.id]), [also_low])
        self.assertEqual(self.lowest(), (NORMAL, HIGH, NORMAL))
        self.assertIs(self.ahead.next(self.second), normal)
        self.assertEqual(self.lowest(), (HIGH, HIGH, HIGH))
        self.assertIs(self.ahead.next(self.first), high)
        self.give(self.first, LOW)
        self.assertEqual(self.lowest(), (LOW, LOW, HIGH))

    def lowest(self) -> tuple[Priority, Priority, Priority]:
        """The lowest priority of all that is ahead, and of what each worker has."""
        of = self.ahead.lowest_of
        return self.ahead.lowest(), of(self.first), of(self.second)

    def test_longest_waiting(self) -> None:
        """The worker that has begun none for longest is known: to be given more changes nothing."""
        for worker in (self.first, self.second, self.first, self.second, self.first):
            self.give(worker)
        self.assertIs(self.ahead.longest_waiting(), self.first)
        self.ahead.next(self.first)
        self.assertIs(self.ahead.longest_waiting(), self.second)
        self.assertEqual(self.ahead.workers(), [self.second, self.first])
        self.ahead.next(self.second)
        self.ahead.next(self.second)
        self.assertEqual(self.ahead.workers(), [self.first])
        self.give(self.second)
        self.assertIs(self.ahead.longest_waiting(), self.first)
