"""How long a request may take to come, on a clock of the test's own."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dangad.server.boxwatch import BOX_TIME, LEAST, LOOK_INTERVAL, BoxWatch, IBoxSender


@implementer(IBoxSender)
class Sender:
    """Somebody who sends a box."""

    def __init__(self) -> None:
        self.boxes = 0
        self.begun = 1
        self.is_read = True
        self.late = 0

    def box_is_late(self) -> None:
        """Note it."""
        self.late += 1


class BoxWatchTest(SynchronousTestCase):
    def setUp(self) -> None:
        """Have a watch, and somebody to look at."""
        self.clock = Clock()
        self.watch = BoxWatch(self.clock)
        self.sender = Sender()
        verifyObject(IBoxSender, self.sender)

    def pass_time(self, seconds: float) -> None:
        """Let time pass in the steps in which is looked."""
        self.clock.pump([LOOK_INTERVAL] * int(seconds / LOOK_INTERVAL))

    def test_one_that_stops(self) -> None:
        """A box that does not get on is late, once."""
        self.watch.watch(self.sender)
        self.pass_time(BOX_TIME - LOOK_INTERVAL)
        self.assertEqual(self.sender.late, 0)
        self.pass_time(2 * BOX_TIME)
        self.assertEqual(self.sender.late, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_trickles(self) -> None:
        """So is one of which a byte comes now and then."""
        self.watch.watch(self.sender)
        for _ in range(10):
            self.sender.begun += 1
            self.pass_time(LOOK_INTERVAL)
        self.assertEqual(self.sender.late, 1)

    def test_a_large_one_that_comes_slowly(self) -> None:
        """One that gets on steadily may take hours."""
        self.watch.watch(self.sender)
        for _ in range(500):
            self.sender.begun += LEAST
            self.pass_time(BOX_TIME - LOOK_INTERVAL)
        self.assertEqual(self.sender.late, 0)

    def test_many_small_ones(self) -> None:
        """Who is always in the middle of a box, and of another each time, is not late."""
        self.watch.watch(self.sender)
        for _ in range(100):
            self.sender.boxes += 1
            self.pass_time(LOOK_INTERVAL)
        self.assertEqual(self.sender.late, 0)

    def test_one_that_is_not_read(self) -> None:
        """The time in which the server does not read does not count."""
        self.sender.is_read = False
        self.watch.watch(self.sender)
        self.pass_time(10 * BOX_TIME)
        self.sender.is_read = True
        self.pass_time(BOX_TIME - LOOK_INTERVAL)
        self.assertEqual(self.sender.late, 0)

    def test_one_that_is_whole(self) -> None:
        """Nothing is left of one whose end has come."""
        self.watch.watch(self.sender)
        self.watch.forget(self.sender)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.pass_time(2 * BOX_TIME)
        self.assertEqual(self.sender.late, 0)
