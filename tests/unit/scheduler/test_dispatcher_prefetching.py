"""Prefetched jobs have the order and the outcomes of all jobs; that some are, and which are not.

Where each of them lies is nobody's promise. That nothing is lost, doubled or out of turn in any
order of events, :mod:`tests.unit.scheduler.test_rules_properties` sees to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dangad.scheduler.prefetch import MOST, MOST_BYTES, QUIET_TIME, SLOW
from dangad.scheduler.record import Job, JobState
from dangad.scheduler.state import AGEING
from tests.fakes import FakeClient, FakeWorker
from tests.unit.scheduler.dispatching import DispatcherTestCase
from tests.unit.scheduler.stories import types

if TYPE_CHECKING:
    from tests.unit.telling import Deeds

TYPES = "Echo Print Few:max_running=1 Timed:time_limit=5.0 Again:retries=2"
PERFORMS = types([*TYPES.split(), "Finish:on_disconnect=finish"])


class PrefetchTestCase(DispatcherTestCase):
    """A dispatcher, and a worker whose jobs have all been short, so that some are prefetched.

    In stories the worker is ``w``.
    """

    performs = PERFORMS
    deeds: ClassVar[Deeds] = DispatcherTestCase.deeds | {
        "prints": lambda case, worker: case.answer(worker, printed=True),
        "kill": lambda case, name: case.named[name].kill("grew too large, and was killed"),
        "goes_on": lambda _, worker: worker.go_on(),  # it answers, unnoticed, and begins the next
        "prefetches_nothing": lambda _, worker: setattr(worker, "can_prefetch", False),
    }
    facts: ClassVar[Deeds] = DispatcherTestCase.facts | {
        "has": lambda case, worker: [case.name_of(job) for job in worker.prefetched],
        "gave_back": lambda _, worker: worker.reclaimed,
        "last_demanded": lambda case: case.supervisor.demands[-1],
        "seconds": lambda _, job: job.seconds,  # that it is told it has
    }
    practised: tuple[str, ...] = ("Print", "Few", "Timed", "Again", "Finish", "Echo")
    """The types of which the worker has done many jobs in no time."""

    def begin_anew(self, **options: Any) -> None:
        """Have another dispatcher, with these options, and another worker and clients."""
        super().begin_anew()
        if options:
            self.serve(**options)
        self.workers: list[FakeWorker] = []
        self.begun: list[Job] = []
        self.worker = self.named["w"] = self.ready()
        self.practise(30, *self.practised)
        self.done = self.dispatcher.counters.ended[JobState.DONE]
        self.begun.clear()
        self.worker.given.clear()
        self.worker.boxes.clear()

    def practise(self, count: int, *commands: str, seconds: float = 0.0) -> None:
        """So many jobs of each of these types run for so long, one after the other."""
        for command in commands:
            for _ in range(count):
                self.submit(FakeClient("practice"), command)
                self.clock.advance(seconds)
                self.answer(self.worker)

    def ready(self, performs: str | None = None) -> FakeWorker:
        """A worker that has just said Hello; what it begins is noted in `begun`, in order."""
        worker = FakeWorker()
        self.workers.append(worker)
        worker.when_performing = worker.when_beginning = lambda job: self.begun.append(job)
        worker.say_hello()
        self.dispatcher.worker_ready(worker, self.code if performs is None else performs)
        return worker

    def ended(self) -> dict[str, int]:
        """How many jobs came to which end, without those to which none came, nor the practice."""
        ended = super().ended()
        ended["done"] -= self.done
        return {state: count for state, count in ended.items() if count}

    # In stories.

    def do_server(self, *options: str) -> None:
        """Have a dispatcher with these options, and practise anew."""
        pairs = (option.split("=") for option in options)
        self.begin_anew(**{name: int(value) for name, value in pairs})

    def do_finish(self) -> None:
        """All workers answer, in turns, until none has a job."""
        while any(worker.job for worker in self.workers):
            for worker in self.workers:
                if worker.job is not None:
                    self.answer(worker)

    def do_finishes(self, worker: FakeWorker) -> None:
        """A worker answers until it has no job."""
        while worker.job is not None:
            self.answer(worker)

    def do_works(self, worker: FakeWorker, seconds: str) -> None:
        """A worker answers after so long."""
        self.clock.advance(float(seconds))
        self.answer(worker)


def behind(jobs: str) -> str:
    """The worker runs Ann's `a`, and has these jobs of Bob's prefetched."""
    just = " ".join(word.partition("/")[0] for word in jobs.split())
    return f"somebody: o, ann: a, bob: {jobs}, w answers, w runs a, w has {just}"


def not_prefetched(before: str, jobs: str) -> str:
    """A worker that ends its job has none of `jobs` prefetched; all end well."""
    just = " ".join(word.partition("/")[0] for word in jobs.split())
    return f"somebody: o, {before}, bob: {jobs}, w answers, w has, busy 1, finish, done {just}"


GIVING = {
    "a worker that ends a job while others wait runs the next, and has some prefetched": """
        ann: a1-5, w has, waiting 4, busy 1, w answers, w runs a2, w has a3-5, prefetched a3-5
        a3 attempt 0, waiting 3, busy 1
    """,
    "when jobs have come to be long, nothing is prefetched any more": """
        ann: a1-9, 5x w works 1, w runs a6, w has
    """,
    "workers have no more prefetched than their share, and leave the rest to the others": """
        ready x, ann: a1-12, w answers, x answers, w has a4-7, x has a9-12, finish, ended done=12
    """,
    "jobs begin in the order of the queue: by priority, and in turns between clients": """
        ann: a, bob: low/low, ann: a1-3, bob: b1-2 high/high, finish
        w ran a high a1 b1 a2 b2 a3 low
    """,
    "with the answer to the job before, the next runs, for the first time, as told jobs do": f"""
        {behind("b/100B")}, wait 0.5, ann reacts: running b, w answers, w runs b, b attempt 1
        b waited 0.5, b started_at 1000.5, w read 100, b keeps 0, waiting 0, busy 1, w answers
        bob answered b, idle 1, busy 0
    """,
    "what is prefetched takes the room of jobs that wait, and is demand for workers": f"""
        ann: a1-21, w answers, w has a3-{MOST + 2}, waiting 19, busy 1, ann: b c, c told QUEUE_FULL
        w gave_back 0, last_demanded 20
    """,
    "the bytes of what is prefetched count among those that wait, until it begins": f"""
        server max_queued_bytes=250, {behind("b1-2/100B")}, bob: c/100B, c told QUEUE_FULL
        w answers, bob: d/100B, waiting 2, busy 1
    """,
}
KEPT_BACK = {
    "limited requests": not_prefetched("ann: a", "b1-4/Few"),
    "large requests": not_prefetched("ann: a", f"b1-4/{MOST_BYTES + 1}B"),
    "requests for parts": not_prefetched("ann: a", "b1-4/parts"),
    "but not the largest of the small": behind(f"b1-2/{MOST_BYTES}B"),
    "nothing goes behind a job with parts, which may have to be paused": (
        not_prefetched("ann: a/parts", "b")
    ),
    "what is behind a limited job is not lost": """
        ready x, ann: a1, bob: b1/Few, ann: a2, bob: b2/Few, ann: a3, bob: b3/Few, x runs a1
        w runs b1, finish, ended done=6
    """,
    "no job of a type that has printed recently, nor one behind it": f"""
        ann: a1-2/Print b1-3, w prints, w has, waiting 3, busy 1, w answers, w has b2-3, finish
        {not_prefetched("ann: c", "d1-3/Print")}, wait {QUIET_TIME}, {behind("e1-3/Print")}
    """,
    "a worker that can prefetch none gets its jobs one by one": (
        f"w prefetches_nothing, {not_prefetched('ann: a', 'b1-3')}"
    ),
    "jobs of a client on hold; those of others are": """
        ann: a1-2, bob: b1-2, ann: c1-2, hold bob, w answers, w has c1-2, release bob, finish
        done b1-2
    """,
    "while not all workers perform the same, nothing is": """
        types Echo, ready x, ann: a1-8, w answers, x answers, w has, x has, w dies, ready y
        x answers, x has a7
    """,
    "an aged job, while a higher one waits, whose turn is the one after": f"""
        outranking, hold bob, bob: b1-2/low, wait {AGEING}, ann: a1-4, release bob, finish
        w ran a1 b1 a2 b2 a3 a4
    """,
    "a job whose deadline is reached, though the reactor is late": """
        hold bob, bob: b/1s, lag 1, somebody: o, ann: a, release bob, w answers, w has, waiting 1
        busy 1, turns 1, timed_out b
    """,
    "a job that was begun before its type came to have a limit counts among those that run": f"""
        {behind("b1-3")}, w goes_on, types Echo:max_running=1, ready x, w answers, w runs b1
        x runs nothing, w answers, busy 1
    """,
}
OVERTAKING = {
    "a more urgent job goes before all prefetched ones": f"""
        {behind("b1-3")}, eve: high/high, w has, finish, w ran o a high b1 b2 b3
    """,
    "but not before one that is begun": f"""
        {behind("b1-3")}, w goes_on, eve: high/high, w has b1, finish, w ran o a b1 high b2 b3
    """,
    "a job that is no more urgent reclaims nothing": f"""
        {behind("b1-3")}, ann: c low/low, w gave_back 0, finish, w ran o a b1 b2 b3 c low
    """,
    "a more urgent job goes before them as soon as it may start: released": """
        hold ann, bob: b1-5, w answers, ann: high/high, w has b3-5, release ann, w answers
        w runs high
    """,
    "a more urgent job goes before them as soon as it may start: with room": """
        somebody: o, ann: a/Few/high, bob: b1-2, w answers, ann: few/Few/high, w has b1-2, finish
        w ran b1 few b2
    """,
    "what is behind a job that turns out to be long is begun by another worker": f"""
        ready x, ann: a1-12, w answers, x answers, w has a4-7, wait {1.5 * SLOW}, x answers, w has
        x finishes, x ran a12 a4-7
    """,
    "what is behind a job that is not so long stays": f"""
        ready x, ann: a1-12, w answers, x answers, w has a4-7, wait {0.5 * SLOW}, x answers
        w has a4-7, x finishes, done a4-7
    """,
}
TIMES = {
    "a job that was reclaimed still has its deadline, and is told what is left of it": f"""
        {behind("b/3s")}, b seconds 3, wait 1, ready x, x runs b, b seconds 2, wait 2
        x interrupted time
    """,
    "a job's time limit counts from when it begins, not from when it was prefetched": f"""
        {behind("b1-2/Timed")}, wait 4, w answers, w runs b1, wait 4.9, w undisturbed, wait 0.1
        w interrupted time, w has, w dies
        b1 told "TIMED_OUT: Timed ran for its time limit, 5.0 s, after it had waited 4.0 s"
    """,
    "a job that was answered within its time, though nobody has noticed, keeps its answer": f"""
        {behind("b1-2/Timed")}, w answers, wait 4, w goes_on, wait 1, w answers, bob answered b1
        w runs b2, w undisturbed
    """,
}
DEATHS = {
    "workers may die that have prefetched a job: it has all its attempts left": f"""
        {behind("b/Again")}, w dies, ready x, x runs b, b attempt 1, x answers, done b
    """,
    "when a command comes into quarantine, its prefetched jobs never run": """
        server quarantine_after=1, ready x, ann: a1-3/Print b1-6, x answers, w answers, w dies
        x answers, x runs nothing, failed b1-3 b5-6, ended done=3 failed=5 lost=1
        b1 told "NO_WORKERS: Echo has killed too many"
    """,
    "one worker counts as one loss of a command, however many of its jobs it had begun": f"""
        server quarantine_after=2, {behind("b1-3")}, w goes_on, w goes_on, kill w, w dies, ready x
        finish, ended done=2 lost=3
    """,
    "a job that a dead worker had not read is the next, as if it had never been given": """
        bob: b1-4/100B, w answers, w runs b2, b2 keeps 0, w dies_unread, queued b2, b2 attempt 0
        waiting 3, busy 0, ready x, x runs b2, x read 100, finish, x ran b2 b3 b4, ended done=4
    """,
    "a limited job that was not read makes room for itself": """
        ann: a/Few, bob: b/Few, w dies_unread, ready x, x runs a, waiting 1, busy 1
    """,
    "the time of a job that was not read begins anew": """
        ann: a/Timed, wait 4, w dies_unread, ready x, x runs a, wait 4.9, x undisturbed, wait 0.1
        x interrupted time
    """,
    "a job that was not read ends all the same if it was cancelled": """
        ann: a, cancel a, w dies_unread, ended cancelled=1
    """,
    "or if nobody wants it": "ann: a/Finish, ann leaves, w dies_unread, ended lost=1",
    "a job that was not read and whose client is on hold waits for its release": """
        ann: a, hold ann, w dies_unread, ready x, x runs nothing, waiting 1, release ann, x runs a
    """,
    "a job that was not read ends if no worker performs its type any more": """
        types Echo, ready x, ann: o a/Again, x runs o, w runs a, w dies_unread, a told UNHANDLED
    """,
    "a job that could be tried again ends, too": """
        types Echo, ready x, ann: o a/Again, w runs a, w dies, a told WORKER_LOST
    """,
}


class StoryTests(PrefetchTestCase):
    """What is told in stories."""

    def do_outranking(self) -> None:
        """Both clients have priorities that rank before those of all others."""
        self.ann.outranks = self.bob.outranks = True

    def see_started_at(self, job: Job, when: str) -> None:
        """When a job was begun, and that its worker is known."""
        self.assertEqual((job.started_at, job.pid), (float(when), self.worker.pid))
        self.assertIs(self.dispatcher.job_of(self.worker), job)

    def test_stories(self) -> None:
        """They are true."""
        self.tell(GIVING, KEPT_BACK, OVERTAKING, TIMES, DEATHS)

    def test_not_before_jobs_are_known_to_be_short(self) -> None:
        """A dispatcher that knows nothing of its jobs prefetches none."""
        self.serve()
        self.play("ready x, ann: a1-5, x answers, x has, waiting 3, busy 1")

    def test_worker_that_has_no_room(self) -> None:
        """A job that a worker cannot take now waits on, and is the next."""
        self.patch(FakeWorker, "room", MOST)
        self.play("w prefetches_nothing, ann: a1-3, bob: b1-3, w answers, w has, waiting 4, busy 1")
        self.play("w dies, ready x, finish, x ran a2 b2 a3 b3")


OUTCOMES: tuple[tuple[str, int, str, str, bool], ...] = (
    # command, how many are begun, what happens, the ends, whether the worker is left alone
    ("Echo", 0, "", "done done done done", True),
    ("Echo", 2, "", "done done done done", True),
    ("Echo", 0, "cancel b2", "done done cancelled done", True),
    ("Echo", 0, "cancel b2, cancel b2", "done done cancelled done", True),
    ("Echo", 1, "cancel b2", "done done cancelled done", True),
    ("Echo", 1, "cancel b1", "done cancelled done done", False),
    ("Echo", 3, "cancel b3", "done done done cancelled", False),
    ("Echo", 1, "cancel a", "done done done done", True),
    ("Echo", 0, "cancel a", "cancelled done done done", False),
    ("Echo", 4, "cancel b3", "done done done cancelled", False),  # it crosses with the answer
    ("Timed", 0, "wait 5", "done done done done", True),
    ("Deadline", 0, "wait 3", "done timed-out timed-out timed-out", True),
    ("Deadline", 1, "wait 3", "done timed-out timed-out timed-out", False),
    ("Deadline", 4, "wait 3", "done done done timed-out", False),
    ("Echo", 0, "bob leaves", "done cancelled cancelled cancelled", True),
    ("Echo", 1, "bob leaves", "done cancelled cancelled cancelled", False),
    ("Finish", 1, "bob leaves", "done done cancelled cancelled", True),
    ("Echo", 0, "ann leaves", "cancelled done done done", False),
    ("Echo", 1, "ann leaves", "done done done done", True),
    ("Echo", 0, "hold bob", "done done done done", True),
    ("Echo", 1, "hold bob", "done done done done", True),
    ("Echo", 0, "urgent: c/high", "done done done done", True),
    ("Echo", 0, "ready x", "done done done done", True),
    ("Echo", 2, "ready x", "done done done done", True),
    ("Echo", 0, "call_back w", "done done done done", True),
    ("Echo", 1, "call_back w", "done done done done", True),
    ("Echo", 0, "call_back w, call_back", "done done done done", True),
    ("Echo", 0, "w spoils", "done done done done", True),
    ("Echo", 0, "dismiss w, kill w", "lost done done done", False),
    ("Echo", 1, "dismiss w, kill w", "done lost done done", False),
    ("Echo", 4, "dismiss w, kill w", "done done done done", False),
    ("Echo", 0, "w is_buried", "lost done done done", True),
    ("Echo", 1, "w is_buried", "done lost done done", True),
    ("Again", 1, "w is_buried", "done done done done", True),
    ("Echo", 0, "w answers, w dies_unread", "done done done done", True),
    ("Echo", 0, "no_workers luck", "done failed failed failed", True),
    ("Again", 0, "types Echo, ready x, w is_buried", "lost failed failed failed", True),
    ("Echo", 0, "drain 10", "done done done done", True),
    ("Echo", 0, "drain 10, cancel b1, cancel b2", "done cancelled cancelled done", True),
    ("Echo", 0, "drain 10, w is_buried", "lost done done done", True),
    ("Echo", 0, "drain 10, wait 10", "cancelled cancelled cancelled cancelled", False),
    ("Echo", 1, "drain 10, wait 10", "done cancelled cancelled cancelled", False),
    # A client reacts when it is told.
    ("Echo", 0, "ann reacts: cancel b1", "done cancelled done done", False),
    ("Echo", 1, "ann reacts: cancel b2", "done done cancelled done", True),
    ("Echo", 0, "ann reacts: bob leaves", "done cancelled cancelled cancelled", False),
    ("Echo", 1, "ann reacts: hold bob", "done done done done", True),
)
GARBAGE: tuple[tuple[str, int, str, str, bool], ...] = (
    # The worker has written garbage, so that its answers do not count: what it has begun is lost.
    ("Echo", 0, "", "lost done done done", False),
    ("Echo", 2, "", "lost lost lost done", False),
    ("Again", 2, "", "lost done done done", False),
    ("Timed", 1, "", "lost lost done done", False),
    ("Again", 2, "cancel b1", "lost lost done done", False),  # it had answered, and is not retried
    ("Echo", 1, "ready x", "lost lost done done", False),
    ("Echo", 1, "cancel b1, cancel b1", "lost cancelled done done", False),
    ("Deadline", 1, "wait 3", "lost timed-out timed-out timed-out", False),
    ("Again", 1, "bob leaves", "lost cancelled cancelled cancelled", False),
    ("Echo", 1, "hold bob", "lost lost done done", False),
    ("Echo", 1, "no_workers luck", "lost lost failed failed", False),
    ("Again", 1, "types Echo, ready x", "lost lost failed failed", False),
    ("Echo", 1, "types Echo:max_running=2, ready x", "lost lost done done", False),
    ("Again", 1, "drain 10, wait 10", "lost cancelled cancelled cancelled", False),
    ("Echo", 1, "cancel b1, drain 10, wait 10", "lost cancelled cancelled cancelled", False),
    ("Again", 2, "ann reacts: cancel b2", "lost done cancelled done", False),
    ("Echo", 2, "ann reacts: bob leaves", "lost lost lost cancelled", False),
)


class OutcomeTests(PrefetchTestCase):
    """A job of Ann's runs, with three of Bob's behind it, and something happens."""

    def do_is_buried(self, worker: FakeWorker) -> None:
        """The worker is gone, when the answers are read that it has written."""
        while worker.has_answered:
            self.answer(worker)
        self.die(worker)

    def end_all(self) -> None:
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
                self.ready(PERFORMS)
            self.clock.advance(0.1)
        raise AssertionError("it does not come to an end")

    def outcome_of(self, command: str, begun: int, story: str, garbage: bool) -> str:
        """How the four jobs end."""
        self.begin_anew(quarantine_after=0)
        kind = "Echo/3s" if command == "Deadline" else command
        self.play(f"{behind(f'b1-3/{kind}')}, {begun}x w goes_on")
        if garbage:
            self.worker.silenced = True
            self.worker.kill("wrote garbage and was killed")
        self.play(story)
        self.end_all()
        ends = [job.state.value for job in self.of(["a", "b1-3"])]
        return " ".join(end.replace(" ", "-") for end in ends)

    def test_outcomes(self) -> None:
        """Each job ends by what happens to itself; the worker is disturbed only for its own job."""
        for row in OUTCOMES:
            command, begun, story, ends, left_alone = row
            self.assertEqual(self.outcome_of(command, begun, story, garbage=False), ends, row)
            disturbed = self.worker.interrupts or self.worker.killed
            self.assertEqual(not disturbed, left_alone, row)
            started = [job for job in self.begun if job in self.of(["b1-3"])[begun:]]
            self.assertEqual(started, sorted(started, key=lambda job: job.id), row)

    def test_garbage(self) -> None:
        """What a worker had begun whose answers do not count is lost, once; the rest is as new."""
        for row in GARBAGE:
            command, begun, story, ends, _ = row
            self.assertEqual(self.outcome_of(command, begun, story, garbage=True), ends, row)
            self.assertLessEqual({job.attempt for job in self.of(["b1-3"])[begun:]}, {0, 1}, row)

    def test_what_is_told(self) -> None:
        """A client is told what became of its job, as far as it can know."""
        for begun, story, text in (
            (0, "cancel b1", "CANCELLED: Echo was cancelled while it waited; it never ran"),
            (1, "cancel b1", "CANCELLED: Echo was cancelled 0.0 s into its run"),
            (0, "no_workers luck", "NO_WORKERS: no worker can be started: luck"),
            (0, "drain 10, wait 10", "SHUTTING_DOWN: the server stopped"),
            (1, "drain 10, wait 10", "SHUTTING_DOWN: the server stopped"),
            (1, "dismiss w, kill w", "grew too large, and was killed 0.1 s into Echo"),
        ):
            with self.subTest(text=text):
                self.outcome_of("Echo", begun, story, garbage=False)
                self.assertIn(text, self.bob.failure_of(self.jobs["b1"]))

    def test_released(self) -> None:
        """A worker that is called back is released when it has ended all that it has begun."""
        for begun in (0, 1):
            self.begin_anew()
            self.play(f"{behind('b1-3')}, {begun}x w goes_on, call_back w, {begun}x w answers")
            self.play(f"released, w answers, released w, waiting {3 - begun}, busy 0")
