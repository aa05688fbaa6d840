"""Rates and percentiles of the last minutes."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.errors import NoWorkers, QueueFull
from dangad.operators.rates import AT_ONCE, INTERVAL, Rates
from dangad.scheduler.counters import Counters
from dangad.scheduler.metrics import FACTOR, MOST_COMMANDS
from dangad.scheduler.outbox import Outbox
from dangad.scheduler.record import JobState
from tests.fakes import make_job


class RatesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A server that has just started, and knows one command."""
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.counters = Counters(Outbox(), log_jobs="none")
        self.counters.metrics.know([b"Echo"])
        self.rates = Rates(self.clock, self.counters)
        self.rates.start()
        self.addCleanup(self.rates.stop)

    def end(self, number: int, runtime: float, state: JobState = JobState.DONE) -> None:
        """Let so many jobs end, each after half a second of waiting and this runtime."""
        now = self.clock.seconds()
        for _ in range(number):
            job = make_job(None, accepted_at=now - runtime - 0.5)
            job.attempt, job.started_at, job.state = 1, now - runtime, state
            self.counters.note_acceptance(job)
            self.counters.note_end(job, now)

    def assert_near(self, found: float, right: float) -> None:
        """A percentile is right to within a bucket."""
        self.assertTrue(right / FACTOR <= found <= right * FACTOR, (found, right))

    def wait(self, seconds: float) -> None:
        """Let time pass, a second at a time."""
        self.clock.pump([1.0] * round(seconds))

    def test_young(self) -> None:
        """A young server tells what has been since its start."""
        self.assertEqual(self.rates.last()["15m"]["p50"], None)
        self.wait(10)
        self.end(20, 1.0)
        for window in self.rates.last().values():
            self.assertEqual((window["jobs"], window["rate"], window["failed"]), (20, 2.0, 0))
            self.assert_near(window["p50"], 1.5)

    def test_windows(self) -> None:
        """Each window forgets what was before it, give or take the time between two samples."""
        self.end(60, 8.0, JobState.FAILED)
        self.wait(200)
        self.end(30, 0.1)
        self.wait(30)
        last = self.rates.last()
        self.assertEqual([last[each]["jobs"] for each in ("1m", "5m", "15m")], [30, 90, 90])
        self.assertEqual([last[each]["failed"] for each in ("1m", "5m", "15m")], [0, 60, 60])
        self.assertLess(last["1m"]["p99"], 1.0)
        self.assertGreater(last["5m"]["p99"], 7.0)
        self.assertTrue(30 / (60 + INTERVAL) <= last["1m"]["rate"] <= 0.5, last["1m"])
        self.wait(1200)
        self.assertEqual({each["jobs"] for each in self.rates.last().values()}, {0})

    def test_span(self) -> None:
        """The rate is that of the time which the figures cover: little more than the window."""
        for seconds in range(200):
            self.wait(1)
            self.end(3, 0.1)
            last = self.rates.last()["1m"]
            self.assertLessEqual(last["seconds"], 60 + INTERVAL)
            self.assertAlmostEqual(last["rate"] * last["seconds"], last["jobs"])
            self.assertGreaterEqual(last["seconds"], min(60, seconds))

    def test_ends(self) -> None:
        """Lost and timed out jobs have failed, and count in the percentiles; cancelled ones not."""
        for state in (JobState.FAILED, JobState.LOST, JobState.TIMED_OUT):
            self.end(2, 9.5, state)
        self.end(4, 0.0, JobState.CANCELLED)
        for last in (self.rates.last()["1m"], self.rates.of(b"Echo")["1m"]):
            counted = [last[name] for name in ("jobs", "failed", "cancelled")]
            self.assertEqual(counted, [10, 6, 4])
        self.assertGreater(self.rates.last()["1m"]["p50"], 5.0)

    def test_refused(self) -> None:
        """Refusals of each window are counted by code."""
        job = make_job(None)
        self.counters.note_refusal(job, NoWorkers("none"))
        self.wait(70)
        for _ in range(3):
            self.counters.note_refusal(job, QueueFull("full"))
        last = self.rates.last()
        self.assertEqual(last["1m"]["refused_by_code"], {"QUEUE_FULL": 3})
        self.assertEqual(last["5m"]["refused_by_code"], {"QUEUE_FULL": 3, "NO_WORKERS": 1})

    def test_command(self) -> None:
        """A command has the percentiles of its waits and of its runtimes."""
        self.end(10, 2.0)
        last = self.rates.of(b"Echo")["1m"]
        self.assertEqual(last["jobs"], 10)
        self.assert_near(last["wait"]["p50"], 0.5)
        self.assert_near(last["runtime"]["p50"], 2.0)
        self.wait(2 * INTERVAL + 60)
        self.assertEqual(self.rates.of(b"Echo")["1m"]["jobs"], 0)
        self.assertEqual(self.rates.of(b"Echo")["5m"]["jobs"], 10)
        self.assertEqual(self.rates.of(b"Unknown")["5m"]["jobs"], 0)

    def test_late_command(self) -> None:
        """A command that a reload has brought counts from then on."""
        self.wait(400)
        self.counters.metrics.know([b"Late"])
        for _ in range(2):
            job = make_job(None, "Late", accepted_at=self.clock.seconds())
            job.state = JobState.LOST
            self.counters.note_acceptance(job)
            self.counters.note_end(job, self.clock.seconds())
        for _ in range(3):
            self.assertEqual(self.rates.of(b"Late")["1m"]["failed"], 2)
            self.wait(INTERVAL)

    def test_many_commands(self) -> None:
        """Only some commands are sampled in one turn of the reactor."""
        self.counters.metrics.know(b"C%d" % number for number in range(MOST_COMMANDS))
        delays: list[float] = []
        later = self.clock.callLater

        def note(delay: float, *call: Any) -> Any:
            delays.append(delay)
            return later(delay, *call)

        self.patch(self.clock, "callLater", note)
        self.clock.advance(INTERVAL)
        self.assertGreaterEqual(delays.count(0), MOST_COMMANDS // AT_ONCE - 1)

    def test_stop(self) -> None:
        """After the stop nothing is left to do."""
        self.rates.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
