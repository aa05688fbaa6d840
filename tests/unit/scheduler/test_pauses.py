"""For how long a job that waits for its client to read may keep its worker from others."""

from __future__ import annotations

from dangad.scheduler.pauses import ASIDE, HURRY, KEEP, LOOK_INTERVAL, PATIENCE, RATE
from dangad.scheduler.record import END_STATES, Job, JobState
from dangad.scheduler.wariness import DEBT
from tests.fakes import FakeClient, FakeWorker, catalogue
from tests.unit.scheduler.test_dispatcher import DispatcherTestCase

PERFORMS = catalogue("Echo", "Long")


class PauseTests(DispatcherTestCase):
    def setUp(self) -> None:
        """Have two workers: one for Ann's parts, and one that is busy for somebody else."""
        super().setUp()
        self.eve = FakeClient("eve")
        self.other = self.ready()
        self.busy = self.submit(self.bob)
        self.worker = self.ready()
        self.parts = self.submit(self.ann, wants_chunks=True)

    def pause(self, seconds: float) -> None:
        """Ann does not read for so long, and then does."""
        self.dispatcher.hold(self.ann)
        self.wait(seconds)
        if not self.worker.interrupts:
            self.dispatcher.release(self.ann)

    def wait(self, seconds: float) -> None:
        """Time passes, bit by bit."""
        for _ in range(round(seconds / LOOK_INTERVAL)):
            self.clock.advance(LOOK_INTERVAL)

    def send(self, size: int) -> None:
        """Ann is sent a part."""
        self.dispatcher.answers.job_reported(self.worker, bytes(size), parts=True)

    def test_nobody_waits(self) -> None:
        """While no other job waits, it may wait for its client as long as that likes."""
        self.pause(100 * PATIENCE)
        self.assertEqual(self.worker.interrupts, [])
        self.assertIs(self.answer(self.worker), self.parts)
        self.answer(self.other)

    def test_others_wait(self) -> None:
        """While others wait, it ends when the patience is over; its client is told why."""
        waiting = self.submit(self.eve)
        self.pause(PATIENCE - LOOK_INTERVAL)
        self.assertEqual(self.worker.interrupts, [])
        self.pause(LOOK_INTERVAL)
        self.assertEqual((self.worker.interrupts, self.worker.paused), ([b"cancelled"], False))
        self.die(self.worker)
        self.assertEqual(
            self.ann.failure_of(self.parts),
            "CANCELLED: Echo was ended: its client did not read the parts of its result for 10 s "
            "in all, while other jobs waited for its worker",
        )
        self.assertIs(self.ready().job, waiting)

    def test_only_its_own_wait(self) -> None:
        """Jobs of clients that do not read wait for these, and for no worker."""
        self.submit(self.ann)
        self.pause(3 * PATIENCE)
        self.assertEqual(self.worker.interrupts, [])

    def test_now_and_then(self) -> None:
        """To read a little now and then does not help: all pauses count together."""
        self.submit(self.eve)
        for _ in range(round(PATIENCE) - 1):
            self.pause(1.0)
            self.send(1000)
            self.wait(5.0)
        self.assertEqual(self.worker.interrupts, [])
        self.pause(1.5)
        self.assertEqual(self.worker.interrupts, [b"cancelled"])

    def test_steadily(self) -> None:
        """Who reads steadily may take any time, and more pauses than patience."""
        self.submit(self.eve)
        for _ in range(5 * round(PATIENCE)):
            self.pause(1.0)
            self.send(RATE)
        self.assertEqual(self.worker.interrupts, [])

    def test_all_paused(self) -> None:
        """When all workers are held like this, the one that was longest ends much sooner."""
        self.answer(self.other)
        second = self.submit(self.eve, wants_chunks=True)
        self.assertIs(self.other.job, second)
        waiting = self.submit(self.bob)
        self.dispatcher.hold(self.ann)
        self.wait(LOOK_INTERVAL)
        self.dispatcher.hold(self.eve)
        self.wait(HURRY - LOOK_INTERVAL)
        self.assertEqual((self.worker.interrupts, self.other.interrupts), ([b"cancelled"], []))
        self.die(self.worker)
        self.worker = self.ready()
        self.assertIs(self.worker.job, waiting)
        self.wait(2 * HURRY)
        self.assertEqual(self.other.interrupts, [])

    def test_client_gone(self) -> None:
        """Nothing is looked at any more when the client has gone, or the job has ended."""
        self.submit(self.eve)
        self.dispatcher.hold(self.ann)
        self.leave(self.ann)
        self.die(self.worker)
        self.wait(2 * PATIENCE)
        self.answer(self.other)
        self.answer(self.other)


