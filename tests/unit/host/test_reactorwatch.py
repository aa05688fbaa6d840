"""The lengths of the reactor's turns, and what is logged of those that take too long."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from dangad.host.quietlog import INTERVAL
from dangad.host.reactorwatch import (
    BUCKETS,
    BURST,
    HANG,
    LONG,
    WINDOW,
    ReactorWatch,
    StallSampler,
)
from dangad.host.shortturns import ShortPoll, take_few_events

if TYPE_CHECKING:
    from collections.abc import Callable

THRESHOLD = 0.5


class ClockReactor(Clock):
    """A clock that also makes calls from threads, in its next turn."""

    def callFromThread(self, call: Callable[..., object], *args: object) -> None:
        """Make the call soon."""
        self.callLater(0, call, *args)


class FakePoller:
    """An epoll object without descriptors: a poll takes the time that the test says."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.waits = 0.0
        self.register = self.modify = self.unregister = None

    def poll(self, timeout: float | None, maxevents: int) -> list[object]:
        """Wait."""
        self.clock.advance(self.waits)
        return []


class WatchCase(SynchronousTestCase):
    def setUp(self) -> None:
        """A poll object of a reactor, and its watch."""
        self.clock = ClockReactor()
        self.watch = ReactorWatch(self.clock.seconds)
        self.watch.measures = True
        self.poller = FakePoller(self.clock)
        self.poll = ShortPoll(self.poller, self.watch)
        self.poll.poll()

    def turn(self, seconds: float) -> None:
        """Have a turn of this length come to its end, and the next one begin."""
        self.clock.rightNow += seconds
        self.poll.poll()


class WatchTests(WatchCase):
    def test_lengths(self) -> None:
        """A turn lasts from the end of a poll to the next one; the wait in a poll is none of it."""
        self.poller.waits = 100.0
        for seconds in (LONG / 2, 0.3, 0.02, 7.0, 99.0):
            self.turn(seconds)
        self.assertEqual(self.watch.longest, 99.0)
        self.assertAlmostEqual(self.watch.total, 0.3 + 0.02 + 7.0 + 99.0)
        counted = dict(zip((*BUCKETS, "more"), self.watch.counts, strict=True))
        self.assertEqual(
            {bound: count for bound, count in counted.items() if count},
            {0.025: 1, 0.5: 1, 10.0: 1, "more": 1},
        )

    def test_histogram(self) -> None:
        """For metrics, long turns are counted up to each length, and summed."""
        for seconds in (LONG / 2, 0.02, 0.02, 99.0):
            self.turn(seconds)
        told = self.watch.histogram()
        self.assertEqual(told["edges"], list(BUCKETS))
        self.assertEqual(told["counts"], [0, 2, *[0] * (len(BUCKETS) - 2), 1])
        self.assertAlmostEqual(told["sum"], 99.04)

    def test_last_minute(self) -> None:
        """The longest turn of the last minute is forgotten after it, and the next longest shown."""
        self.poller.waits = 10.0
        for seconds in (2.0, 3.0, 0.5, 1.0):
            self.turn(seconds)
        self.assertEqual(self.watch.document(), {"last_minute": 3.0, "ever": 3.0})
        self.clock.advance(WINDOW - 30)
        self.assertEqual(self.watch.document(), {"last_minute": 1.0, "ever": 3.0})
        self.clock.advance(WINDOW)
        self.assertEqual(self.watch.document(), {"last_minute": 0.0, "ever": 3.0})

    def test_bounded(self) -> None:
        """However many turns are long, few are remembered."""
        for number in range(10_000):
            self.turn(0.02 + number % 7 / 100)
        self.assertLessEqual(len(self.watch._last), WINDOW / LONG)

    def test_reactors(self) -> None:
        """Turns are measured with epoll, and not with poll."""
        for make, measures in ((EPollReactor, True), (PollReactor, False)):
            reactor: Any = make()
            self.addCleanup(close, reactor)
            watch = take_few_events(reactor)
            self.assertIs(watch.measures, measures)
            reactor.callLater(0, time.sleep, 2 * LONG)
            for _ in range(3):
                reactor.runUntilCurrent()
                reactor.doIteration(0)
            self.assertEqual(watch.longest >= 2 * LONG, False)
            reactor.callLater(0, time.sleep, 2 * LONG)
            for _ in range(3):
                reactor.runUntilCurrent()
                reactor.doIteration(0)
            self.assertEqual(watch.longest >= 2 * LONG, measures)
            if not measures:
                self.assertEqual(watch.document(), {"last_minute": None, "ever": None})


