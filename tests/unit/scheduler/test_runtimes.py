"""How long jobs take is learned from those that ran, and unlearned."""

import random

from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler.runtimes import ENOUGH, PROBE, RunTimes
from tests.fakes import catalogue
from tests.unit.scheduler.dispatching import DispatcherTestCase

NAME = b"Slow"


class RunTimesTests(SynchronousTestCase):
    """One type, at one time."""

    def setUp(self) -> None:
        """Know nothing."""
        self.run_times = RunTimes()
        self.chance = random.Random(1)

    def run_some(self, *seconds: float, times: int = ENOUGH, stopped: bool = False) -> None:
        """Jobs have run for one of these times each."""
        for _ in range(times):
            self.run_times.note(NAME, self.chance.choice(seconds), 0.0, stopped=stopped)

    def is_too_short(self, left: float, now: float = 0.0) -> bool:
        """Whether so many seconds are too few."""
        return self.run_times.too_short(NAME, left, now) > left

    def test_first(self) -> None:
        """The first ones run, and so do other types."""
        self.run_some(0.02, times=ENOUGH - 1)
        self.assertFalse(self.is_too_short(0.001))
        self.run_some(0.02, times=1)
        self.assertTrue(self.is_too_short(0.019))
        self.assertFalse(self.is_too_short(0.021))
        self.assertEqual(self.run_times.too_short(b"Other", 0.001, 0.0), 0.0)

    def test_slow_first(self) -> None:
        """A first run that was slow, as the first may be, is soon forgotten."""
        self.run_some(20.0, times=1)
        self.run_some(0.01, times=ENOUGH)
        self.assertFalse(self.is_too_short(0.1))

    def test_like_each_other(self) -> None:
        """If all take about as long, nearly all of them are done in what is enough."""
        times = [self.chance.uniform(0.020, 0.023) for _ in range(1000)]
        self.run_some(*times, times=1000)
        self.assertTrue(self.is_too_short(0.0205))
        self.assertFalse(self.is_too_short(0.0235))

    def test_not_like_each_other(self) -> None:
        """If some take far less than others, nobody is denied the chance to be one of them."""
        self.run_some(0.01, 1.0, times=1000)
        self.assertTrue(self.is_too_short(0.008))
        self.assertFalse(self.is_too_short(0.02))

    def test_changes(self) -> None:
        """What is true no more is forgotten."""
        self.run_some(1.0, times=1000)
        self.run_some(0.01, times=ENOUGH)
        self.assertFalse(self.is_too_short(0.02))
        self.run_some(1.0, times=2000)
        self.assertTrue(self.is_too_short(0.5))

    def test_stopped(self) -> None:
        """Those that were stopped would have taken longer, whatever they took."""
        self.run_some(0.02)
        self.run_some(0.001, times=100, stopped=True)
        self.assertTrue(self.is_too_short(0.019))
        self.run_some(0.05, times=1000, stopped=True)
        self.assertTrue(self.is_too_short(0.04))

    def test_probe(self) -> None:
        """Now and then one is let start: how else is it known that it takes less now?"""
        self.run_some(1.0)
        self.assertTrue(self.is_too_short(0.5, PROBE / 2))
        self.assertFalse(self.is_too_short(0.5, PROBE))
        self.assertTrue(self.is_too_short(0.5, PROBE))


class DeadlineTests(DispatcherTestCase):
    """Jobs that cannot be done in time make room for those that can."""

    def test_not_started(self) -> None:
        """A job with too little time left ends when its turn comes, or before it comes in."""
        worker = self.ready(catalogue("Echo", "Paused"))
        ann, bob = self.connect("ann"), self.connect("bob")
        for _ in range(ENOUGH):
            self.submit(ann, deadline=5)
            self.clock.advance(1.0)
            self.answer(worker)
        self.submit(ann)
        hopeless = self.submit(ann, deadline=1.5)
        hopeful = self.submit(ann, deadline=2.5)
        refused = self.submit(bob, deadline=0.5)
        self.clock.advance(0.9)
        self.answer(worker)
        self.assertIs(worker.job, hopeful)
        for client, job, left in ((ann, hopeless, "0.6"), (bob, refused, "0.5")):
            self.assertEqual(
                client.failure_of(job),
                f"DEADLINE_PASSED: Echo was not started: {left} s were left of its deadline, "
                f"{job.deadline:g} s, and it takes 1 s or more; it never ran",
            )
        self.answer(worker)
        self.dispatcher.pause([b"Paused"])
        self.submit(ann, "Paused")
        alone = self.submit(bob, deadline=0.5)
        self.assertIs(worker.job, alone, "nobody else needs the worker")
