"""How the work of a turn is shared out, on a clock of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.host.turns import QUOTA, Turns, do_in_turns

if TYPE_CHECKING:
    from collections.abc import Callable


class TurnClock(Clock):
    """A clock with the reactor's turns: what is put off in one comes in the next."""

    turn_time = 2.0**-20

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> Any:
        """As of a clock, but not before the next turn."""
        return super().callLater(max(delay, self.turn_time), callable, *args, **kwargs)

    def turn(self) -> None:
        """Do what is due now, and no more."""
        self.advance(self.turn_time)


class TurnsTest(SynchronousTestCase):
    def setUp(self) -> None:
        """Have turns, and a list of what was done in them."""
        self.clock = TurnClock()
        self.turns = Turns(self.clock)
        self.done: list[str] = []

    def worker(self, name: str, units: int) -> Callable[[], None]:
        """Somebody who has so much to do, and does it as it may."""

        def go_on() -> None:
            nonlocal units
            while units and self.turns.left > 0:
                self.turns.left -= 1
                units -= 1
                self.done.append(name)
            if units:
                self.turns.wait(go_on)

        return go_on

    def turn(self) -> list[str]:
        """What is done in the next turn."""
        self.done.clear()
        self.clock.turn()
        return list(self.done)

    def test_a_quota(self) -> None:
        """In each turn no more is done than the quota, and all in the end."""
        self.worker("a", 3 * QUOTA)()
        self.assertEqual(len(self.done), QUOTA)
        self.assertEqual([len(self.turn()) for _ in range(3)], [QUOTA, QUOTA, 0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shares(self) -> None:
        """All who wait get the same, however much each has to do; who has little is done soon."""
        for name in "abcd":
            self.worker(name, 10 * QUOTA)()
        self.worker("e", 1)()
        first = self.turn()
        self.assertEqual(len(first), QUOTA)
        self.assertIn("e", first)
        counts = [first.count(name) for name in "abcd"]
        self.assertLess(max(counts) - min(counts), QUOTA // 4)

    def test_more_who_wait_than_the_quota(self) -> None:
        """Each of them has its turn before anybody has a second one."""
        for number in range(3 * QUOTA):
            self.turns.wait(self.worker(str(number), 2))
        done = self.turn() + self.turn() + self.turn()
        self.assertEqual(len(set(done)), 3 * QUOTA)

    def test_an_exception(self) -> None:
        """One that somebody raises is logged, and the others have their turn."""

        def fail() -> None:
            raise ValueError("no")

        self.turns.wait(fail)
        self.turns.wait(self.worker("a", 1))
        self.assertEqual(self.turn(), ["a"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_few(self) -> None:
        """Who does little leaves nothing to the clock."""
        self.worker("a", QUOTA - 1)()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DoInTurnsTest(SynchronousTestCase):
    def test_batches(self) -> None:
        """Something is done with few at once, with the first of them now."""
        clock, done = TurnClock(), list[int]()
        do_in_turns(clock, range(25), done.append, 10)
        self.assertEqual(done, list(range(10)))
        clock.turn()
        self.assertEqual(done, list(range(20)))
        clock.turn()
        self.assertEqual(done, list(range(25)))
        self.assertEqual(clock.getDelayedCalls(), [])
