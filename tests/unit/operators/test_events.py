"""The events that those who watch are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.errors import QueueFull
from dangad.operators.events import DELAY, KEPT, MOST, PATIENCE, UNWATCHED, Event, Events
from dangad.operators.parts import Parts
from dangad.scheduler.counters import Counters
from dangad.scheduler.outbox import Outbox
from dangad.scheduler.record import Cause, JobState
from dangad.scheduler.workerhistory import Gone, WorkerHistory
from tests.fakes import FakeClient, FakeWorker, make_job
from tests.unit.host.test_turns import TurnClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred


def everything(_: Event) -> bool:
    """Match every event."""
    return True


class EventsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Jobs and workers that nobody watches."""
        self.clock = Clock()
        self.outbox = Outbox()
        self.counters = Counters(self.outbox, log_jobs="none")
        self.history = WorkerHistory()
        self.events = Events(self.clock, self.counters, self.history, Parts(self.clock))

    def tearDown(self) -> None:
        """After the stop nobody watches, and nothing is left to do."""
        self.events.stop()
        self.assertEqual((self.counters.journals, self.history.journals), ((), ()))
        self.clock.advance(DELAY)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def watch(
        self, after: int | None = None, matches: Callable[[Event], bool] = everything
    ) -> Deferred[dict[str, Any]]:
        """Ask for events, and wait for a turn in which those that are there are told."""
        asked = self.events.watch(after, matches)
        self.clock.advance(0)
        return asked

    def accept(self, count: int = 1) -> None:
        """Let jobs be accepted, at one moment."""
        for _ in range(count):
            self.counters.note_acceptance(make_job(FakeClient("ann")))
        self.outbox.send()

    def kinds(self, asked: Deferred[dict[str, Any]]) -> list[str]:
        """The kinds of the events in an answer."""
        return [event["kind"] for event in self.successResultOf(asked)["events"]]

    def test_jobs(self) -> None:
        """An event has what is known of the job."""
        asked = self.watch()
        job = make_job(FakeClient("ann\x1b"), "Slow", accepted_at=-3.0)
        self.counters.note_acceptance(job)
        job.attempt, job.started_at, job.pid, job.state = 1, -2.0, 77, JobState.FAILED
        self.counters.note_end(job, 0.0)
        self.counters.note_reason(job, b"BAD", "x" * 5000)
        refused = make_job(FakeClient("bob"))
        self.counters.note_refusal(refused, QueueFull("full\n"))
        self.outbox.send()
        self.assertNoResult(asked)
        self.clock.advance(DELAY)
        answer = self.successResultOf(asked)
        accepted, ended, not_accepted = answer["events"]
        self.assertEqual((accepted["job"], accepted["command"]), (job.id, "Slow"))
        self.assertEqual((ended["state"], ended["wait"], ended["runtime"]), ("failed", 1.0, 2.0))
        self.assertEqual((ended["worker"], ended["code"], len(ended["text"])), (77, "BAD", 300))
        self.assertEqual((not_accepted["code"], not_accepted["text"]), ("QUEUE_FULL", "full\\n"))
        self.assertEqual((answer["next"], answer["missed"]), (3, 0))
        for event in answer["events"]:
            self.assertEqual([v for v in event.values() if "\x1b" in str(v)], [])

    def test_workers(self) -> None:
        """Workers' lives are told, too."""
        asked, worker = self.watch(), FakeWorker()
        self.history.note_start(worker)
        self.history.note_boot(worker)
        self.events.worker_gone(Gone(5, 0.0, 9.5, 3, 1, Cause.CRASHED, "was killed by SIGSEGV"))
        self.clock.advance(DELAY)
        self.assertEqual(self.kinds(asked), ["worker started", "worker ready", "worker gone"])

    def test_next(self) -> None:
        """Who asks for what came after the last answer misses nothing, and gets nothing twice."""
        numbers: list[int] = []
        asked = self.watch()
        for _ in range(4):
            self.accept(3)
            self.clock.advance(DELAY)
            answer = self.successResultOf(asked)
            numbers += [event["number"] for event in answer["events"]]
            asked = self.watch(answer["next"])
        self.assertEqual(numbers, list(range(1, 13)))

    def test_one_a_turn(self) -> None:
        """However many watch, one is told in each turn."""
        turns = TurnClock()
        events = Events(turns, self.counters, self.history, Parts(turns))
        asked = [events.watch(None, everything) for _ in range(3)]
        events.note("reload")
        turns.advance(DELAY)
        told: list[int] = []
        while len(told) < 3:
            turns.turn()
            told.append(sum(bool(each.called) for each in asked))
        events.stop()
        self.assertEqual(told, [1, 2, 3])

    def test_meanwhile(self) -> None:
        """Events that come while others are told are told in their turn."""
        first, other = self.watch(), self.watch(None, lambda event: event.kind == "scaled")
        self.events.note("reload")
        first.addCallback(lambda _: self.events.note("scaled"))
        self.clock.advance(DELAY)
        self.clock.advance(DELAY)
        self.assertEqual(self.kinds(other), ["scaled"])

    def test_patience(self) -> None:
        """If nothing happens, the answer is empty, after some time."""
        asked = self.watch()
        self.clock.advance(PATIENCE)
        self.assertEqual(self.successResultOf(asked), {"events": [], "next": 0, "missed": 0})

    def test_stop(self) -> None:
        """Whoever waits at the stop is told at once of all that has happened, and later nothing."""
        asked = self.watch()
        self.accept()
        self.events.stop()
        self.assertEqual(self.kinds(asked), ["accepted"])
        self.assertEqual(self.kinds(self.watch(1)), [])

    def test_filter(self) -> None:
        """Events that do not match are passed over: the next question is for what follows."""
        asked = self.watch(matches=lambda event: event.kind == "note")
        self.accept(3)
        self.clock.advance(DELAY)
        self.assertNoResult(asked)
        self.events.note("note", "an operator", "Slow")
        self.clock.advance(DELAY)
        answer = self.successResultOf(asked)
        self.assertEqual([event["kind"] for event in answer["events"]], ["note"])
        self.assertEqual(answer["next"], 4)

    def test_late(self) -> None:
        """Who is late is told how many events are gone, and gets the oldest that are kept."""
        self.watch()
        self.accept(KEPT + 70)
        answer = self.successResultOf(self.watch(20))
        self.assertEqual((answer["missed"], len(answer["events"])), (50, MOST))
        self.assertEqual((answer["events"][0]["number"], answer["next"]), (71, 70 + MOST))

    def test_unwatched(self) -> None:
        """After a minute without a question nothing is kept, and jobs cost nothing."""
        self.watch()
        self.accept()
        self.clock.advance(UNWATCHED)
        self.assertEqual((self.counters.journals, self.history.journals), ((), ()))
        self.accept()
        self.events.note("scaled")
        asked = self.watch()
        self.assertNoResult(asked)
        self.accept()
        self.clock.advance(DELAY)
        self.assertEqual(self.kinds(asked), ["accepted"])

    def test_from_before(self) -> None:
        """A number of another server, or of a ring that is gone, counts as none."""
        asked = self.watch(10**9)
        self.accept()
        self.clock.advance(DELAY)
        self.assertEqual(self.kinds(asked), ["accepted"])
