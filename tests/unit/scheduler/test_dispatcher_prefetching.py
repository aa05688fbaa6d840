from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dangad.scheduler.endings import GRACE
from dangad.scheduler.prefetch import MOST, MOST_BYTES, QUIET_TIME, SLOW
from dangad.scheduler.record import Death, Job, JobState
from dangad.scheduler.retries import FIRST_RETRY
from dangad.scheduler.state import AGEING
from dangad.wire.values import Priority
from tests.fakes import FakeClient, FakeWorker, catalogue
from tests.unit.scheduler.test_dispatcher import MAX_QUEUED, DispatcherTestCase

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

HIGH, NORMAL, LOW = Priority
PERFORMS = catalogue(
    "Echo",
    "Print",
    Few={"max_running": 1},
    Timed={"time_limit": 5.0},
    Again={"retries": 2},
    Finish={"on_disconnect": "finish"},
)
WITHOUT_AGAIN = catalogue("Echo")


class PrefetchTestCase(DispatcherTestCase):
    """A dispatcher, and a worker whose jobs have all been short, so that some are prefetched."""

    def setUp(self) -> None:
        """Have the worker do many jobs in no time."""
        super().setUp()
        self.practise()

    def practise(self) -> None:
        """Have a worker that is new to the dispatcher do many jobs in no time."""
        self.worker = self.ready()
        practice = FakeClient("practice")
        for command in ("Print", "Few", "Timed", "Again", "Finish", "Echo"):
            for _ in range(30):
                self.submit(practice, command)
                self.answer(self.worker)
        self.done = len(practice.answers)
        self.worker.given.clear()
        self.worker.boxes.clear()

    def ready(self, performs: str = PERFORMS) -> FakeWorker:
        """A worker that has just said Hello."""
        worker = FakeWorker()
        worker.say_hello()
        self.dispatcher.worker_ready(worker, performs)
        return worker

    def answer(
        self,
        worker: FakeWorker,
        failed: bool = False,
        body: bytes = b"\0\0",
        *,
        reusable: bool = True,
        printed: bool = False,
    ) -> Job:
        """Have `worker` answer its job, which is returned."""
        reusable = reusable and worker.killed is None
        job = worker.finish(reusable or worker.begun > 0)
        self.dispatcher.answers.job_finished(
            worker, failed, body, b"250000 2000", reusable=reusable, printed=printed
        )
        return job

    def read(self, worker: FakeWorker) -> None:
        """Read the answers that `worker` has written to jobs before the last that it has begun."""
        while worker.begun:
            self.answer(worker)

    def die_unread(self, worker: FakeWorker) -> None:
        """Have `worker` be gone before it had read its job."""
        unread = worker.boxes[-1]
        worker.die()
        self.dispatcher.worker_gone(worker, Death("was killed by SIGKILL", unread=unread))

    def submit_many(self, client: FakeClient, count: int, *args: Any, **options: Any) -> list[Job]:
        """So many jobs of `client`, submitted."""
        return [self.submit(client, *args, **options) for _ in range(count)]

    def occupy(self) -> Job:
        """Have the worker run a job of somebody who wants no other."""
        return self.submit(FakeClient("somebody"))

    def prefetch(
        self, client: FakeClient, count: int, command: str = "Echo", **options: Any
    ) -> tuple[Job, list[Job]]:
        """Have the worker run a job of Ann's, with so many of `client` prefetched; all jobs."""
        self.occupy()
        running = self.submit(self.ann)
        prefetched = self.submit_many(client, count, command, **options)
        self.answer(self.worker)
        self.assertIs(self.worker.job, running)
        self.assertEqual(self.worker.prefetched, prefetched)
        return running, prefetched

    def answer_all(self, *workers: FakeWorker) -> None:
        """Have these workers, in turns, answer until none of them has a job."""
        while any(worker.job for worker in workers):
            for worker in workers:
                if worker.job is not None:
                    self.answer(worker)

    def counts(self) -> tuple[int, int]:
        """How many jobs wait, and how many run."""
        return self.dispatcher.waiting, self.dispatcher.running

    def ended(self) -> dict[str, int]:
        """How many jobs came to which end, without those to which none came, nor the practice."""
        ended = super().ended()
        ended["done"] -= self.done
        return {state: count for state, count in ended.items() if count}


class GivingTests(PrefetchTestCase):
    def test_backlog(self) -> None:
        """A worker that ends a job while others wait runs the next, and has some prefetched."""
        jobs = self.submit_many(self.ann, 5)
        self.answer(self.worker)
        self.assertIs(self.worker.job, jobs[1])
        self.assertEqual(self.worker.prefetched, jobs[2:])
        self.assertEqual({job.worker for job in jobs[2:]}, {self.worker})
        self.assertEqual({(job.state, job.attempt) for job in jobs[2:]}, {(JobState.PREFETCHED, 0)})
        self.assertEqual(self.counts(), (3, 1))

    def test_only_when_a_job_ends(self) -> None:
        """What comes while a worker is busy waits until it ends its job."""
        self.submit_many(self.ann, 5)
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (4, 1)))

    def test_not_before_jobs_are_known_to_be_short(self) -> None:
        """A dispatcher that knows nothing of its jobs prefetches none."""
        self.serve()
        worker = self.ready()
        self.done = 0
        self.submit_many(self.ann, 5)
        self.answer(worker)
        self.assertEqual((worker.prefetched, self.counts()), ([], (3, 1)))
        self.answer_all(worker)
        self.assertEqual(self.ended(), {"done": 5})

    def test_not_after_long_jobs(self) -> None:
        """When jobs have come to be long, nothing is prefetched any more."""
        jobs = self.submit_many(self.ann, 9)
        for _ in range(5):
            self.clock.advance(1)
            self.answer(self.worker)
        self.assertEqual((self.worker.job, self.worker.prefetched), (jobs[5], []))

    def test_one_for_each_busy_worker(self) -> None:
        """Nothing is prefetched as long as fewer jobs wait than workers are busy."""
        other = self.ready()
        self.submit_many(self.ann, 4)
        self.answer(self.worker)
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (1, 2)))
        last, more = self.submit_many(self.ann, 2)
        self.answer(self.worker)
        self.assertEqual((self.worker.prefetched, other.prefetched), ([last], []))
        self.assertIsNone(more.worker)

    def test_shared(self) -> None:
        """Workers have no more prefetched than their share, and leave the rest to the others."""
        other = self.ready()
        jobs = self.submit_many(self.ann, 12)
        self.answer(self.worker)
        self.answer(other)
        self.assertEqual(self.worker.prefetched, jobs[3:7])
        self.assertEqual(other.prefetched, jobs[8:])
        self.answer_all(self.worker, other)
        self.assertEqual(self.ended(), {"done": 12})

    def test_most(self) -> None:
        """However many wait, a worker has only so many prefetched, and is given more for each."""
        jobs = self.submit_many(self.ann, 15)
        self.answer(self.worker)
        self.assertEqual(self.worker.prefetched, jobs[2 : 2 + MOST])
        self.answer(self.worker)
        self.assertEqual(self.worker.prefetched, jobs[3 : 3 + MOST])
        self.assertEqual(self.counts(), (12, 1))

    def test_order(self) -> None:
        """Jobs begin in the order of the queue: by priority, and in turns between clients."""
        first = self.submit(self.ann)
        low = self.submit(self.bob, priority=LOW)
        mine = self.submit_many(self.ann, 3)
        theirs = self.submit_many(self.bob, 2)
        high = self.submit(self.bob, priority=HIGH)
        self.answer_all(self.worker)
        order = [first, high, mine[0], theirs[0], mine[1], theirs[1], mine[2], low]
        self.assertEqual(self.worker.given, order)
        self.assertEqual(self.ended(), {"done": 8})

    def test_begin(self) -> None:
        """With the answer to the job before, the next runs, for the first time."""
        _, (job,) = self.prefetch(self.bob, 1, box=b"\0\1kvalue\0\0")
        self.clock.advance(0.5)
        self.answer(self.worker)
        self.assertIs(self.worker.job, job)
        self.assertEqual((job.state, job.attempt), (JobState.RUNNING, 1))
        self.assertEqual((job.pid, job.started_at, job.wait), (self.worker.pid, 1000.5, 0.5))
        self.assertIs(self.dispatcher.job_of(self.worker), job)
        self.assertEqual(self.worker.boxes[-1], b"\0\1kvalue\0\0")
        self.assertEqual(job.box, b"")
        self.assertEqual(self.counts(), (0, 1))
        self.answer(self.worker, body=b"\0\1kanswer\0\0")
        self.assertEqual(self.bob.answers, [(job, False, b"\0\1kanswer\0\0")])
        self.assertEqual((self.dispatcher.idle, self.counts()), (1, (0, 0)))

    def test_begins_before_the_answer_is_told(self) -> None:
        """When the answer to a job is told, the next is seen to run already."""
        _, (job,) = self.prefetch(self.bob, 1)
        seen: list[Any] = []
        self.ann.when_told = lambda _: seen.append(job.state)
        self.answer(self.worker)
        self.assertEqual(seen, [JobState.RUNNING])

    def test_counts_as_waiting(self) -> None:
        """What is prefetched takes the room of jobs that wait, in number and in bytes."""
        self.submit_many(self.ann, MAX_QUEUED + 1)
        self.answer(self.worker)
        self.assertEqual((len(self.worker.prefetched), self.counts()), (MOST, (MAX_QUEUED - 1, 1)))
        self.submit(self.bob)
        self.assertIn("QUEUE_FULL", self.bob.failure_of(self.submit(self.bob)))

    def test_bytes_count_as_waiting(self) -> None:
        """The bytes of what is prefetched count among those that wait, until it begins."""
        self.serve(max_queued_bytes=250)
        self.practise()
        self.prefetch(self.bob, 2, box=bytes(100))
        self.assertIn("QUEUE_FULL", self.bob.failure_of(self.submit(self.bob, box=bytes(100))))
        self.answer(self.worker)
        self.submit(self.bob, box=bytes(100))
        self.assertEqual(self.counts(), (2, 1))

    def test_demand(self) -> None:
        """What is prefetched counts among the jobs for which workers are asked."""
        self.prefetch(self.ann, 3)
        self.submit(self.ann)
        self.assertEqual(self.supervisor.demands[-1], 4)


