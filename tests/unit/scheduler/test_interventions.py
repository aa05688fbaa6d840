"""What operators do to jobs: which jobs are paused, and which go on; told in short stories."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent

from dangad.errors import ShuttingDown
from dangad.scheduler.interventions import MOST_NAMED, MOST_PAUSED
from dangad.scheduler.record import Attempt
from tests.unit.scheduler.dispatching import DispatcherTestCase
from tests.unit.scheduler.stories import types
from tests.unit.scheduler.test_dispatcher_prefetching import PrefetchTestCase

TYPES = "Echo Other Few:max_running=1 Alone:isolate=yes Again:retries=2 Limited:time_limit=5.0"
PAUSES = {
    "a paused command waits although a worker is idle, and all others go on": """
        ready w x, pause Echo, ann: a b/Other, x runs b, w runs nothing, queued a, idle 1
        x answers, ann: c/Other, x runs c, waiting 1, seeking 0, commands_paused Echo, all_paused no
    """,
    "a job that waited before the pause waits on": """
        ready w, ann: a1-3 b/Other, pause Echo, w answers, w runs b, w answers, queued a2-3, idle 1
    """,
    "what runs goes on": "ready w, ann: a, pause, w runs a, w undisturbed, w answers, done a",
    "a command that nobody performs, and nobody has called, can be paused": """
        pause Nope, ready w, ann: a b/Nope, w runs a, b told UNHANDLED, resume Nope, w runs a
    """,
    "what the workers perform may become known later": """
        pause Few Nope, ann: a/Few b/Nope c, seeking 1, ready w, b told UNHANDLED, w runs c
        w answers, w runs nothing, resume Few, w runs a
    """,
    "after the end of the pause jobs start at once, in the order of their coming": """
        ready w, pause Echo, ann: a1-3, bob: b, resume Echo, 4x w answers, w ran a1 b a2 a3
        seeking 0, commands_paused
    """,
    "the end of the pause starts nothing of another command": """
        ready w, pause Echo Other, ann: a, bob: b/Other, resume Other, w runs b
        w answers, w runs nothing, commands_paused Echo
    """,
    "everything can be paused, whatever its policy": """
        ready w x, pause, ann: a b/Other c/Few d/Alone e/Again, bob: f/high, busy 0, seeking 0
        all_paused yes, resume, w runs a, x runs f, all_paused no
    """,
    "a command that is paused by itself stays so while everything is paused": """
        ready w, pause Echo, pause, ann: a b/Other, resume Echo, w runs nothing, resume, busy 1
        commands_paused, all_paused no
    """,
    "to pause a paused command, or to resume one that is not, changes nothing": """
        ready w, pause Echo, pause Echo, resume Other, ann: a, w runs nothing, resume Echo
        w runs a, resume Echo, resume, w runs a
    """,
    "the limit of a type holds after the pause as before": """
        ready w x, ann: a/Few b/Few c/Few, pause Few, w runs nothing, x answers, x runs nothing
        resume Few, busy 1, idle 1
    """,
    "a job that runs counts for the limit of its type during the pause, and after it": """
        ready w x, ann: a/Few, pause Few, types Echo Few:max_running=1, ready y, resume Few
        ann: b/Few, queued b, x answers, running b
    """,
    "an isolated job that is paused waits for no unused worker": """
        ready w, ann: a, w answers, pause Alone, ann: b/Alone, seeking 0, demanded, ready x
        x runs nothing, resume Alone, x runs b
    """,
    "nor do others wait for one for its sake": """
        ready w, ann: a, w answers, pause Echo, ann: b1-3 c/Alone, seeking 1, demanded 1
    """,
    "a job that is tried again waits in its pause, and starts after it": """
        ready w, ann: a/Again, pause Again, w dies, rest, ready x, x runs nothing, seeking 0
        resume, x runs a, a attempt 2
    """,
    "so does a job whose worker died before it had read it": """
        ready w, ann: a, pause, w dies_unread, ready x, x runs nothing, seeking 0, resume, x runs a
    """,
    "a job that rests when its pause ends rests on": """
        ready w, ann: a/Again, pause Again, w dies, ready x, resume, x runs nothing, rest, x runs a
    """,
    "jobs of a client that does not read wait for both": """
        ready w, pause, ann: a, hold ann, resume, w runs nothing, pause, release ann
        w runs nothing, resume, w runs a
    """,
    "no running job is ended for the sake of paused ones": """
        ready w, ann: a/parts, w sends, hold ann, pause Other, bob: b/Other, 50x wait 0.5
        w undisturbed, resume, 50x wait 0.5, w interrupted cancelled
    """,
    "jobs that stood back when the pause began stand back no more": """
        ready w x, ann: a, x dies, bob: o/Other, w answers, ann: b c/Other, w runs nothing
        pause Echo, wait 0.25, w runs c, w answers, w runs nothing, resume, wait 0.25, w runs b
    """,
}
WAITING = {
    "the deadline of a paused job goes on": """
        ready w, pause, ann: a/5s, wait 5
        a told "DEADLINE_PASSED: Echo waited for its deadline, 5 s"
    """,
    "a paused job can be cancelled, by its client and by operators": """
        pause, ann: a b, cancel a, withdraw b, waiting 0, a told "was cancelled while it waited"
        b told "CANCELLED: Echo was cancelled by an operator while it waited; it never ran"
    """,
    "it goes with its client": "pause, ann: a, ann leaves, cancelled a, waiting 0",
    "paused jobs count for the bounds of the queue": """
        server max_queued=2, ready w, pause Echo, ann: a1-3, a3 told QUEUE_FULL
        bob: b/Other, w runs b, bob: c/Other, c told QUEUE_FULL
    """,
    "paused jobs ask for no worker, and others do": """
        pause Echo, ann: a b, demanded, ann: c/Other, demanded 1, resume, demanded 1 3
    """,
    "if no worker can be started, paused jobs end like all that wait": """
        pause, ann: a, no_workers memory, a told NO_WORKERS
    """,
    "a drain resumes everything": """
        ready w, pause, pause Echo, ann: a b, drain 60, w runs a, all_paused no, commands_paused
        w answers, w answers, done a b
    """,
}
CANCELS = {
    "an operator stops a job that runs": """
        ready w, ann: a, wait 1.5, withdraw a, w interrupted cancelled, w answers, w dies
        a told "CANCELLED: Echo was cancelled by an operator 1.5 s into its run"
    """,
    "an operator cancels a job that rests": """
        ready w, ann: a/Again, w dies, withdraw a
        a told "Again was cancelled by an operator while it waited; it had run once"
    """,
    "what has ended stays as it is": """
        ready w, ann: a, w answers, withdraw a, done a, ann failures 0
    """,
}
PREFETCHED = {
    "a pause reclaims prefetched jobs; afterwards they have their places again": """
        ann: a1-4, w answers, w runs a2, w has a3-4, pause Echo, w has, queued a3-4, ann: a5
        w answers, w runs nothing, resume, finish, w ran a1-5
    """,
    "a job that the worker has begun, unnoticed, goes on": """
        ann: a1-4, w answers, w has a3-4, w goes_on, pause Echo, w has a3, w answers, w runs a3
        ready x, x runs nothing, w answers, w runs nothing, queued a4
    """,
    "jobs of other commands are prefetched again": """
        ann: a1-3 b1-4/Print, w answers, pause Echo, w answers, w runs b1, w answers, w runs b2
        w has b3-4, finish, queued a3
    """,
    "paused jobs take no share of what is prefetched": """
        ready x, pause Again, ann: o1-8/Again, ann: a1-4, w answers, w runs a3, w has, x has
    """,
}


class PauseTests(DispatcherTestCase):
    def test_stories(self) -> None:
        """Paused jobs wait, and nothing else does."""
        self.tell(PAUSES, WAITING, CANCELS, prelude=f"types {TYPES}")

    def test_bounds(self) -> None:
        """So many commands can be paused one by one, and no more; then nothing changes."""
        commands = [b"Command%d" % number for number in range(MOST_PAUSED + 1)]
        self.dispatcher.pause(commands[:-1])
        with self.assertRaisesRegex(ValueError, "1001 commands would be paused; at most 1000 can"):
            self.dispatcher.pause(commands)
        self.assertEqual(self.dispatcher.paused.commands, {*commands[:-1]})

    def test_drain(self) -> None:
        """A server that drains pauses nothing."""
        self.dispatcher.drain(1)
        with self.assertRaises(ShuttingDown):
            self.dispatcher.pause(None)
        self.assertEqual(self.dispatcher.paused, (False, frozenset()))

    def test_describe(self) -> None:
        """While everything is paused, a worker comes for those who ask for the catalogue."""
        self.play("pause, ann: a")
        told = self.dispatcher.describe()
        self.play("demanded 1, ready w, w runs nothing")
        self.assertEqual(self.successResultOf(told), self.performs)

    def test_log(self) -> None:
        """The log says what is paused, a few commands by name, and that a drain resumes it."""
        commands = [b"\x1b[31mEcho", *(b"Z%02d" % number for number in range(MOST_NAMED + 5))]
        with capturedLogs() as events:
            self.dispatcher.pause(commands[:2])
            self.dispatcher.pause(commands)
            self.dispatcher.pause(None)
            self.dispatcher.resume([b"Z01"])
            self.dispatcher.drain(1)
        first, second, *others = [str(formatEvent(event)) for event in events]
        self.assertEqual(first, "paused by operators: \\x1b[31mEcho, Z00")
        self.assertIn("Z08, and 6 others", second)
        self.assertEqual(
            others,
            [
                "paused by operators: all jobs",
                "paused by operators: all jobs",
                "the drain resumes all jobs: it could not end while some are paused",
                "paused by operators: nothing",
            ],
        )

    def test_attempts(self) -> None:
        """A job remembers the attempts that were lost, once another follows."""
        self.play(f"types {TYPES}, ready w, ann: a/Again, wait 2, w dies, rest, ready x, wait 1")
        job, worker = self.jobs["a"], self.named["w"]
        [attempt] = job.attempts
        text = f"worker {worker.pid} was killed by SIGKILL 2.0 s into Again"
        self.assertEqual(attempt, Attempt(1000.0, worker.pid, text))
        self.play("x dies, rest, ready y, y answers")
        self.assertEqual([each.pid for each in job.attempts], [worker.pid, self.named["x"].pid])

    def test_lists(self) -> None:
        """Operators see what waits and what runs."""
        self.play(f"types {TYPES}, ready w x, ann: a b/Again, w dies, pause Other, bob: c/Other d")
        self.play("hold bob, bob: e")
        self.assertEqual(self.dispatcher.jobs_running(), self.of(["a"]))
        self.assertCountEqual(self.dispatcher.jobs_waiting(), self.of(["b", "c", "d", "e"]))


class PrefetchedTests(PrefetchTestCase):
    performs = types([*["Echo", "Print", "Again"], "Alone:isolate=yes"])
    practised = ("Print", "Again", "Echo")

    def test_stories(self) -> None:
        """What is prefetched counts as waiting."""
        self.tell(PREFETCHED)

    def test_lists(self) -> None:
        """It is among the jobs that wait."""
        self.play("ann: a1-4, w answers, w has a3-4")
        self.assertCountEqual(self.dispatcher.jobs_waiting(), self.of(["a3-4"]))
        self.assertEqual(self.dispatcher.jobs_running(), self.of(["a2"]))