def close(reactor: Any) -> None:
    """Close what the reactor has open."""
    for selectable in reactor.removeAll():
        selectable.connectionLost(None)
    if hasattr(reactor, "_poller"):
        close_poller = getattr(reactor._poller, "close", None)
        if close_poller is not None:
            close_poller()


class SamplerTests(WatchCase):
    def setUp(self) -> None:
        """A sampler whose thread the test plays."""
        super().setUp()
        self.sampler = StallSampler(self.clock, self.watch, THRESHOLD)
        self.watch.listener = self.sampler._ended

    def said(self, act: Callable[[], object]) -> list[str]:
        """The lines that are logged, at once or in the next turn."""
        with capturedLogs() as events:
            act()
            self.clock.advance(0)
        return [formatEvent(event) for event in events]

    def stall(self, seconds: float) -> None:
        """Have a turn of this length, at which the thread has looked twice."""
        self.clock.rightNow += min(seconds, 1.5 * THRESHOLD)
        self.sampler.look()
        self.sampler.look()
        self.turn(max(0.0, seconds - 1.5 * THRESHOLD))

    def test_stall(self) -> None:
        """A turn that took too long is logged once, with its length and the stack."""
        [line] = self.said(lambda: self.stall(2.0))
        self.assertTrue(
            line.startswith("the reactor was blocked for 2.000 s; after 0.5 s it was in:\n"), line
        )
        self.assertRegex(line, r'File ".*test_reactorwatch.py", line \d+, in stall')

    def test_short(self) -> None:
        """One that did not is not logged, and its stack is not taken for that of the next."""
        self.assertEqual(self.said(lambda: self.stall(0.4)), [])
        [line] = self.said(lambda: self.turn(2.0))
        self.assertIn("2.000 s; it is not known in what", line)

    def test_idle(self) -> None:
        """A reactor that waits is not blocked."""
        self.watch.began = None
        self.clock.rightNow += 100
        self.sampler.look()
        self.assertIsNone(self.sampler._sample)

    def test_hang(self) -> None:
        """A turn that may never end is logged before its end, once, and again at its end."""

        def look_on() -> None:
            self.clock.rightNow += THRESHOLD
            for _ in range(5):
                self.sampler.look()
                self.clock.rightNow += HANG

        [hanging] = self.said(look_on)
        self.assertRegex(hanging, r"(?s)has been blocked for 10\.5 s, and still is, in:\n.*look_on")
        [line] = self.said(lambda: self.turn(0))
        self.assertIn("was blocked for 50.500 s", line)

    def test_many(self) -> None:
        """Of many that come in a row few are logged, and the others counted."""
        with capturedLogs() as events:
            for _ in range(100):
                self.stall(THRESHOLD)
                self.clock.advance(0)
            self.clock.advance(INTERVAL)
        self.assertLess(len(events), 2 * 100 * THRESHOLD / INTERVAL * (BURST + 1))
        self.assertRegex(formatEvent(events[BURST]), r"and \d+ more of this kind")

    def test_thread(self) -> None:
        """The thread sees the reactor's real stack, and ends when it is told to."""
        watch = ReactorWatch()
        sampler = StallSampler(self.clock, watch, 0.02)
        sampler.start()
        seen = threading.Event()
        look = sampler.look

        def look_and_say() -> None:
            look()
            if sampler._sample is not None:
                seen.set()

        self.patch(sampler, "look", look_and_say)
        watch.began = watch.clock()
        self.assertTrue(seen.wait(60))
        assert sampler._sample is not None
        self.assertTrue(
            re.search(r"(?m)test_reactorwatch.py.* in test_thread$", sampler._sample[1])
        )
        sampler.stop()
        sampler._thread.join(60)
        self.assertFalse(sampler._thread.is_alive())
        self.assertIsNone(watch.listener)