class KeptBackTests(PrefetchTestCase):
    def not_prefetched(self, *jobs: Job) -> None:
        """The worker, which now ends its job, has none of `jobs` prefetched; all end well."""
        waiting = self.dispatcher.waiting
        self.answer(self.worker)
        self.assertEqual(self.worker.prefetched, [])
        self.assertEqual(self.counts(), (waiting - 1, 1))
        self.answer_all(self.worker)
        self.assertEqual({job.state for job in jobs}, {JobState.DONE})

    def test_limited(self) -> None:
        """Jobs of which only so many may run are not prefetched."""
        self.occupy()
        self.submit(self.ann)
        self.not_prefetched(*self.submit_many(self.bob, 4, "Few"))

    def test_limited_among_others(self) -> None:
        """Never do more of a limited type run than may, and what is behind a job is not lost."""
        other = self.ready()
        for _ in range(3):
            self.submit(self.ann)
            self.submit(self.bob, "Few")
        few: list[Job] = []
        while self.dispatcher.running:
            for worker in (self.worker, other):
                running = [each.job for each in (self.worker, other) if each.job is not None]
                limited = [job for job in running if job.command == b"Few"]
                self.assertLessEqual(len(limited), 1)
                few += limited
                self.assertNotIn(b"Few", {job.command for job in worker.prefetched})
                if worker.job is not None:
                    self.answer(worker)
        self.assertEqual(len(set(few)), 3)
        self.assertEqual(self.ended(), {"done": 6})

    def test_large(self) -> None:
        """A request that fills a page is not prefetched, nor is what has its turn after it."""
        self.occupy()
        self.submit(self.ann)
        large = self.submit(self.bob, box=bytes(MOST_BYTES + 1))
        self.not_prefetched(large, *self.submit_many(self.bob, 3))

    def test_just_small_enough(self) -> None:
        """A request that has just room in a page is prefetched."""
        self.prefetch(self.bob, 2, box=bytes(MOST_BYTES))

    def test_printed(self) -> None:
        """Jobs of a type that has printed recently are not prefetched; later they are."""
        self.submit(self.ann, "Print")
        self.answer(self.worker, printed=True)
        self.submit_many(self.ann, 2)
        self.not_prefetched(*self.submit_many(self.bob, 3, "Print"))
        self.clock.advance(QUIET_TIME)
        self.prefetch(self.bob, 3, "Print")

    def test_behind_one_that_prints(self) -> None:
        """Nothing is prefetched by a worker that runs a job of a type that has printed recently."""
        self.submit_many(self.ann, 2, "Print")
        jobs = self.submit_many(self.ann, 3)
        self.answer(self.worker, printed=True)
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (3, 1)))
        self.answer(self.worker)
        self.assertEqual(self.worker.prefetched, jobs[1:])

    def test_worker_that_takes_none(self) -> None:
        """A worker that can prefetch none gets its jobs one by one."""
        self.worker.can_prefetch = False
        self.submit_many(self.ann, 2)
        self.not_prefetched(*self.submit_many(self.bob, 3))

    def test_worker_that_has_no_room(self) -> None:
        """A job that a worker cannot take now waits on, and is the next."""
        mine, theirs = self.submit_many(self.ann, 3), self.submit_many(self.bob, 3)
        self.patch(self.worker, "_give_more", lambda job: False)
        self.answer(self.worker)
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (4, 1)))
        self.die(self.worker)
        other = self.ready()
        self.answer_all(other)
        self.assertEqual(other.given, [mine[1], theirs[1], mine[2], theirs[2]])
        self.assertEqual(self.ended(), {"done": 5, "lost": 1})

    def test_on_hold(self) -> None:
        """Jobs of a client on hold are not prefetched; those of others are."""
        self.submit_many(self.ann, 2)
        held = self.submit_many(self.bob, 2)
        others = self.submit_many(self.ann, 2)
        self.dispatcher.hold(self.bob)
        self.answer(self.worker)
        self.assertEqual(self.worker.prefetched, others)
        self.dispatcher.release(self.bob)
        self.answer_all(self.worker)
        self.assertEqual({job.state for job in held}, {JobState.DONE})

    def test_workers_that_differ(self) -> None:
        """While not all workers perform the same, nothing is prefetched."""
        other = self.ready(WITHOUT_AGAIN)
        jobs = self.submit_many(self.ann, 8)
        self.answer(self.worker)
        self.answer(other)
        self.assertEqual(
            (self.worker.prefetched, other.prefetched, self.counts()), ([], [], (4, 2))
        )
        self.die(self.worker)
        self.answer(other)
        self.assertEqual((other.job, other.prefetched), (jobs[4], jobs[5:]))

    def test_aged(self) -> None:
        """An aged job is not prefetched while a higher one waits, whose turn is the one after."""
        self.ann.outranks = self.bob.outranks = True
        self.dispatcher.hold(self.bob)
        low = self.submit_many(self.bob, 2, priority=LOW)
        self.clock.advance(AGEING)
        normal = self.submit_many(self.ann, 4)
        self.dispatcher.release(self.bob)
        self.answer(self.worker)
        self.assertEqual((self.worker.job, self.worker.prefetched), (low[0], normal[1:2]))
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given, [normal[0], low[0], normal[1], low[1], *normal[2:]])

    def test_deadline_reached(self) -> None:
        """A job whose deadline is reached is not prefetched, though the reactor is late."""
        self.dispatcher.hold(self.bob)
        late = self.submit(self.bob, deadline=1.0)
        self.clock.rightNow += 1.0
        self.occupy()
        self.submit(self.ann)
        self.dispatcher.release(self.bob)
        self.answer(self.worker)
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (1, 1)))
        self.clock.advance(0)
        self.assertEqual(late.state, JobState.TIMED_OUT)

    def test_limit_comes_behind_a_begun_job(self) -> None:
        """A job that was begun before its type came to have a limit counts among those that run."""
        _, jobs = self.prefetch(self.bob, 3)
        self.worker.go_on()
        other = self.ready(catalogue(Echo={"max_running": 1}))
        self.answer(self.worker)
        self.assertEqual((self.worker.job, other.job), (jobs[0], None))
        self.answer(self.worker)
        self.assertEqual((self.worker.job, other.job).count(None), 1)


