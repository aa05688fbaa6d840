"""Prefetched jobs have the order and the outcomes of all jobs; that some are, and which are not.

Where each of them lies is nobody's promise. That nothing is lost, doubled or out of turn in any
order of events, :mod:`tests.unit.scheduler.test_rules_properties` sees to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dangad.scheduler.prefetch import MOST, MOST_BYTES, QUIET_TIME, SLOW
from dangad.scheduler.record import Death, Job, JobState
from dangad.scheduler.state import AGEING
from dangad.wire.values import Priority
from tests.fakes import FakeClient, FakeWorker, catalogue
from tests.unit.scheduler.test_dispatcher import MAX_QUEUED, DispatcherTestCase

if TYPE_CHECKING:
    from collections.abc import Callable

    Deed = Callable[["OutcomeTests", list[Job]], object]

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

    def start_anew(self, **options: Any) -> None:
        """Have another dispatcher, with these options, and another worker and clients."""
        self.serve(**options)
        self.ann, self.bob = self.connect("ann"), self.connect("bob")
        self.practise()

    def practise(self) -> None:
        """Have a worker that is new to the dispatcher do many jobs in no time."""
        self.workers: list[FakeWorker] = []
        self.begun: list[Job] = []
        self.worker = self.ready()
        practice = FakeClient("practice")
        for command in ("Print", "Few", "Timed", "Again", "Finish", "Echo"):
            for _ in range(30):
                self.submit(practice, command)
                self.answer(self.worker)
        self.done = len(practice.answers)
        self.begun.clear()
        self.worker.given.clear()
        self.worker.boxes.clear()

    def ready(self, performs: str = PERFORMS) -> FakeWorker:
        """A worker that has just said Hello; what it begins is noted in `begun`, in order."""
        worker = FakeWorker()
        self.workers.append(worker)
        worker.when_performing = worker.when_beginning = lambda job: self.begun.append(job)
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
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (4, 1)))
        self.answer(self.worker)
        self.assertIs(self.worker.job, jobs[1])
        self.assertEqual(self.worker.prefetched, jobs[2:])
        self.assertEqual({job.worker for job in jobs[2:]}, {self.worker})
        self.assertEqual({(job.state, job.attempt) for job in jobs[2:]}, {(JobState.PREFETCHED, 0)})
        self.assertEqual(self.counts(), (3, 1))

    def test_not_after_long_jobs(self) -> None:
        """When jobs have come to be long, nothing is prefetched any more."""
        jobs = self.submit_many(self.ann, 9)
        for _ in range(5):
            self.clock.advance(1)
            self.answer(self.worker)
        self.assertEqual((self.worker.job, self.worker.prefetched), (jobs[5], []))

    def test_not_before_jobs_are_known_to_be_short(self) -> None:
        """A dispatcher that knows nothing of its jobs prefetches none."""
        self.serve()
        worker = self.ready()
        self.submit_many(self.ann, 5)
        self.answer(worker)
        self.assertEqual((worker.prefetched, self.counts()), ([], (3, 1)))

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

    def test_begin(self) -> None:
        """With the answer to the job before, the next runs, for the first time, as told jobs do."""
        _, (job,) = self.prefetch(self.bob, 1, box=b"\0\1kvalue\0\0")
        seen: list[Any] = []
        self.ann.when_told = lambda _: seen.append(job.state)
        self.clock.advance(0.5)
        self.answer(self.worker)
        self.assertEqual(seen, [JobState.RUNNING])
        self.assertIs(self.worker.job, job)
        self.assertEqual(job.attempt, 1)
        self.assertEqual((job.pid, job.started_at, job.wait), (self.worker.pid, 1000.5, 0.5))
        self.assertIs(self.dispatcher.job_of(self.worker), job)
        self.assertEqual(self.worker.boxes[-1], b"\0\1kvalue\0\0")
        self.assertEqual(job.box, b"")
        self.assertEqual(self.counts(), (0, 1))
        self.answer(self.worker, body=b"\0\1kanswer\0\0")
        self.assertEqual(self.bob.answers, [(job, False, b"\0\1kanswer\0\0")])
        self.assertEqual((self.dispatcher.idle, self.counts()), (1, (0, 0)))

    def test_counts_as_waiting(self) -> None:
        """What is prefetched takes the room of jobs that wait, and is demand for workers."""
        self.submit_many(self.ann, MAX_QUEUED + 1)
        self.answer(self.worker)
        self.assertEqual((len(self.worker.prefetched), self.counts()), (MOST, (MAX_QUEUED - 1, 1)))
        self.submit(self.ann)
        self.assertIn("QUEUE_FULL", self.ann.failure_of(self.submit(self.ann)))
        self.assertEqual(self.worker.reclaimed, 0)
        self.assertEqual(self.supervisor.demands[-1], MAX_QUEUED)

    def test_bytes_count_as_waiting(self) -> None:
        """The bytes of what is prefetched count among those that wait, until it begins."""
        self.start_anew(max_queued_bytes=250)
        self.prefetch(self.bob, 2, box=bytes(100))
        self.assertIn("QUEUE_FULL", self.bob.failure_of(self.submit(self.bob, box=bytes(100))))
        self.answer(self.worker)
        self.submit(self.bob, box=bytes(100))
        self.assertEqual(self.counts(), (2, 1))


class KeptBackTests(PrefetchTestCase):
    def not_prefetched(self, *jobs: Job) -> None:
        """The worker, which now ends its job, has none of `jobs` prefetched; all end well."""
        waiting = self.dispatcher.waiting
        self.answer(self.worker)
        self.assertEqual(self.worker.prefetched, [])
        self.assertEqual(self.counts(), (waiting - 1, 1))
        self.answer_all(self.worker)
        self.assertEqual({job.state for job in jobs}, {JobState.DONE})

    def test_by_their_kind(self) -> None:
        """Limited and large requests, and those for parts, are not prefetched."""
        for command, options in (
            ("Few", {}),
            ("Echo", {"box": bytes(MOST_BYTES + 1)}),
            ("Echo", {"wants_chunks": True}),
        ):
            with self.subTest(command=command, **dict.fromkeys(options, True)):
                self.occupy()
                self.submit(self.ann)
                self.not_prefetched(*self.submit_many(self.bob, 4, command, **options))
        self.prefetch(self.bob, 2, box=bytes(MOST_BYTES))

    def test_limited_among_others(self) -> None:
        """Never do more of a limited type run than may, and what is behind a job is not lost."""
        other = self.ready()
        for _ in range(3):
            self.submit(self.ann)
            self.submit(self.bob, "Few")
        while self.dispatcher.running:
            for worker in (self.worker, other):
                running = [each.job for each in (self.worker, other) if each.job is not None]
                self.assertLessEqual([job.command for job in running].count(b"Few"), 1)
                if worker.job is not None:
                    self.answer(worker)
        self.assertEqual(self.ended(), {"done": 6})

    def test_behind_parts(self) -> None:
        """Nothing is prefetched behind a job with parts, which may have to be paused."""
        self.occupy()
        self.submit(self.ann, wants_chunks=True)
        self.not_prefetched(self.submit(self.bob))

    def test_printed(self) -> None:
        """No job of a type that has printed recently is prefetched, nor one behind it."""
        self.submit_many(self.ann, 2, "Print")
        jobs = self.submit_many(self.ann, 3)
        self.answer(self.worker, printed=True)
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (3, 1)))
        self.answer(self.worker)
        self.assertEqual(self.worker.prefetched, jobs[1:])
        self.answer_all(self.worker)
        self.occupy()
        self.submit(self.ann)
        self.not_prefetched(*self.submit_many(self.bob, 3, "Print"))
        self.clock.advance(QUIET_TIME)
        self.prefetch(self.bob, 3, "Print")

    def test_worker_that_takes_none(self) -> None:
        """A worker that can prefetch none gets its jobs one by one."""
        self.worker.can_prefetch = False
        self.submit_many(self.ann, 2)
        self.not_prefetched(*self.submit_many(self.bob, 3))

    def test_worker_that_has_no_room(self) -> None:
        """A job that a worker cannot take now waits on, and is the next."""
        mine, theirs = self.submit_many(self.ann, 3), self.submit_many(self.bob, 3)
        self.patch(FakeWorker, "room", MOST)
        self.worker.can_prefetch = False
        self.answer(self.worker)
        self.assertEqual((self.worker.prefetched, self.counts()), ([], (4, 1)))
        self.die(self.worker)
        other = self.ready()
        self.answer_all(other)
        self.assertEqual(other.given, [mine[1], theirs[1], mine[2], theirs[2]])

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
        self.submit_many(self.ann, 8)
        self.answer(self.worker)
        self.answer(other)
        self.assertEqual(self.worker.prefetched + other.prefetched, [])
        self.die(self.worker)
        self.ready(WITHOUT_AGAIN)
        self.answer(other)
        self.assertNotEqual(other.prefetched, [])

    def test_aged(self) -> None:
        """An aged job is not prefetched while a higher one waits, whose turn is the one after."""
        self.ann.outranks = self.bob.outranks = True
        self.dispatcher.hold(self.bob)
        low = self.submit_many(self.bob, 2, priority=LOW)
        self.clock.advance(AGEING)
        normal = self.submit_many(self.ann, 4)
        self.dispatcher.release(self.bob)
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


class OvertakingTests(PrefetchTestCase):
    def test_higher_priority(self) -> None:
        """A more urgent job that comes goes before all prefetched ones that are not begun."""
        for begun in (0, 1):
            with self.subTest(begun=begun):
                self.start_anew()
                _, jobs = self.prefetch(self.bob, 3)
                for _ in range(begun):
                    self.worker.go_on()
                high = self.submit(FakeClient("other"), priority=HIGH)
                self.assertEqual(self.worker.prefetched, jobs[:begun])
                self.answer_all(self.worker)
                self.assertIs(self.worker.given[2 + begun], high)

    def test_same_priority(self) -> None:
        """A job that is no more urgent reclaims nothing."""
        _, jobs = self.prefetch(self.bob, 3)
        last = self.submit(self.ann)
        lower = self.submit(self.ann, priority=LOW)
        self.assertEqual(self.worker.reclaimed, 0)
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[2:], [*jobs, last, lower])

    def test_may_start_at_last(self) -> None:
        """A more urgent job goes before them as soon as it may start: released, or with room."""
        self.dispatcher.hold(self.ann)
        self.submit_many(self.bob, 5)
        self.answer(self.worker)
        high = self.submit(self.ann, priority=HIGH)
        self.assertEqual(len(self.worker.prefetched), 3)
        self.dispatcher.release(self.ann)
        self.answer(self.worker)
        self.assertIs(self.worker.job, high)
        self.start_anew()
        self.occupy()
        self.submit(self.ann, "Few", HIGH)
        jobs = self.submit_many(self.bob, 2)
        self.answer(self.worker)
        few = self.submit(self.ann, "Few", HIGH)
        self.assertEqual(self.worker.prefetched, jobs)
        self.answer_all(self.worker)
        self.assertEqual(self.worker.given[-3:], [jobs[0], few, jobs[1]])

    def test_behind_a_long_job(self) -> None:
        """What is behind a job that turns out to be long is begun by another worker."""
        for seconds, begun in ((1.5 * SLOW, True), (0.5 * SLOW, False)):
            with self.subTest(seconds=seconds):
                self.start_anew()
                other = self.ready()
                self.submit_many(self.ann, 12)
                self.answer(self.worker)
                self.answer(other)
                stuck = list(self.worker.prefetched)
                self.assertEqual(len(stuck), 4)
                self.clock.advance(seconds)
                self.answer(other)
                self.assertEqual(self.worker.prefetched == [], begun)
                self.answer_all(other)
                self.assertLessEqual(set(stuck), set(other.given))


def cancel(number: int) -> Deed:
    """That a job is cancelled."""
    return lambda case, jobs: case.dispatcher.cancel(jobs[number])


def wait(seconds: float) -> Deed:
    """That so many seconds pass."""
    return lambda case, jobs: case.clock.advance(seconds)


def leave(name: str) -> Deed:
    """That a client disconnects."""
    return lambda case, jobs: case.leave(getattr(case, name))


def hold(case: OutcomeTests, jobs: list[Job]) -> None:
    """Bob reads no more."""
    case.dispatcher.hold(case.bob)


def die(case: OutcomeTests, jobs: list[Job]) -> None:
    """The worker is gone, when the answers are read that it has written."""
    while case.worker.has_answered:
        case.answer(case.worker)
    case.die(case.worker)


def die_unread(case: OutcomeTests, jobs: list[Job]) -> None:
    """The worker is gone, and had not read its job."""
    case.answer(case.worker)
    case.die_unread(case.worker)


def call_back(case: OutcomeTests, jobs: list[Job]) -> None:
    """The supervisor wants the worker."""
    case.assertIsNone(case.dispatcher.call_back([case.worker]))


def call_back_in_vain(case: OutcomeTests, jobs: list[Job]) -> None:
    """It does, and then does not."""
    case.dispatcher.call_back([case.worker])
    case.dispatcher.call_back([])


def spoil(case: OutcomeTests, jobs: list[Job]) -> None:
    """The worker answers, and cannot be used any more."""
    case.answer(case.worker, reusable=False)


def dismiss(case: OutcomeTests, jobs: list[Job]) -> None:
    """The supervisor kills the worker."""
    case.dispatcher.dismiss(case.worker)
    case.worker.kill("grew too large, and was killed")


def no_workers(case: OutcomeTests, jobs: list[Job]) -> None:
    """No worker can be had."""
    case.dispatcher.no_workers("bad luck")


def boot(performs: str) -> Deed:
    """That another worker comes, with this catalogue."""
    return lambda case, jobs: case.ready(performs)


def drain(case: OutcomeTests, jobs: list[Job]) -> None:
    """The server stops."""
    case.dispatcher.drain(10.0)


def give_up(case: OutcomeTests, jobs: list[Job]) -> None:
    """The server stops, and waits no longer."""
    case.dispatcher.drain(10.0)
    case.clock.advance(10)


def submit_urgent(case: OutcomeTests, jobs: list[Job]) -> None:
    """Somebody comes with a more urgent job."""
    case.submit(FakeClient("urgent"), priority=HIGH)


def react(deed: Deed) -> Deed:
    """That a client does this when it is told of one of these jobs."""

    def prepare(case: OutcomeTests, jobs: list[Job]) -> None:
        for client in (case.ann, case.bob):
            client.when_told = lambda job: job in jobs and deed(case, jobs)

    return prepare


OUTCOMES: tuple[tuple[str, int, tuple[Deed, ...], str, bool], ...] = (
    # command, how many are begun, what happens, the ends, whether the worker is left alone
    ("Echo", 0, (), "done done done done", True),
    ("Echo", 2, (), "done done done done", True),
    ("Echo", 0, (cancel(2),), "done done cancelled done", True),
    ("Echo", 0, (cancel(2), cancel(2)), "done done cancelled done", True),
    ("Echo", 1, (cancel(2),), "done done cancelled done", True),
    ("Echo", 1, (cancel(1),), "done cancelled done done", False),
    ("Echo", 3, (cancel(3),), "done done done cancelled", False),
    ("Echo", 1, (cancel(0),), "done done done done", True),
    ("Echo", 0, (cancel(0),), "cancelled done done done", False),
    ("Echo", 4, (cancel(3),), "done done done cancelled", False),  # it crosses with the answer
    ("Timed", 0, (wait(5),), "done done done done", True),
    ("Deadline", 0, (wait(3),), "done timed-out timed-out timed-out", True),
    ("Deadline", 1, (wait(3),), "done timed-out timed-out timed-out", False),
    ("Deadline", 4, (wait(3),), "done done done timed-out", False),
    ("Echo", 0, (leave("bob"),), "done cancelled cancelled cancelled", True),
    ("Echo", 1, (leave("bob"),), "done cancelled cancelled cancelled", False),
    ("Finish", 1, (leave("bob"),), "done done cancelled cancelled", True),
    ("Echo", 0, (leave("ann"),), "cancelled done done done", False),
    ("Echo", 1, (leave("ann"),), "done done done done", True),
    ("Echo", 0, (hold,), "done done done done", True),
    ("Echo", 1, (hold,), "done done done done", True),
    ("Echo", 0, (submit_urgent,), "done done done done", True),
    ("Echo", 0, (boot(PERFORMS),), "done done done done", True),
    ("Echo", 2, (boot(PERFORMS),), "done done done done", True),
    ("Echo", 0, (call_back,), "done done done done", True),
    ("Echo", 1, (call_back,), "done done done done", True),
    ("Echo", 0, (call_back_in_vain,), "done done done done", True),
    ("Echo", 0, (spoil,), "done done done done", True),
    ("Echo", 0, (dismiss,), "lost done done done", False),
    ("Echo", 1, (dismiss,), "done lost done done", False),
    ("Echo", 4, (dismiss,), "done done done done", False),
    ("Echo", 0, (die,), "lost done done done", True),
    ("Echo", 1, (die,), "done lost done done", True),
    ("Again", 1, (die,), "done done done done", True),
    ("Echo", 0, (die_unread,), "done done done done", True),
    ("Echo", 0, (no_workers,), "done failed failed failed", True),
    ("Again", 0, (boot(WITHOUT_AGAIN), die), "lost failed failed failed", True),
    ("Echo", 0, (drain,), "done done done done", True),
    ("Echo", 0, (drain, cancel(1), cancel(2)), "done cancelled cancelled done", True),
    ("Echo", 0, (drain, die), "lost done done done", True),
    ("Echo", 0, (give_up,), "cancelled cancelled cancelled cancelled", False),
    ("Echo", 1, (give_up,), "done cancelled cancelled cancelled", False),
    # A client reacts when it is told.
    ("Echo", 0, (react(cancel(1)),), "done cancelled done done", False),
    ("Echo", 1, (react(cancel(2)),), "done done cancelled done", True),
    ("Echo", 0, (react(leave("bob")),), "done cancelled cancelled cancelled", False),
    ("Echo", 1, (react(hold),), "done done done done", True),
)
GARBAGE: tuple[tuple[str, int, tuple[Deed, ...], str, bool], ...] = (
    # The worker has written garbage, so that its answers do not count: what it has begun is lost.
    ("Echo", 0, (), "lost done done done", False),
    ("Echo", 2, (), "lost lost lost done", False),
    ("Again", 2, (), "lost done done done", False),
    ("Timed", 1, (), "lost lost done done", False),
    ("Again", 2, (cancel(1),), "lost lost done done", False),  # it had answered, and is not retried
    ("Echo", 1, (boot(PERFORMS),), "lost lost done done", False),
    ("Echo", 1, (cancel(1), cancel(1)), "lost cancelled done done", False),
    ("Deadline", 1, (wait(3),), "lost timed-out timed-out timed-out", False),
    ("Again", 1, (leave("bob"),), "lost cancelled cancelled cancelled", False),
    ("Echo", 1, (hold,), "lost lost done done", False),
    ("Echo", 1, (no_workers,), "lost lost failed failed", False),
    ("Again", 1, (boot(WITHOUT_AGAIN),), "lost lost failed failed", False),
    ("Echo", 1, (boot(catalogue(Echo={"max_running": 2})),), "lost lost done done", False),
    ("Again", 1, (give_up,), "lost cancelled cancelled cancelled", False),
    ("Echo", 1, (cancel(1), give_up), "lost cancelled cancelled cancelled", False),
    ("Again", 2, (react(cancel(2)),), "lost done cancelled done", False),
    ("Echo", 2, (react(leave("bob")),), "lost lost lost cancelled", False),
)


class OutcomeTests(PrefetchTestCase):
    """A job of Ann's runs, with three of Bob's behind it, and something happens."""

    def finish(self) -> None:
        """Have workers answer, die and come until no job is left."""
        for _ in range(60):
            for client in (self.ann, self.bob):
                if not client.gone:
                    self.dispatcher.release(client)
            if not self.dispatcher.waiting + self.dispatcher.running:
                return
            for worker in self.workers:
                if worker.may_answer:
                    self.answer(worker)
                elif worker.killed is not None and not worker.dead:
                    self.die(worker)
            if not self.dispatcher.idle + self.dispatcher.running:
                self.ready()
            self.clock.advance(0.1)
        raise AssertionError("it does not come to an end")

    def play(
        self, command: str, begun: int, deeds: tuple[Deed, ...], garbage: bool
    ) -> tuple[str, list[Job]]:
        """How the four jobs end, and the jobs."""
        self.start_anew(quarantine_after=0)
        options = {"deadline": 3.0} if command == "Deadline" else {}
        running, jobs = self.prefetch(self.bob, 3, command.replace("Deadline", "Echo"), **options)
        for _ in range(begun):
            self.worker.go_on()
        if garbage:
            self.worker.silenced = True
            self.worker.kill("wrote garbage and was killed")
        for deed in deeds:
            deed(self, [running, *jobs])
        self.finish()
        return " ".join(job.state.value.replace(" ", "-") for job in [running, *jobs]), jobs

    def test_outcomes(self) -> None:
        """Each job ends by what happens to itself; the worker is disturbed only for its own job."""
        for row in OUTCOMES:
            command, begun, deeds, ends, left_alone = row
            told, jobs = self.play(command, begun, deeds, garbage=False)
            self.assertEqual(told, ends, row)
            disturbed = self.worker.interrupts or self.worker.killed
            self.assertEqual(not disturbed, left_alone, row)
            started = [job for job in self.begun if job in jobs[begun:]]
            self.assertEqual(started, sorted(started, key=lambda job: job.id), row)

    def test_garbage(self) -> None:
        """What a worker had begun whose answers do not count is lost, once; the rest is as new."""
        for row in GARBAGE:
            command, begun, deeds, ends, _ = row
            told, jobs = self.play(command, begun, deeds, garbage=True)
            self.assertEqual(told, ends, row)
            self.assertLessEqual({job.attempt for job in jobs[begun:]}, {0, 1}, row)

    def test_what_is_told(self) -> None:
        """A client is told what became of its job, as far as it can know."""
        for begun, deed, number, text in (
            (0, cancel(1), 1, "CANCELLED: Echo was cancelled while it waited; it never ran"),
            (1, cancel(1), 1, "CANCELLED: Echo was cancelled 0.0 s into its run"),
            (0, no_workers, 1, "NO_WORKERS: no worker can be started: bad luck"),
            (0, give_up, 1, "SHUTTING_DOWN: the server stopped"),
            (1, give_up, 1, "SHUTTING_DOWN: the server stopped"),
            (1, dismiss, 1, "grew too large, and was killed 0.1 s into Echo"),
        ):
            with self.subTest(text=text):
                _, jobs = self.play("Echo", begun, (deed,), garbage=False)
                self.assertIn(text, self.bob.failure_of(jobs[number - 1]))

    def test_released(self) -> None:
        """A worker that is called back is released when it has ended all that it has begun."""
        for begun in (0, 1):
            self.supervisor.released.clear()
            self.start_anew()
            self.prefetch(self.bob, 3)
            for _ in range(begun):
                self.worker.go_on()
            self.dispatcher.call_back([self.worker])
            for _ in range(begun + 1):
                self.assertEqual(self.supervisor.released, [])
                self.answer(self.worker)
            self.assertEqual(self.supervisor.released, [self.worker])
            self.assertEqual(self.counts(), (3 - begun, 0))


class TimeTests(PrefetchTestCase):
    def test_deadline_reclaimed(self) -> None:
        """A job that was reclaimed still has its deadline, and is told what is left of it."""
        _, (job,) = self.prefetch(self.bob, 1, deadline=3.0)
        self.assertEqual(job.seconds, 3.0)
        self.clock.advance(1)
        other = self.ready()
        self.assertEqual((other.job, job.seconds), (job, 2.0))
        self.clock.advance(2)
        self.assertEqual(other.interrupts, [b"time"])

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
        self.die(self.worker)
        text = "TIMED_OUT: Timed ran for its time limit, 5.0 s, after it had waited 4.0 s"
        self.assertEqual(self.bob.failure_of(jobs[0]), text)

    def test_time_limit_of_what_was_answered(self) -> None:
        """A job that was answered within its time, though nobody has noticed, keeps its answer."""
        _, jobs = self.prefetch(self.bob, 2, "Timed")
        self.answer(self.worker)
        self.clock.advance(4)
        self.worker.go_on()
        self.clock.advance(1)
        self.answer(self.worker)
        self.assertEqual([job for job, _, _ in self.bob.answers], jobs[:1])
        self.assertEqual((self.worker.job, self.worker.interrupts), (jobs[1], []))


class DeathTests(PrefetchTestCase):
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
        self.assertEqual(self.bob.failures, [])

    def test_quarantine(self) -> None:
        """When a command comes into quarantine, its prefetched jobs never run."""
        self.start_anew(quarantine_after=1)
        other = self.ready()
        self.submit_many(self.ann, 3, "Print")
        jobs = self.submit_many(self.ann, 6)
        self.answer(other)
        self.answer(self.worker)
        self.die(self.worker)
        self.answer(other)
        self.assertIsNone(other.job)
        for job in (*jobs[:3], *jobs[4:]):
            self.assertIn("NO_WORKERS: Echo has killed too many", self.ann.failure_of(job))
        self.assertEqual(self.ended(), {"done": 3, "failed": 5, "lost": 1})

    def test_one_loss(self) -> None:
        """One worker counts as one loss of a command, however many of its jobs it had begun."""
        self.start_anew(quarantine_after=2)
        self.prefetch(self.bob, 3)
        self.worker.go_on()
        self.worker.go_on()
        self.worker.kill("wrote garbage and was killed")
        self.die(self.worker)
        other = self.ready()
        self.answer_all(other)
        self.assertEqual(self.ended(), {"done": 2, "lost": 3})

    def test_unread(self) -> None:
        """A job that a dead worker had not read is the next, as if it had never been given."""
        jobs = self.submit_many(self.bob, 4, box=b"\0\1kvalue\0\0")
        self.answer(self.worker)
        self.assertEqual((self.worker.job, jobs[1].box), (jobs[1], b""))
        self.die_unread(self.worker)
        self.assertEqual((jobs[1].state, jobs[1].attempt), (JobState.QUEUED, 0))
        self.assertEqual(self.counts(), (3, 0))
        other = self.ready()
        self.assertEqual((other.job, other.boxes), (jobs[1], [b"\0\1kvalue\0\0"]))
        self.answer_all(other)
        self.assertEqual(other.given, jobs[1:])
        self.assertEqual(self.ended(), {"done": 4})

    def test_unread_with_a_limit(self) -> None:
        """A limited job that was not read makes room for itself, and its time begins anew."""
        few = self.submit(self.ann, "Few")
        self.submit(self.bob, "Few")
        self.die_unread(self.worker)
        worker = self.ready()
        self.assertEqual((worker.job, self.counts()), (few, (1, 1)))
        timed = self.submit(self.ann, "Timed")
        while worker.job is not timed:
            self.answer(worker)
        self.clock.advance(4)
        self.die_unread(worker)
        worker = self.ready()
        self.assertIs(worker.job, timed)
        self.clock.advance(4.9)
        self.assertEqual(worker.interrupts, [])
        self.clock.advance(0.1)
        self.assertEqual(worker.interrupts, [b"time"])

    def test_unread_in_vain(self) -> None:
        """A job that was not read ends all the same if it was cancelled, or nobody wants it."""
        self.dispatcher.cancel(self.submit(self.ann))
        self.die_unread(self.worker)
        self.assertEqual(self.ended(), {"cancelled": 1})
        worker = self.ready()
        self.submit(self.ann, "Finish")
        self.leave(self.ann)
        self.die_unread(worker)
        self.assertEqual(self.ended(), {"cancelled": 1, "lost": 1})

    def test_unread_by_a_client_on_hold(self) -> None:
        """A job that was not read and whose client is on hold waits for its release."""
        job = self.submit(self.ann)
        self.dispatcher.hold(self.ann)
        self.die_unread(self.worker)
        other = self.ready()
        self.assertEqual((other.job, self.counts()), (None, (1, 0)))
        self.dispatcher.release(self.ann)
        self.assertIs(other.job, job)

    def test_type_is_gone(self) -> None:
        """A job that could be tried again ends if no worker performs its type any more."""
        for die, text in ((self.die_unread, "UNHANDLED"), (self.die, "WORKER_LOST")):
            self.ready(WITHOUT_AGAIN)
            job = self.submit(self.ann, "Again")
            self.assertIs(self.worker.job, job)
            die(self.worker)
            self.assertIn(text, self.ann.failure_of(job))
            self.start_anew()
