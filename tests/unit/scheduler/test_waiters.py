from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.waiters import Waiters, fired_within


class WaitersTest(SynchronousTestCase):
    """Any number of people wait for one event."""

    def setUp(self) -> None:
        """Nobody waits yet."""
        self.waiters: Waiters[str] = Waiters()

    def test_all_are_told(self) -> None:
        """All who wait are told in the order in which they came, and wait no more."""
        told: list[int] = []

        def note(_: str, number: int) -> None:
            told.append(number)

        for number in range(3):
            self.waiters.wait().addCallback(note, number)
        self.assertEqual(len(self.waiters), 3)
        self.waiters.tell("now")
        self.assertEqual((told, len(self.waiters)), ([0, 1, 2], 0))

    def test_failure(self) -> None:
        """They can be told of a failure."""
        waits = [self.waiters.wait() for _ in range(2)]
        self.waiters.fail(OSError("no"))
        for wait in waits:
            self.assertEqual(str(self.failureResultOf(wait, OSError).value), "no")

    def test_some(self) -> None:
        """The first few can be told alone."""
        first, second = self.waiters.wait(), self.waiters.wait()
        self.waiters.tell("first", most=1)
        self.assertEqual(self.successResultOf(first), "first")
        self.assertNoResult(second)
        self.waiters.fail(OSError(), most=5)
        self.failureResultOf(second, OSError)

    def test_cancelled(self) -> None:
        """A wait can be given up, before its end and while others are told of it."""
        gone, first, second = (self.waiters.wait() for _ in range(3))
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertEqual(len(self.waiters), 2)
        first.addCallback(lambda _: second.cancel())
        self.waiters.tell("now")
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)

    def test_again(self) -> None:
        """Who waits again when told, waits for the next time."""
        again: list[Deferred[str]] = []
        self.waiters.wait().addCallback(lambda _: again.append(self.waiters.wait()))
        self.waiters.tell("first")
        self.assertNoResult(again[0])
        self.waiters.tell("second")
        self.assertEqual(self.successResultOf(again[0]), "second")


class FiredWithinTest(SynchronousTestCase):
    """One wait is bounded by a time."""

    def setUp(self) -> None:
        """A wait of three seconds begins."""
        self.clock = Clock()
        self.waited: Deferred[object] = Deferred()
        self.ended = fired_within(self.clock, 3, self.waited)

    def test_in_time(self) -> None:
        """It has fired, and no alarm is left."""
        self.waited.callback("whatever")
        self.assertIs(self.successResultOf(self.ended), True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure(self) -> None:
        """A failure is passed on, once."""
        self.waited.errback(OSError("no"))
        self.failureResultOf(self.ended, OSError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.successResultOf(self.waited))

    def test_too_late(self) -> None:
        """What fires later, or fails, is left to whoever else waits for it."""
        self.clock.advance(3)
        self.assertIs(self.successResultOf(self.ended), False)
        self.waited.errback(OSError("no"))
        self.failureResultOf(self.waited, OSError)