class ReclaimTests(PrefetchTestCase):
    def test_idle_worker(self) -> None:
        """A worker that becomes idle begins what another has prefetched, and leaves it the rest."""
        other = self.ready()
        jobs = self.submit_many(self.ann, 6)
        self.answer(self.worker)
        self.assertEqual(self.worker.prefetched, jobs[3:4])
        self.answer(other)
        self.answer(other)
        self.assertEqual((other.job, self.worker.prefetched), (jobs[5], jobs[3:4]))
        self.answer(other)
        self.assertEqual((other.job, self.worker.prefetched), (jobs[3], []))
        self.assertIs(jobs[3].worker, other)
        self.assertEqual(self.counts(), (0, 2))
        self.answer_all(self.worker, other)
        self.assertEqual(self.ended(), {"done": 6})

    def test_new_worker(self) -> None:
        """A worker that boots begins what another has prefetched; the rest waits in its order."""
        _, jobs = self.prefetch(self.bob, 4)
        other = self.ready()
        self.assertEqual((other.job, self.worker.prefetched), (jobs[0], []))
        self.assertEqual({job.worker for job in jobs[1:]}, {None})
        self.assertEqual(self.counts(), (3, 2))
        self.answer_all(other)
        self.assertEqual(other.given, jobs)

    def test_begun_jobs_stay(self) -> None:
        """A new worker gets what the other has not begun, and what it has stays where it is."""
        _, jobs = self.prefetch(self.bob, 4)
        self.worker.go_on()
        self.worker.go_on()
        other = self.ready()
        self.answer_all(other)
        self.assertEqual(other.given, jobs[2:])
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[2:], jobs[:2])
        self.assertEqual(self.ended(), {"done": 6})

    def test_answers_are_told_in_order(self) -> None:
        """The answers of jobs that were begun unnoticed reach their clients in order, each once."""
        running, jobs = self.prefetch(self.ann, 3)
        for _ in jobs:
            self.worker.go_on()
        self.dispatcher.cancel(jobs[2])
        self.read(self.worker)
        self.assertEqual([job for job, _, _ in self.ann.answers], [running, *jobs[:2]])
        self.assertEqual((self.worker.job, self.worker.interrupts), (jobs[2], [b"cancelled"]))

    def test_higher_priority(self) -> None:
        """A more urgent job that arrives starts before the others of its round."""
        _, jobs = self.prefetch(self.bob, 3)
        high = self.submit(self.ann, priority=HIGH)
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (4, 1)))
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[2:], [jobs[0], high, *jobs[1:]])

    def test_higher_priority_after_one_was_begun(self) -> None:
        """What a worker has begun comes before a more urgent job that arrives, the rest after."""
        _, jobs = self.prefetch(self.bob, 3)
        self.worker.go_on()
        high = self.submit(FakeClient("other"), priority=HIGH)
        self.assertEqual(self.worker.prefetched, jobs[:1])
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[2:], [jobs[0], high, *jobs[1:]])

    def test_higher_priority_with_two_workers(self) -> None:
        """A worker gives back what is less urgent than what arrives, and one keeps what is not."""
        self.ann.outranks = self.bob.outranks = True
        other = self.ready()
        high = self.submit_many(self.ann, 8, priority=HIGH)
        low = self.submit_many(self.bob, 4, priority=LOW)
        self.answer(self.worker)
        self.answer(other)
        self.assertEqual((self.worker.prefetched, other.prefetched), (high[3:7], low))
        normal = self.submit(self.ann)
        self.assertEqual((self.worker.prefetched, other.prefetched), (high[3:7], []))
        self.answer(other)
        self.assertIs(other.job, normal)
        self.answer_all(self.worker, other)
        self.assertEqual(self.ended(), {"done": 13})

    def test_same_priority(self) -> None:
        """A job that is no more urgent reclaims nothing."""
        _, jobs = self.prefetch(self.bob, 3)
        last = self.submit(self.ann)
        lower = self.submit(self.ann, priority=LOW)
        self.assertEqual((self.worker.prefetched, self.worker.reclaimed), (jobs, 0))
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[2:], [*jobs, last, lower])

    def test_higher_priority_that_may_not_start(self) -> None:
        """A more urgent job of a client on hold reclaims nothing until its release."""
        self.dispatcher.hold(self.ann)
        self.prefetch_of_bob()
        jobs = list(self.worker.prefetched)
        high = self.submit(self.ann, priority=HIGH)
        self.assertEqual(self.worker.prefetched, jobs)
        self.dispatcher.release(self.ann)
        self.assertEqual(self.worker.prefetched, [])
        self.answer(self.worker)
        self.assertIs(self.worker.job, high)

    def prefetch_of_bob(self) -> None:
        """Have the worker run a job of Bob's, with three of his prefetched."""
        self.submit_many(self.bob, 5)
        self.answer(self.worker)
        self.assertEqual(len(self.worker.prefetched), 3)

    def test_higher_priority_that_may_start_at_last(self) -> None:
        """A more urgent job that the end of another lets start does so in its turn."""
        self.occupy()
        self.submit(self.ann, "Few", HIGH)
        jobs = self.submit_many(self.bob, 2)
        self.answer(self.worker)
        high = self.submit(self.ann, "Few", HIGH)
        self.assertEqual(self.worker.prefetched, jobs)
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[2:], [jobs[0], high, jobs[1]])

    def test_behind_a_long_job(self) -> None:
        """What a worker has prefetched behind a long job is reclaimed when another ends a job."""
        other, stuck = self.late(1.5 * SLOW)
        self.assertEqual(self.worker.prefetched, [])
        self.assertNotIn(self.worker, {job.worker for job in stuck})
        long = self.worker.job
        self.answer_all(other)
        self.assertEqual(set(stuck) - set(other.given), set())
        self.assertEqual((self.worker.job, self.counts()), (long, (0, 1)))

    def test_behind_a_job_that_is_not_long_yet(self) -> None:
        """What a worker has prefetched behind a short job stays when another ends a job."""
        _, stuck = self.late(0.5 * SLOW)
        self.assertEqual(self.worker.prefetched, stuck)

    def late(self, seconds: float) -> tuple[FakeWorker, list[Job]]:
        """Another worker, which has ended a job so much later; what the first had prefetched."""
        other = self.ready()
        self.submit_many(self.ann, 12)
        self.answer(self.worker)
        self.answer(other)
        stuck = list(self.worker.prefetched)
        self.assertEqual(len(stuck), 4)
        self.clock.advance(seconds)
        self.answer(other)
        return other, stuck


