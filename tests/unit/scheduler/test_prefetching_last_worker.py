"""What is prefetched leaves the last worker to the others, as what starts does."""

from __future__ import annotations

from dangad.scheduler.prefetch import CAUTION, LONG, LOOK_INTERVAL
from dangad.scheduler.record import Job, JobState
from tests.fakes import FakeClient, FakeWorker, catalogue
from tests.unit.scheduler.test_dispatcher_prefetching import PrefetchTestCase

PERFORMS = catalogue("Echo", "Sum", "Report")


class LastWorkerTests(PrefetchTestCase):
    def ready(self, performs: str = PERFORMS) -> FakeWorker:
        """A worker that has just said Hello."""
        return super().ready(performs)

    def practise(self) -> None:
        """As there; but of two job types none was ever run."""
        self.workers, self.begun = [], []
        self.worker = self.ready()
        self.run_alone("Echo", 0.0, 30)
        self.worker.given.clear()

    def run_alone(self, command: str, seconds: float, count: int = 1) -> None:
        """So many jobs run for so long each, one after the other."""
        practice = FakeClient("practice")
        for _ in range(count):
            self.submit(practice, command)
            self.clock.advance(seconds)
            self.answer(self.worker)
        self.done = 0

    def goes_behind(self, command: str) -> bool:
        """Whether a job of Bob's is prefetched behind one of Ann's; all end."""
        self.occupy()
        running = self.submit(self.ann)
        job = self.submit(self.bob, command)
        self.answer(self.worker)
        self.assertIs(self.worker.job, running)
        prefetched = self.worker.prefetched == [job]
        self.answer_all(self.worker)
        self.assertIs(job.state, JobState.DONE)
        return prefetched

    def test_long_jobs_beside_short_ones(self) -> None:
        """A client of long jobs has one of two workers, and one of many short ones the other."""
        other = self.ready()
        first = self.submit(self.ann)
        long = self.submit_many(self.bob, 5, "Report")
        ann = first.worker
        worker, busy = (self.worker, other) if ann is self.worker else (other, self.worker)
        self.assertIs(busy.job, long[0])
        short = self.submit_many(self.ann, 15)
        for _ in range(15):
            self.clock.advance(0.01)
            self.answer(worker)
            self.assertIs(worker.job and worker.job.client, self.ann)
            self.assertNotIn(long[1], worker.prefetched)
        self.assertEqual(sum(job.state is JobState.DONE for job in short), 14)

    def test_behind_its_own(self) -> None:
        """Behind its own client's it goes: that has the worker as it is."""
        self.occupy()
        jobs = self.submit_many(self.bob, 3, "Report")
        self.answer(self.worker)
        self.assertEqual(self.worker.prefetched, jobs[1:])

    def test_behind_its_own_and_anothers(self) -> None:
        """It goes behind nothing of its own client's that is behind another's."""
        self.occupy()
        running = self.submit(self.bob)
        echo = self.submit(self.ann)
        self.submit_many(self.bob, 2, "Report")
        self.answer(self.worker)
        self.assertIs(self.worker.job, running)
        self.assertEqual(self.worker.prefetched, [echo])

    def test_known_to_be_short(self) -> None:
        """Behind another client's goes only what is known to be short, by what its type was like.

        One hiccup does no harm; after a long job the type counts as long for so many times as long.
        """
        self.assertFalse(self.goes_behind("Report"))  # none has ended yet
        self.run_alone("Sum", 0.001, 15)
        self.assertTrue(self.goes_behind("Sum"))
        self.run_alone("Echo", 0.03)
        self.run_alone("Sum", 0.0, 5)  # the pace of all jobs is what it was
        self.assertTrue(self.goes_behind("Echo"))
        self.run_alone("Echo", 0.05, 5)
        self.run_alone("Sum", 0.0, 15)
        self.assertFalse(self.goes_behind("Echo"))
        self.run_alone("Echo", 0.0, 15)
        self.assertTrue(self.goes_behind("Echo"))
        self.run_alone("Echo", 1.0)
        self.run_alone("Echo", 0.0, 15)
        self.assertFalse(self.goes_behind("Echo"))
        self.clock.advance(CAUTION * 1.0)
        self.run_alone("Echo", 0.0)
        self.assertTrue(self.goes_behind("Echo"))

    def test_one_has_become_long(self) -> None:
        """So they are while a long job of the type still runs."""
        self.occupy()
        other = self.ready()
        long: Job = self.submit(self.bob)
        self.assertIs(other.job, long)
        self.clock.advance(LONG + LOOK_INTERVAL)
        self.answer(self.worker)
        self.run_alone("Sum", 0.0, 15)
        self.submit(FakeClient("somebody"), "Sum")
        running = self.submit(self.ann, "Sum")
        self.submit_many(self.bob, 4)
        self.answer(self.worker)
        self.assertIs(self.worker.job, running)
        self.assertEqual(self.worker.prefetched, [])