class ManyUnreadTests(DispatcherTestCase):
    """Many clients ask for parts, and none of them reads any."""

    def setUp(self) -> None:
        """Have room for all of them."""
        super().setUp()
        self.dispatcher.admission.max_queued = 2000
        self.workers: list[FakeWorker] = []
        self.unread: list[FakeClient] = []

    def begin(self, workers: int, unread: int) -> None:
        """Have so many workers, and so many clients that do not read."""
        self.workers = [self.ready(PERFORMS) for _ in range(workers)]
        self.unread = [FakeClient(f"unread {number}") for number in range(unread)]
        for client in self.unread:
            self.submit(client, wants_chunks=True)
        self.go_on(0.0)

    def go_on(self, seconds: float) -> None:
        """Time passes: a job sends parts until it has to wait; one that is to stop does.

        Each that is paused holds its worker; others take no time.
        """
        for _ in range(round(seconds / LOOK_INTERVAL)):
            self.clock.advance(LOOK_INTERVAL)
            self.work()
        self.work()

    def work(self) -> None:
        """Do what there is to do."""
        for index, worker in enumerate(self.workers):
            if worker.interrupts:
                self.die(worker)
                self.workers[index] = self.ready(PERFORMS)
        self.clock.advance(0)
        for worker in self.workers:
            while worker.job is not None and not worker.paused:
                job = worker.job
                if job.wants_chunks and isinstance(job.client, FakeClient):
                    self.dispatcher.hold(job.client)
                    self.assertTrue(worker.paused)
                elif job.command == b"Long":
                    break
                else:
                    self.answer(worker)

    def wait_for(self, job: Job, most: float) -> float:
        """How many seconds pass until `job` has ended; so many at most."""
        since = self.clock.seconds()
        while job.state not in END_STATES:
            self.assertLess(self.clock.seconds() - since, most)
            self.go_on(LOOK_INTERVAL)
        return self.clock.seconds() - since

    def test_others_wait_no_longer_the_more_they_are(self) -> None:
        """A job of somebody else waits for one of them at most, whatever the workers' number."""
        for workers, unread in ((1, 20), (2, 20), (4, 1000)):
            self.begin(workers, unread)
            waits = [self.wait_for(self.submit(self.ann), 60.0) for _ in range(5)]
            self.assertLessEqual(max(waits), HURRY + LOOK_INTERVAL, (workers, unread, waits))
            self.end()

    def test_one_job_after_the_other(self) -> None:
        """Somebody who asks for the next job a moment after the last one finds a worker."""
        for workers, unread in ((1, 20), (2, 20)):
            self.begin(workers, unread)
            self.wait_for(self.submit(self.ann), 60.0)
            for _ in range(30):
                self.clock.advance(KEEP / 2)
                self.work()
                job = self.submit(self.ann)
                self.work()
                self.assertIs(job.state, JobState.DONE)
            self.end()

    def test_new_ones_meanwhile(self) -> None:
        """Nor does it help to ask for parts only then, when none of one's jobs waits."""
        self.begin(1, 2)
        self.wait_for(self.submit(self.ann), 60.0)
        self.leave(self.unread.pop())
        for _ in range(20):
            self.unread.append(FakeClient("again"))
            late = self.submit(self.unread[-1], wants_chunks=True)
            self.assertIs(late.state, JobState.QUEUED)
            self.assertIs(self.submit(self.ann).state, JobState.RUNNING)
            self.work()
            self.clock.advance(KEEP / 2)
        self.go_on(2 * LOOK_INTERVAL)
        assert self.workers[0].job is not None
        self.assertIs(self.workers[0].job.client, self.unread[1])
        self.end()

    def test_beside_a_steady_one(self) -> None:
        """One that has jobs without a pause does not keep them back for ever, nor for long."""
        self.begin(2, 0)
        reader = FakeClient("reads steadily")
        long = self.submit(reader, wants_chunks=True)
        self.submit(self.ann, "Long")
        self.submit(self.bob)
        self.dispatcher.hold(reader)
        self.clock.advance(LOOK_INTERVAL)
        self.dispatcher.release(reader)
        [others] = [worker for worker in self.workers if worker.job is not long]
        self.unread = [FakeClient("wants parts, too")]
        wanted = self.submit(self.unread[0], wants_chunks=True)
        since = self.clock.seconds()
        while wanted.state is JobState.QUEUED:
            self.assertLess(self.clock.seconds() - since, 2 * ASIDE)
            self.answer(others)
            self.clock.advance(KEEP / 4)
            if others.job is None:
                self.submit(self.ann)
            self.clock.advance(KEEP / 4)
        self.assertIs(long.state, JobState.RUNNING)
        self.leave(reader)
        self.end()

    def test_beside_a_long_job(self) -> None:
        """So it is beside a job that takes long: that one leaves its worker to nobody."""
        self.begin(2, 0)
        long = self.submit(self.bob, "Long")
        self.unread = [FakeClient(f"unread {number}") for number in range(20)]
        for client in self.unread:
            self.submit(client, wants_chunks=True)
        self.go_on(2 * HURRY)
        waits = [self.wait_for(self.submit(self.ann), 60.0) for _ in range(5)]
        self.assertLessEqual(max(waits), PATIENCE + LOOK_INTERVAL, waits)
        self.dispatcher.cancel(long)
        self.end()

    def test_many_others(self) -> None:
        """Somebody who always has jobs waiting has one of two workers, and they the other."""
        self.begin(2, 20)
        jobs = [self.submit(self.ann, "Long") for _ in range(10)]
        self.go_on(HURRY)
        for job in jobs:
            self.assertIs(job.state, JobState.RUNNING)
            self.go_on(LOOK_INTERVAL)
            assert isinstance(job.worker, FakeWorker)
            self.answer(job.worker)
            self.work()
        self.end()

    def test_they_go_on(self) -> None:
        """They have their turns again, in their order, when nobody else waits."""
        self.begin(2, 6)
        self.wait_for(self.submit(self.ann), 60.0)
        for _ in range(10):
            self.submit(self.ann)
        self.go_on(200.0)
        told = [client for client in self.unread if client.failures]
        self.assertEqual(told, self.unread[:4])
        self.end()

    def test_cancelled_meanwhile(self) -> None:
        """Those that are kept back end like any that wait: cancelled, or with their client."""
        self.begin(1, 0)
        self.unread = [FakeClient(f"unread {number}") for number in range(4)]
        jobs = [self.submit(client, wants_chunks=True) for client in self.unread]
        long = [self.submit(self.ann, "Long") for _ in range(2)]
        self.work()
        self.go_on(HURRY)
        self.assertIs(long[0].state, JobState.RUNNING)
        self.dispatcher.cancel(jobs[1])
        self.leave(self.unread[2])
        self.clock.advance(0)
        self.assertEqual(self.dispatcher.waiting, 2)
        for job in long:
            assert isinstance(job.worker, FakeWorker)
            self.answer(job.worker)
        self.clock.advance(KEEP)
        self.assertIs(jobs[3].state, JobState.RUNNING)
        self.end()

    def end(self) -> None:
        """All that is left ends."""
        for client in self.unread:
            if not client.gone:
                self.leave(client)
        self.leave(self.ann)
        for _ in range(30):
            self.work()
        for worker in self.workers:
            self.dispatcher.dismiss(worker)
        self.clock.advance(KEEP)
        self.ann = FakeClient("ann")
        self.assertEqual((self.dispatcher.waiting, self.dispatcher.running), (0, 0))