class PrefetchedCancelTests(PrefetchTestCase):
    def test_not_begun(self) -> None:
        """A prefetched job that is cancelled never runs, and its worker goes on undisturbed."""
        running, jobs = self.prefetch(self.bob, 3)
        self.dispatcher.cancel(jobs[1])
        text = "CANCELLED: Echo was cancelled while it waited; it never ran"
        self.assertEqual(self.bob.failure_of(jobs[1]), text)
        self.assertEqual((jobs[1].state, jobs[1].attempt), (JobState.CANCELLED, 0))
        self.assertEqual((self.worker.job, self.worker.interrupts), (running, []))
        self.assertIsNone(self.worker.killed)
        self.assertEqual(self.counts(), (2, 1))
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[2:], [jobs[0], jobs[2]])
        self.assertEqual(self.ended(), {"done": 4, "cancelled": 1})

    def test_begun(self) -> None:
        """A job that was begun unnoticed is interrupted, and the one before it is answered."""
        running, jobs = self.prefetch(self.bob, 3)
        self.worker.go_on()
        self.dispatcher.cancel(jobs[0])
        self.assertEqual((self.worker.interrupts, self.counts()), ([b"cancelled"], (3, 1)))
        self.read(self.worker)
        self.assertEqual(self.ann.answers[-1], (running, False, b"\0\0"))
        self.assertEqual((self.worker.job, self.worker.interrupts), (jobs[0], [b"cancelled"]))
        self.assertEqual((jobs[0].state, self.counts()), (JobState.RUNNING, (2, 1)))
        other = self.ready()
        self.assertIs(other.job, jobs[1])
        self.clock.advance(GRACE)
        self.die(self.worker)
        self.assertIn("CANCELLED: Echo was cancelled 0.0 s into", self.bob.failure_of(jobs[0]))
        self.answer_all(other)
        self.assertEqual(self.ended(), {"done": 4, "cancelled": 1})

    def test_begun_and_answers(self) -> None:
        """The answer of a job that was begun unnoticed and cancelled is dropped."""
        _, jobs = self.prefetch(self.bob, 1)
        self.worker.go_on()
        self.dispatcher.cancel(jobs[0])
        self.answer(self.worker)
        self.assertEqual((self.bob.answers, self.bob.failures), ([], []))
        self.die(self.worker)
        self.assertIn("CANCELLED", self.bob.failure_of(jobs[0]))
        self.assertEqual(self.ended(), {"done": 2, "cancelled": 1})

    def test_before_one_that_was_begun(self) -> None:
        """A job that has been answered, though nobody has noticed, is not cancelled any more."""
        running, jobs = self.prefetch(self.bob, 2)
        self.worker.go_on()
        self.dispatcher.cancel(running)
        self.read(self.worker)
        self.assertEqual(self.ann.answers[-1], (running, False, b"\0\0"))
        self.assertEqual((self.worker.job, self.worker.interrupts), (jobs[0], []))
        self.answer_all(self.worker)
        self.assertEqual(self.ended(), {"done": 4})

    def test_behind_one_that_was_begun(self) -> None:
        """To cancel a job that was not begun leaves alone the one before it, which was."""
        _, jobs = self.prefetch(self.bob, 2)
        self.worker.go_on()
        self.dispatcher.cancel(jobs[1])
        self.assertIn("while it waited", self.bob.failure_of(jobs[1]))
        self.assertEqual((self.worker.interrupts, self.worker.killed), ([], None))
        self.answer_all(self.worker)
        self.assertEqual(self.ended(), {"done": 3, "cancelled": 1})

    def test_running(self) -> None:
        """A running job that is cancelled has nothing prefetched any more, and others do that."""
        running, jobs = self.prefetch(self.bob, 2)
        self.dispatcher.cancel(running)
        self.assertEqual((self.worker.interrupts, self.worker.prefetched), ([b"cancelled"], []))
        self.die(self.worker)
        other = self.ready()
        self.answer_all(other)
        self.assertEqual(other.given, jobs)
        self.assertEqual(self.ended(), {"done": 3, "cancelled": 1})

    def test_twice(self) -> None:
        """To cancel a prefetched job once more, or when it has ended, changes nothing."""
        _, jobs = self.prefetch(self.bob, 2)
        for _ in range(2):
            self.dispatcher.cancel(jobs[0])
        self.assertEqual((len(self.bob.failures), self.counts()), (1, (1, 1)))

    def test_all_from_an_answer(self) -> None:
        """A client may cancel all that is prefetched while it is told of the answer before."""
        _, jobs = self.prefetch(self.ann, 3)
        self.ann.when_told = lambda _: self.cancel_all(jobs)
        self.answer(self.worker)
        self.assertEqual(self.worker.interrupts, [b"cancelled"])
        self.assertEqual({job.state for job in jobs[1:]}, {JobState.CANCELLED})
        self.die(self.worker)
        self.assertEqual(self.ended(), {"done": 2, "cancelled": 3})

    def test_all_while_its_answers_are_read(self) -> None:
        """A client may cancel what was begun as well while it is told of the answer before."""
        _, jobs = self.prefetch(self.ann, 3)
        self.worker.go_on()
        self.worker.go_on()
        self.ann.when_told = lambda _: self.cancel_all(jobs[1:])
        self.read(self.worker)
        self.assertEqual((self.worker.job, self.worker.interrupts), (jobs[1], [b"cancelled"]))
        self.die(self.worker)
        self.assertEqual(self.ended(), {"done": 3, "cancelled": 2})

    def test_behind_one_that_was_begun_and_cancelled(self) -> None:
        """A worker that is to end a job which it began unnoticed prefetches nothing behind it."""
        running, jobs = self.prefetch(self.bob, 1)
        later = self.submit_many(self.ann, 2)
        self.worker.go_on()
        self.dispatcher.cancel(jobs[0])
        self.assertIs(self.answer(self.worker), running)
        self.assertEqual((self.worker.job, self.worker.prefetched), (jobs[0], []))
        self.die(self.worker)
        other = self.ready()
        self.answer_all(other)
        self.assertEqual(other.given, later)

    def test_cancelled_and_its_worker_killed(self) -> None:
        """An answer that a worker wrote before it was killed counts, and the next job is lost."""
        running, jobs = self.prefetch(self.bob, 1)
        self.worker.go_on()
        self.worker.kill("grew too large, and was killed")
        self.read(self.worker)
        self.die(self.worker)
        self.assertEqual(self.ann.answers[-1], (running, False, b"\0\0"))
        self.assertIn("WORKER_LOST", self.bob.failure_of(jobs[0]))
        self.assertEqual(self.ended(), {"done": 2, "lost": 1})


