"""Python's collections stay short, however many objects there are, on a collector of the tests'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.host.garbage import FEW, LONGEST, LOOK_INTERVAL, ShortCollections

if TYPE_CHECKING:
    from collections.abc import Callable

A_SECOND = 1_000_000
"""Objects that take a second of CPU time to be looked at."""


class Collector:
    """Python's collector: each full collection looks at all that is not frozen.

    There is one after so many collections of younger objects as the threshold says, if it has a
    quarter more than what the last has left.
    """

    def __init__(self, alive: int) -> None:
        """Have some objects."""
        self.threshold: tuple[int, ...] = (700, 10, 10)
        self.left = alive
        self.callbacks: list[Callable[[str, dict[str, int]], Any]] = []
        self.computed = 0.0
        self.loose = alive
        self.frozen = 0
        self.pauses: list[float] = []

    def freeze(self) -> None:
        """As of gc."""
        self.frozen, self.loose = self.frozen + self.loose, 0

    def unfreeze(self) -> None:
        """As of gc."""
        self.frozen, self.loose = 0, self.frozen + self.loose

    def get_freeze_count(self) -> int:
        """As of gc."""
        return self.frozen

    def get_threshold(self) -> tuple[int, ...]:
        """As of gc."""
        return self.threshold

    def set_threshold(self, *threshold: int) -> None:
        """As of gc."""
        self.threshold = threshold

    def allocate(self, objects: int) -> None:
        """Have so many more, with the full collections that they bring about."""
        new = 0
        for _ in range(0, objects, self.each):
            new += self.each
            self.loose += self.each
            if new >= self.threshold[2] * self.each and new > self.left / 4:
                self.collect()
                new = 0

    @property
    def each(self) -> int:
        """How many new objects there are between two collections of younger ones."""
        return self.threshold[0] * self.threshold[1]

    def collect(self, generation: int = 2) -> None:
        """As of gc."""
        self._tell("start", generation)
        self.pauses.append(self.loose / A_SECOND)
        self.computed += self.pauses[-1]
        self.left = self.loose
        self._tell("stop", generation)

    def _tell(self, phase: str, generation: int) -> None:
        for callback in self.callbacks:
            callback(phase, {"generation": generation})


class ShortCollectionsTest(SynchronousTestCase):
    def setUp(self) -> None:
        """Have a server of many modules, just started."""
        self.clock = Clock()
        self.collector = Collector(20_000)
        self.collections = ShortCollections(
            self.clock, self.collector, lambda: self.collector.computed
        )
        self.collections.start()
        self.addCleanup(self.collections.stop)

    def longest(self) -> float:
        """The longest collection since the last call."""
        pauses, self.collector.pauses = self.collector.pauses, []
        return max(pauses, default=0.0)

    def test_many_objects(self) -> None:
        """While objects become more and more, each collection looks at few of them."""
        self.collector.allocate(1_000_000)
        self.assertLess(self.longest(), 0.02)

    def test_modules(self) -> None:
        """What a server consists of from its start is in no collection."""
        self.collector.collect()
        self.assertEqual(self.longest(), 0)

    def test_few_are_left(self) -> None:
        """When most have gone all are looked at again, and once is enough."""
        self.collector.allocate(1_000_000)
        self.clock.advance(LOOK_INTERVAL)
        self.assertLess(self.longest(), 0.02)
        self.collector.frozen, self.collector.loose = 20_000 + FEW, 0
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(self.longest(), (20_000 + FEW) / A_SECOND)
        self.clock.pump([LOOK_INTERVAL] * 10)
        self.assertEqual(self.longest(), 0)
        self.collector.collect()
        self.assertEqual(self.longest(), 0)

    def test_many_stay(self) -> None:
        """What they leave behind does not pile up: in the end all are looked at."""
        self.collector.allocate(200_000)
        self.assertLess(self.longest(), 0.02)
        self.clock.pump([LOOK_INTERVAL] * int(LONGEST / LOOK_INTERVAL))
        self.assertGreater(self.longest(), 0.2)

    def test_young_ones(self) -> None:
        """A collection of the youngest objects, however long, freezes nothing."""
        self.collector.loose = 100_000
        self.collector.collect(generation=1)
        self.assertEqual(self.collector.loose, 100_000)

    def test_the_end(self) -> None:
        """Then it is Python's own affair again."""
        self.collections.stop()
        self.assertEqual((self.collector.frozen, self.collector.callbacks), (0, []))
        self.assertEqual(self.collector.threshold, (700, 10, 10))
        self.assertEqual(self.clock.getDelayedCalls(), [])