class CostTests(DispatcherTestCase):
    """A client whose jobs cost workers, and one that has a job at a time."""

    def setUp(self) -> None:
        """Have two workers."""
        super().setUp()
        self.workers = [self.ready(), self.ready()]

    def lose(self, client: FakeClient) -> FakeWorker:
        """A job of the client costs a worker; the one that is left."""
        job = self.submit(client)
        worker = job.worker
        assert isinstance(worker, FakeWorker)
        self.dispatcher.cancel(job)
        self.die(worker)
        [left] = [other for other in self.workers if not other.dead]
        return left

    def test_last_worker(self) -> None:
        """Until the worker is replaced, the other one is left to others, job by job."""
        left = self.lose(self.ann)
        self.answer_one(self.bob)
        wanted = self.submit(self.ann)
        for _ in range(5):
            self.answer_one(self.bob)
            self.clock.advance(KEEP / 2)
            self.assertIs(wanted.state, JobState.QUEUED)
        self.ready()
        self.assertIs(wanted.state, JobState.RUNNING)
        self.answer_one(self.bob)
        assert isinstance(wanted.worker, FakeWorker)
        self.answer(wanted.worker)
        self.assertIsNone(left.job)
        self.clock.advance(KEEP)

    def answer_one(self, client: FakeClient) -> None:
        """A job of the client is done at once."""
        job = self.submit(client)
        assert isinstance(job.worker, FakeWorker)
        self.answer(job.worker)
        self.assertIs(job.state, JobState.DONE)

    def test_nobody_else(self) -> None:
        """With nobody else there it is not kept back at all."""
        self.lose(self.ann)
        job = self.submit(self.ann)
        assert isinstance(job.worker, FakeWorker)
        self.answer(job.worker)

    def test_no_replacement(self) -> None:
        """If none can be started, that counts no longer after a time."""
        self.lose(self.ann)
        since = self.clock.seconds()
        self.answer_one(self.bob)
        wanted = self.submit(self.ann)
        while wanted.state is JobState.QUEUED:
            self.assertLessEqual(self.clock.seconds() - since, DEBT)
            self.answer_one(self.bob)
            self.clock.advance(KEEP / 2)
        assert isinstance(wanted.worker, FakeWorker)
        self.answer(wanted.worker)

    def test_order(self) -> None:
        """Jobs of one client that stand back keep their order, whichever of them can start."""
        self.lose(self.ann)
        self.answer_one(self.bob)
        jobs = [self.submit(self.ann) for _ in range(4)]
        self.clock.advance(KEEP)
        for job in jobs:
            assert isinstance(job.worker, FakeWorker)
            self.answer(job.worker)

    def test_prefetched(self) -> None:
        """When that is over they are not overtaken by jobs that came later, and are prefetched."""
        self.lose(self.ann)
        self.answer_one(self.bob)
        jobs = [self.submit(self.ann) for _ in range(5)]
        self.assertEqual({job.state for job in jobs}, {JobState.QUEUED})
        workers = [worker for worker in self.workers if not worker.dead] + [self.ready()]
        later = [self.submit(self.ann) for _ in range(5)]
        for _ in range(10):
            for worker in workers:
                if worker.job is not None:
                    self.answer(worker)
        ended = [job for job, *_ in self.ann.answers if job in jobs or job in later]
        self.assertEqual(set(ended[:5]), set(jobs))
        self.assertEqual(len(ended), 10)
        self.clock.advance(KEEP)