class TimeTests(PrefetchTestCase):
    def test_deadline_not_begun(self) -> None:
        """A prefetched job whose deadline passes never runs; its worker is undisturbed."""
        running, jobs = self.prefetch(self.bob, 2, deadline=3.0)
        self.clock.advance(3)
        text = "DEADLINE_PASSED: Echo waited for its deadline, 3 s"
        self.assertEqual([self.bob.failure_of(job) for job in jobs], [text, text])
        self.assertEqual((self.worker.job, self.worker.interrupts), (running, []))
        self.answer_all(self.worker)
        self.assertEqual(len(self.worker.given), 2)
        self.assertEqual(self.ended(), {"done": 2, "timed out": 2})

    def test_deadline_begun(self) -> None:
        """A job whose deadline passes after it was begun unnoticed is stopped like any other."""
        running, jobs = self.prefetch(self.bob, 2)
        timely = self.submit(self.bob, deadline=3.0)
        self.answer(self.worker)
        self.assertEqual(self.worker.prefetched, [jobs[1], timely])
        self.worker.go_on()
        self.worker.go_on()
        self.clock.advance(3)
        self.read(self.worker)
        self.assertEqual((self.worker.job, self.worker.interrupts), (timely, [b"time"]))
        self.assertEqual({job.state for job in (running, *jobs)}, {JobState.DONE})
        self.clock.advance(GRACE)
        self.assertIsNotNone(self.worker.killed)
        self.die(self.worker)
        self.assertIn("reached its deadline, 3 s", self.bob.failure_of(timely))
        self.assertEqual(self.ended(), {"done": 4, "timed out": 1})

    def test_deadline_reclaimed(self) -> None:
        """A job that was reclaimed still has its deadline, and is told what is left of it."""
        _, (job,) = self.prefetch(self.bob, 1, deadline=3.0)
        self.assertEqual(job.seconds, 3.0)
        self.clock.advance(1)
        other = self.ready()
        self.assertEqual((other.job, job.seconds), (job, 2.0))
        self.clock.advance(2)
        self.assertEqual(other.interrupts, [b"time"])
        self.die(other)
        self.answer(self.worker)
        self.assertEqual(self.ended(), {"done": 2, "timed out": 1})

    def test_time_limit(self) -> None:
        """A job's time limit counts from when it begins, not from when it was prefetched."""
        _, jobs = self.prefetch(self.bob, 2, "Timed")
        self.clock.advance(4)
        self.answer(self.worker)
        self.assertIs(self.worker.job, jobs[0])
        self.clock.advance(4.9)
        self.assertEqual(self.worker.interrupts, [])
        self.clock.advance(0.1)
        self.assertEqual((self.worker.interrupts, self.worker.prefetched), ([b"time"], []))
        self.clock.advance(GRACE)
        self.die(self.worker)
        text = "TIMED_OUT: Timed ran for its time limit, 5.0 s, after it had waited 4.0 s"
        self.assertEqual(self.bob.failure_of(jobs[0]), text)
        self.assertIs(self.ready().job, jobs[1])

    def test_time_limit_of_what_was_answered(self) -> None:
        """A job that was answered within its time, though nobody has noticed, keeps its answer."""
        _, jobs = self.prefetch(self.bob, 2, "Timed")
        self.answer(self.worker)
        self.clock.advance(4)
        self.worker.go_on()
        self.clock.advance(1)
        self.read(self.worker)
        self.assertEqual([job for job, _, _ in self.bob.answers], jobs[:1])
        self.assertEqual((self.worker.job, self.worker.interrupts), (jobs[1], []))
        self.answer(self.worker)
        self.assertEqual(self.ended(), {"done": 4})


class PrefetchedClientTests(PrefetchTestCase):
    def test_gone_not_begun(self) -> None:
        """What a client that leaves has prefetched never runs; its worker goes on undisturbed."""
        self.occupy()
        self.submit(self.ann)
        theirs = self.submit_many(self.bob, 2)
        mine = self.submit_many(self.ann, 2)
        self.answer(self.worker)
        running = self.worker.job
        self.leave(self.bob)
        self.assertEqual((self.worker.job, self.worker.interrupts), (running, []))
        self.assertEqual({job.state for job in theirs}, {JobState.CANCELLED})
        self.assertEqual(self.counts(), (len(mine), 1))
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[-2:], mine)
        self.assertEqual(self.ended(), {"done": 4, "cancelled": 2})

    def test_gone_begun(self) -> None:
        """What a client that leaves had begun unnoticed is interrupted, and nobody is told."""
        running, jobs = self.prefetch(self.bob, 3)
        self.worker.go_on()
        self.leave(self.bob)
        self.read(self.worker)
        self.assertEqual(self.ann.answers[-1], (running, False, b"\0\0"))
        self.assertEqual((self.worker.job, self.worker.interrupts), (jobs[0], [b"cancelled"]))
        self.assertEqual(self.counts(), (0, 1))
        self.die(self.worker)
        self.assertEqual(self.ended(), {"done": 2, "cancelled": 3})

    def test_gone_begun_but_finishes(self) -> None:
        """A begun job of a type that finishes goes on without its client; the others never run."""
        _, jobs = self.prefetch(self.bob, 3, "Finish")
        self.worker.go_on()
        self.leave(self.bob)
        self.read(self.worker)
        self.assertEqual((self.worker.job, self.worker.interrupts), (jobs[0], []))
        self.answer(self.worker)
        self.assertEqual({job.state for job in jobs[1:]}, {JobState.CANCELLED})
        self.assertEqual(self.ended(), {"done": 3, "cancelled": 2})

    def test_gone_in_front_of_another(self) -> None:
        """When the client of a running job leaves, what another has prefetched behind it runs."""
        running, jobs = self.prefetch(self.bob, 2)
        self.leave(self.ann)
        self.assertEqual((self.worker.job, self.worker.interrupts), (running, [b"cancelled"]))
        self.assertEqual(self.worker.prefetched, [])
        other = self.ready()
        self.answer_all(other)
        self.assertEqual(other.given, jobs)
        self.die(self.worker)
        self.assertEqual(self.ended(), {"done": 3, "cancelled": 1})

    def test_gone_in_front_of_one_that_was_begun(self) -> None:
        """When the client of a job leaves that is answered already, the one behind it runs on."""
        _, jobs = self.prefetch(self.bob, 2)
        self.worker.go_on()
        self.leave(self.ann)
        self.read(self.worker)
        self.assertEqual((self.worker.job, self.worker.interrupts), (jobs[0], []))
        self.answer_all(self.worker)
        self.assertEqual(self.ended(), {"done": 4})

    def test_hold(self) -> None:
        """What a client that is put on hold has prefetched waits on, while others' jobs start."""
        _, jobs = self.prefetch(self.bob, 3)
        mine = self.submit_many(self.ann, 2)
        self.dispatcher.hold(self.bob)
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (5, 1)))
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[2:], mine)
        self.dispatcher.release(self.bob)
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[4:], jobs)

    def test_hold_after_one_was_begun(self) -> None:
        """What a client on hold had begun unnoticed runs on; the rest waits for its release."""
        _, jobs = self.prefetch(self.bob, 3)
        self.worker.go_on()
        self.dispatcher.hold(self.bob)
        self.read(self.worker)
        self.assertEqual((self.worker.job, self.worker.interrupts), (jobs[0], []))
        self.answer(self.worker)
        self.assertEqual((self.worker.job, self.counts()), (None, (2, 0)))
        self.dispatcher.release(self.bob)
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[2:], jobs)

    def test_parts_are_not_prefetched(self) -> None:
        """A job with parts is not prefetched, nor is one behind it: it may have to be paused."""
        self.occupy()
        parts = self.submit(self.ann, wants_chunks=True)
        jobs = self.submit_many(self.bob, 2)
        self.answer(self.worker)
        self.assertEqual((self.worker.job, self.worker.prefetched), (parts, []))
        self.answer(self.worker)
        self.assertEqual((self.worker.job, self.worker.prefetched), (jobs[0], jobs[1:]))
        self.answer_all(self.worker)
        self.assertEqual(self.ended(), {"done": 4})

    def test_hold_from_an_answer(self) -> None:
        """A client may be put on hold while it is told of the answer before its prefetched jobs."""
        _, jobs = self.prefetch(self.ann, 3)
        self.ann.when_told = lambda _: self.dispatcher.hold(self.ann)
        self.answer(self.worker)
        self.assertEqual((self.worker.job, self.worker.prefetched), (jobs[0], []))
        self.answer(self.worker)
        self.assertEqual((self.worker.job, self.counts()), (None, (2, 0)))
        self.ann.when_told = None
        self.dispatcher.release(self.ann)
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[2:], jobs)


class LeavingTests(PrefetchTestCase):
    def test_called_back(self) -> None:
        """A worker that is called back ends its job and is released; others do the prefetched."""
        _, jobs = self.prefetch(self.bob, 3)
        self.assertIsNone(self.dispatcher.call_back([self.worker]))
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (3, 1)))
        self.answer(self.worker)
        self.assertEqual(self.supervisor.released, [self.worker])
        self.assertEqual(
            (self.worker.prefetched, self.dispatcher.idle, self.counts()), ([], 0, (3, 0))
        )
        other = self.ready()
        self.answer_all(other)
        self.assertEqual(other.given, jobs)

    def test_called_back_after_one_was_begun(self) -> None:
        """A worker that is called back ends what it has begun unnoticed, too, and is released."""
        _, jobs = self.prefetch(self.bob, 3)
        self.worker.go_on()
        self.dispatcher.call_back([self.worker])
        self.answer(self.worker)
        self.assertEqual((self.worker.job, self.supervisor.released), (jobs[0], []))
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (2, 1)))
        self.answer(self.worker)
        self.assertEqual((self.worker.job, self.supervisor.released), (None, [self.worker]))
        self.assertEqual(self.counts(), (2, 0))

    def test_called_back_in_vain(self) -> None:
        """When no worker is wanted back any more, jobs are prefetched again."""
        _, jobs = self.prefetch(self.bob, 3)
        self.dispatcher.call_back([self.worker])
        self.dispatcher.call_back([])
        self.answer(self.worker)
        self.assertEqual((self.worker.job, self.worker.prefetched), (jobs[0], jobs[1:]))
        self.assertEqual(self.supervisor.released, [])

    def test_unfit(self) -> None:
        """A worker that is not reusable is released, and others do what it had prefetched."""
        _, jobs = self.prefetch(self.bob, 3)
        other = self.ready()
        self.answer_all(other)
        self.submit_many(self.bob, 4)
        self.answer(self.worker)
        self.answer(self.worker, reusable=False)
        self.assertEqual((self.supervisor.released, self.worker.prefetched), ([self.worker], []))
        self.assertEqual(self.dispatcher.idle, 0)
        self.answer_all(other)
        self.assertEqual(other.given[:3], jobs)
        self.assertEqual(self.ended(), {"done": 9})

    def test_unfit_alone(self) -> None:
        """What a worker that is not reusable had prefetched waits in its order for another one."""
        _, jobs = self.prefetch(self.bob, 3)
        self.answer(self.worker, reusable=False)
        self.assertEqual((self.supervisor.released, self.worker.prefetched), ([self.worker], []))
        self.assertEqual(self.counts(), (3, 0))
        other = self.ready()
        self.answer_all(other)
        self.assertEqual((other.given, {job.attempt for job in jobs}), (jobs, {1}))

    def test_dismissed(self) -> None:
        """What a worker has prefetched that is about to be killed waits for others."""
        running, jobs = self.prefetch(self.bob, 3)
        self.dispatcher.dismiss(self.worker)
        self.worker.kill("grew too large")
        self.assertEqual((self.worker.job, self.worker.prefetched), (running, []))
        self.die(self.worker)
        other = self.ready()
        self.answer_all(other)
        self.assertEqual(other.given, jobs)
        self.assertEqual(self.ended(), {"done": 4, "lost": 1})


class PrefetchedDeathTests(PrefetchTestCase):
    def test_death(self) -> None:
        """The job that a dead worker ran is lost; its prefetched jobs run elsewhere as if new."""
        running, jobs = self.prefetch(self.bob, 3)
        self.die(self.worker)
        self.assertIn("WORKER_LOST", self.ann.failure_of(running))
        self.assertEqual((self.bob.failures, self.counts()), ([], (3, 0)))
        self.assertEqual({(job.worker, job.attempt) for job in jobs}, {(None, 0)})
        other = self.ready()
        self.answer_all(other)
        self.assertEqual((other.given, {job.attempt for job in jobs}), (jobs, {1}))
        self.assertEqual(self.ended(), {"done": 4, "lost": 1})

    def test_prefetching_costs_no_attempt(self) -> None:
        """Workers may die that have prefetched a job: it has all its attempts left."""
        self.prefetch(self.bob, 1, "Again")
        for _ in range(5):
            (job,) = self.worker.prefetched
            self.die(self.worker)
            self.worker = self.ready()
            self.assertEqual((self.worker.job, job.attempt), (job, 1))
            self.answer(self.worker)
            self.prefetch(self.bob, 1, "Again")
        self.die(self.worker)
        self.assertEqual(self.bob.failures, [])
        self.assertEqual(self.ended(), {"done": 5 + 6, "lost": 6})

    def test_onto_an_idle_worker(self) -> None:
        """When a worker dies, its prefetched jobs start at once where another has become idle."""
        other = self.ready()
        self.submit_many(self.ann, 5)
        self.answer(self.worker)
        (job,) = self.worker.prefetched
        self.answer(other)
        self.die(self.worker)
        self.answer(other)
        self.assertEqual((other.job, job.attempt), (job, 1))
        self.answer(other)
        self.assertEqual(self.ended(), {"done": 4, "lost": 1})

    def test_quarantine(self) -> None:
        """When a command comes into quarantine, its prefetched jobs never run."""
        self.serve(quarantine_after=1)
        self.practise()
        other = self.ready()
        self.submit_many(self.ann, 3, "Print")
        jobs = self.submit_many(self.ann, 6)
        self.answer(other)
        self.answer(self.worker)
        self.assertEqual((self.worker.job, other.prefetched), (jobs[3], jobs[:3]))
        self.die(self.worker)
        self.assertEqual(other.prefetched, [])
        self.answer(other)
        self.assertIsNone(other.job)
        for job in (*jobs[:3], *jobs[4:]):
            self.assertIn("NO_WORKERS: Echo has killed too many", self.ann.failure_of(job))
        self.assertEqual(self.ended(), {"done": 3, "failed": 5, "lost": 1})

    def test_unread(self) -> None:
        """A job that a dead worker had not read is the next, as if it had never been given."""
        jobs = self.submit_many(self.bob, 4, box=b"\0\1kvalue\0\0")
        self.answer(self.worker)
        self.assertEqual((self.worker.job, jobs[1].box), (jobs[1], b""))
        self.die_unread(self.worker)
        self.assertEqual(self.bob.failures, [])
        self.assertEqual((jobs[1].state, jobs[1].attempt), (JobState.QUEUED, 0))
        self.assertEqual(self.counts(), (3, 0))
        other = self.ready()
        self.assertEqual((other.job, other.boxes), (jobs[1], [b"\0\1kvalue\0\0"]))
        self.assertEqual(jobs[1].attempt, 1)
        self.answer_all(other)
        self.assertEqual(other.given, jobs[1:])
        self.assertEqual(self.ended(), {"done": 4})

    def test_unread_with_a_limit(self) -> None:
        """A limited job that was not read makes room for itself, and its time begins anew."""
        job = self.submit(self.ann, "Few")
        self.submit(self.bob, "Few")
        self.die_unread(self.worker)
        other = self.ready()
        self.assertEqual((other.job, self.counts()), (job, (1, 1)))
        timed = self.submit(self.ann, "Timed")
        self.answer_all(other)
        self.assertEqual((timed.attempt, self.ended()), (1, {"done": 3}))

    def test_unread_of_a_time_limit(self) -> None:
        """The time limit of a job that was not read counts from when it is given again."""
        job = self.submit(self.ann, "Timed")
        self.clock.advance(4)
        self.die_unread(self.worker)
        other = self.ready()
        self.assertIs(other.job, job)
        self.clock.advance(4.9)
        self.assertEqual(other.interrupts, [])
        self.clock.advance(0.1)
        self.assertEqual(other.interrupts, [b"time"])

    def test_unread_by_a_client_on_hold(self) -> None:
        """A job that was not read and whose client is on hold waits for its release."""
        job = self.submit(self.ann)
        self.dispatcher.hold(self.ann)
        self.die_unread(self.worker)
        other = self.ready()
        self.assertEqual((other.job, self.counts()), (None, (1, 0)))
        self.dispatcher.release(self.ann)
        self.assertIs(other.job, job)

    def test_unread_when_stopped(self) -> None:
        """A job that was not read but cancelled ends as cancelled."""
        job = self.submit(self.ann)
        self.dispatcher.cancel(job)
        self.die_unread(self.worker)
        self.assertIn("CANCELLED", self.ann.failure_of(job))
        self.assertEqual(self.ended(), {"cancelled": 1})

    def test_unread_when_its_client_is_gone(self) -> None:
        """A job that was not read and whose client has left ends, and nobody is told."""
        self.submit(self.ann, "Finish")
        self.leave(self.ann)
        self.die_unread(self.worker)
        self.assertEqual((self.counts(), self.ended()), ((0, 0), {"lost": 1}))

    def test_unread_type_is_gone(self) -> None:
        """A job that was not read and that no worker performs any more is refused."""
        self.ready(WITHOUT_AGAIN)
        job = self.submit(self.ann, "Again")
        self.assertIs(self.worker.job, job)
        self.die_unread(self.worker)
        self.assertEqual(self.ann.failure_of(job), "UNHANDLED: no worker performs Again")
        self.assertEqual(self.ended(), {"failed": 1})

    def test_lost_type_is_gone(self) -> None:
        """A lost job that could be tried again ends if no worker performs its type any more."""
        self.ready(WITHOUT_AGAIN)
        job = self.submit(self.ann, "Again")
        self.assertIs(self.worker.job, job)
        self.die(self.worker)
        self.assertIn("WORKER_LOST", self.ann.failure_of(job))
        self.assertEqual(self.ended(), {"lost": 1})

    def test_tried_again(self) -> None:
        """A lost job is tried again behind prefetched jobs, and counts its attempts."""
        self.occupy()
        again = self.submit(self.ann, "Again")
        jobs = self.submit_many(self.bob, 2)
        self.answer(self.worker)
        self.assertEqual((self.worker.job, self.worker.prefetched), (again, jobs))
        self.die(self.worker)
        other = self.ready()
        self.clock.advance(2 * FIRST_RETRY)
        self.answer_all(other)
        self.assertEqual((other.given, again.attempt), ([*jobs, again], 2))
        self.assertEqual(self.ended(), {"done": 4})


class KilledTestCase(PrefetchTestCase):
    """Workers that are killed after they have begun some of what they had prefetched, unnoticed."""

    def kill(self, begun: int = 1, command: str = "Echo", **options: Any) -> tuple[Job, list[Job]]:
        """Have the worker be killed when it has begun so many of three jobs; all of them."""
        running, jobs = self.prefetch(self.bob, 3, command, **options)
        for _ in range(begun):
            self.worker.go_on()
        self.worker.kill("wrote garbage and was killed")
        return running, jobs


class KilledTests(KilledTestCase):
    def test_lost(self) -> None:
        """What it had begun is lost, once each; the rest runs elsewhere as if new."""
        running, jobs = self.kill(2)
        self.die(self.worker)
        self.assertIn("WORKER_LOST", self.ann.failure_of(running))
        self.assertEqual([job for job, _ in self.bob.failures], jobs[:2])
        self.assertIn(f"worker {self.worker.pid} wrote garbage", self.bob.failure_of(jobs[1]))
        self.assertEqual([job.attempt for job in jobs], [1, 1, 0])
        self.assertEqual(self.counts(), (1, 0))
        other = self.ready()
        self.assertIs(other.job, jobs[2])
        self.answer(other)
        self.assertEqual(self.ended(), {"done": 2, "lost": 3})

    def test_new_worker_before_it_is_gone(self) -> None:
        """A worker that boots meanwhile gets what was not begun, and never what was."""
        _, jobs = self.kill()
        other = self.ready()
        self.assertIs(other.job, jobs[1])
        self.answer_all(other)
        self.assertEqual((other.given, jobs[0].state), (jobs[1:], JobState.PREFETCHED))
        self.assertEqual(self.counts(), (1, 1))
        self.die(self.worker)
        self.assertEqual(self.ended(), {"done": 3, "lost": 2})

    def test_cancelled_meanwhile(self) -> None:
        """A begun job that is cancelled before the worker is gone ends as cancelled, once."""
        _, jobs = self.kill()
        for _ in range(2):
            self.dispatcher.cancel(jobs[0])
        self.assertEqual(self.bob.failures, [])
        self.die(self.worker)
        self.assertIn("CANCELLED", self.bob.failure_of(jobs[0]))
        self.assertEqual(
            (self.ended(), self.counts()), ({"done": 1, "cancelled": 1, "lost": 1}, (2, 0))
        )

    def test_deadline_meanwhile(self) -> None:
        """A begun job whose deadline passes before the worker is gone ends as timed out."""
        _, jobs = self.kill(deadline=1.0)
        self.clock.advance(1)
        self.assertEqual([job for job, _ in self.bob.failures], jobs[1:])
        self.die(self.worker)
        self.assertIn("DEADLINE_PASSED", self.bob.failure_of(jobs[0]))
        self.assertEqual(self.ended(), {"done": 1, "timed out": 3, "lost": 1})

    def test_client_gone_meanwhile(self) -> None:
        """A begun job whose client leaves before the worker is gone ends, and nobody is told."""
        _, jobs = self.kill(command="Again")
        self.leave(self.bob)
        self.assertEqual(self.counts(), (1, 1))
        self.die(self.worker)
        self.assertEqual({job.state for job in jobs}, {JobState.CANCELLED})
        self.assertEqual(self.ended(), {"done": 1, "cancelled": 3, "lost": 1})

    def test_hold_meanwhile(self) -> None:
        """A client that is put on hold meanwhile is told of the loss, and its others wait."""
        _, jobs = self.kill()
        self.dispatcher.hold(self.bob)
        self.die(self.worker)
        self.assertIn("WORKER_LOST", self.bob.failure_of(jobs[0]))
        other = self.ready()
        self.assertEqual((other.job, self.counts()), (None, (2, 0)))
        self.dispatcher.release(self.bob)
        self.answer_all(other)
        self.assertEqual(other.given, jobs[1:])

    def test_no_workers_meanwhile(self) -> None:
        """When no worker can be had, what waits ends at once, and begun jobs with their worker."""
        _, jobs = self.kill()
        self.dispatcher.no_workers("bad luck")
        self.assertEqual([job for job, _ in self.bob.failures], jobs[1:])
        self.die(self.worker)
        self.assertIn("WORKER_LOST", self.bob.failure_of(jobs[0]))
        self.assertEqual(self.ended(), {"done": 1, "failed": 2, "lost": 2})

    def test_type_is_gone_meanwhile(self) -> None:
        """A begun job whose type no worker performs any more is lost; the others are refused."""
        _, jobs = self.kill(command="Again")
        self.ready(WITHOUT_AGAIN)
        self.die(self.worker)
        self.assertIn("WORKER_LOST", self.bob.failure_of(jobs[0]))
        self.assertEqual(
            {self.bob.failure_of(job) for job in jobs[1:]}, {"UNHANDLED: no worker performs Again"}
        )
        self.assertEqual(self.ended(), {"done": 1, "failed": 2, "lost": 2})

    def test_type_gets_a_limit_meanwhile(self) -> None:
        """A begun job does not start elsewhere because its type has come to have a limit."""
        _, jobs = self.kill()
        other = self.ready(catalogue(Echo={"max_running": 2}))
        self.answer_all(other)
        self.assertEqual((other.given, self.counts()), (jobs[1:], (1, 1)))
        self.die(self.worker)
        self.assertEqual(self.ended(), {"done": 3, "lost": 2})

    def test_tried_again(self) -> None:
        """A begun job that may be tried again is, and that is its second attempt."""
        _, jobs = self.kill(command="Again")
        self.die(self.worker)
        self.assertEqual((self.bob.failures, self.counts()), ([], (3, 0)))
        other = self.ready()
        self.clock.advance(2 * FIRST_RETRY)
        self.answer_all(other)
        self.assertEqual(other.given, [*jobs[1:], jobs[0]])
        self.assertEqual([job.attempt for job in jobs], [2, 1, 1])
        self.assertEqual(self.ended(), {"done": 4, "lost": 1})

    def test_time_limit_is_over_with_it(self) -> None:
        """The time limit of a begun job that was lost stops nobody afterwards."""
        self.kill(command="Timed")
        self.die(self.worker)
        other = self.ready()
        self.answer_all(other)
        self.clock.advance(10)
        self.assertEqual(self.ended(), {"done": 3, "lost": 2})


class PrefetchedDrainTests(PrefetchTestCase):
    def drained(self, seconds: float = 10.0) -> list[None]:
        """Drain; what comes of it."""
        ends: list[None] = []
        drained: Deferred[None] = self.dispatcher.drain(seconds)
        drained.addCallback(ends.append)
        return ends

    def test_finishes_the_prefetched(self) -> None:
        """A drain is over when all that was prefetched has ended, and no sooner."""
        _, jobs = self.prefetch(self.bob, 3)
        ends = self.drained()
        for _ in jobs:
            self.answer(self.worker)
            self.assertEqual(ends, [])
        self.answer(self.worker)
        self.assertEqual((ends, self.ended()), ([None], {"done": 5}))

    def test_gives_up(self) -> None:
        """When the drain's time is over, prefetched jobs end, and begun ones with their worker."""
        running, jobs = self.prefetch(self.bob, 3)
        self.worker.go_on()
        ends = self.drained()
        self.clock.advance(10)
        self.assertEqual([job for job, _ in self.bob.failures], jobs[1:])
        self.assertEqual((self.worker.killed is None, ends), (False, []))
        self.die(self.worker)
        self.assertIn("SHUTTING_DOWN", self.bob.failure_of(jobs[0]))
        self.assertNotEqual(running.state, JobState.RUNNING)
        self.assertEqual((ends, self.counts(), len(self.bob.failures)), ([None], (0, 0), 3))

    def test_death_while_draining(self) -> None:
        """A drain waits for what a worker that dies had prefetched."""
        _, jobs = self.prefetch(self.bob, 2)
        ends = self.drained()
        self.die(self.worker)
        other = self.ready()
        self.answer_all(other)
        self.assertEqual((other.given, ends), (jobs, [None]))

    def test_cancelled_while_draining(self) -> None:
        """A drain does not wait for what was prefetched and is cancelled."""
        _, jobs = self.prefetch(self.bob, 2)
        ends = self.drained()
        self.cancel_all(jobs)
        self.answer(self.worker)
        self.assertEqual((ends, self.ended()), ([None], {"done": 2, "cancelled": 2}))

    def test_no_workers(self) -> None:
        """When no worker can be had, what is prefetched ends with what waits; what runs goes on."""
        running, jobs = self.prefetch(self.bob, 2)
        self.dispatcher.no_workers("bad luck")
        self.assertEqual([job for job, _ in self.bob.failures], jobs)
        self.assertIn("NO_WORKERS", self.bob.failure_of(jobs[0]))
        self.assertIs(self.worker.job, running)
        self.answer(self.worker)
        self.assertEqual(self.ended(), {"done": 2, "failed": 2})


class KilledPrefetchedTests(KilledTestCase):
    def test_cancel_while_told_of_the_first(self) -> None:
        """A client that is told that one job is lost may cancel the next, which is not retried."""
        self.submit_many(self.ann, 2)
        jobs = [self.submit(self.bob), self.submit(self.bob, "Again")]
        self.answer(self.worker)
        self.worker.go_on()
        self.worker.go_on()
        self.worker.kill("wrote garbage and was killed")
        self.bob.when_told = lambda _: self.cancel_all(jobs)
        self.die(self.worker)
        self.assertIn("WORKER_LOST", self.bob.failure_of(jobs[0]))
        self.assertEqual(self.counts(), (0, 0))
        self.assertEqual(len(self.bob.failures), 2)

    def test_client_gone_while_told_of_the_first(self) -> None:
        """A client that leaves when it is told that one job is lost is told of no other."""
        _, jobs = self.kill(2)
        self.bob.when_told = lambda _: self.leave(self.bob)
        self.die(self.worker)
        self.assertEqual([job for job, _ in self.bob.failures], jobs[:1])
        self.assertEqual(self.counts(), (0, 0))

    def test_drain_gives_up(self) -> None:
        """A begun job of a killed worker is not tried again once a drain's time is over."""
        _, jobs = self.kill(command="Again")
        ends: list[None] = []
        self.dispatcher.drain(10.0).addCallback(ends.append)
        self.clock.advance(10)
        self.die(self.worker)
        self.assertIn("SHUTTING_DOWN", self.bob.failure_of(jobs[0]))
        self.assertEqual((ends, self.counts()), ([None], (0, 0)))

    def test_cancelled_before_a_drain_gives_up(self) -> None:
        """A begun job of a killed worker that was cancelled stays so when a drain gives up."""
        _, jobs = self.kill()
        self.dispatcher.cancel(jobs[0])
        self.dispatcher.drain(10.0)
        self.clock.advance(10)
        self.die(self.worker)
        self.assertIn("CANCELLED", self.bob.failure_of(jobs[0]))

    def test_quarantine(self) -> None:
        """One worker counts as one loss of a command, however many of its jobs it had begun."""
        self.serve(quarantine_after=2)
        self.practise()
        self.kill(2)
        self.die(self.worker)
        other = self.ready()
        self.answer_all(other)
        self.assertEqual(self.ended(), {"done": 2, "lost": 3})
