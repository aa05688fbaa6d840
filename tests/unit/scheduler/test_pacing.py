"""What is done for each of many is done a part a turn: alarms, chores, and what is told last."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.scheduler.alarms import AT_ONCE, TIDY, Alarm, Alarms
from dangad.scheduler.chores import REST, Chores
from dangad.scheduler.outbox import Outbox


class Turns(Clock):
    """A clock on which what is due now waits for the next turn, as on a reactor."""

    def turn(self) -> bool:
        """Make the calls that are due, and none that they ask for; whether there were any."""
        due = [call for call in self.getDelayedCalls() if call.getTime() <= self.seconds()]
        for call in sorted(due, key=lambda call: call.getTime()):
            if call.active():
                self.calls.remove(call)  # type: ignore[arg-type]
                call.called = 1  # type: ignore[attr-defined]
                call.func(*call.args, **call.kw)  # type: ignore[attr-defined]
        return bool(due)

    def refuse(self, *_: Any, **__: Any) -> Any:
        """A `callLater` for which there is no memory."""
        raise MemoryError


class AlarmTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Have alarms that note when they go off."""
        self.clock = Turns()
        self.alarms = Alarms(self.clock)
        self.rung: list[object] = []

    def test_in_time(self) -> None:
        """Each goes off at its time, in whatever order they were set, once."""
        for delay in (3, 1, 2, 1):
            self.alarms.set(delay, self.rung.append, delay)
        for expected in ([1, 1], [1, 1, 2], [1, 1, 2, 3], [1, 1, 2, 3]):
            self.clock.advance(1)
            self.assertEqual(self.rung, expected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_at_once(self) -> None:
        """Of many that are due together, so many go off in one turn."""
        for number in range(3 * AT_ONCE):
            self.alarms.set(1.0, self.rung.append, number)
        self.clock.rightNow += 1.0
        for turns in (1, 2, 3):
            self.clock.turn()
            self.assertEqual(self.rung, list(range(turns * AT_ONCE)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """One that is cancelled, even by another that is due with it, does not go off."""
        first = self.alarms.set(1.0, lambda: second.cancel())
        second = self.alarms.set(1.0, self.rung.append, "second")
        third = self.alarms.set(2.0, self.rung.append, "third")
        self.clock.advance(1)
        third.cancel()
        first.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(5)
        self.assertEqual(self.rung, [])

    def test_forgotten(self) -> None:
        """Of those that are cancelled long before their time, not very many are kept."""
        self.alarms.set(3600.0, self.rung.append, "last")
        for _ in range(3 * TIDY):
            self.alarms.set(3600.0, self.rung.append, "never").cancel()
        kept = [each for each in gc.get_objects() if type(each) is Alarm and each.call is None]
        self.assertLessEqual(len(kept), TIDY + 1)
        self.clock.advance(3600)
        self.assertEqual(self.rung, ["last"])

    def test_set_at_an_alarm(self) -> None:
        """One that is set for now when another goes off does so soon, and the next at its time."""
        self.alarms.set(1.0, lambda: self.alarms.set(0.0, self.rung.append, "now"))
        self.alarms.set(2.0, self.rung.append, "later")
        self.clock.advance(1)
        self.assertEqual(self.rung, ["now"])
        self.clock.advance(1)
        self.assertEqual(self.rung, ["now", "later"])

    def test_again_and_again(self) -> None:
        """One that is set for now, again and again, goes off once a turn."""

        def ring() -> None:
            self.rung.append("again")
            self.alarms.set(0.0, ring)

        self.alarms.set(1.0, ring)
        self.clock.rightNow += 1
        for turns in (1, 2, 3):
            self.clock.turn()
            self.assertEqual(len(self.rung), turns)

    def test_one_raises(self) -> None:
        """One that raises is logged, and keeps no other from going off."""
        self.alarms.set(1.0, lambda: 1 / 0)
        self.alarms.set(1.0, self.rung.append, "other")
        self.clock.advance(1)
        self.assertEqual(self.rung, ["other"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_clock_refuses(self) -> None:
        """If the clock sets no alarm, the caller knows, and the others go off in their time."""
        self.alarms.set(5.0, self.rung.append, "old")
        patch = self.patch(self.clock, "callLater", self.clock.refuse)
        self.assertRaises(MemoryError, self.alarms.set, 1.0, self.rung.append, "new")
        patch.restore()
        self.clock.advance(5)
        self.assertEqual(self.rung, ["old"])

    def test_clock_refuses_the_next(self) -> None:
        """If the clock sets no call for the next alarm, that goes off with the next that is set."""
        for delay in (1.0, 2.0):
            self.alarms.set(delay, self.rung.append, delay)
        patch = self.patch(self.clock, "callLater", self.clock.refuse)
        self.clock.advance(1)
        patch.restore()
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        self.alarms.set(5.0, self.rung.append, 6.0)
        self.clock.advance(1)
        self.assertEqual(self.rung, [1.0, 2.0])


class ChoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Have chores that note each part."""
        self.clock = Turns()
        self.chores = Chores(self.clock)
        self.done: list[str] = []

    def begin(self, name: str, parts: int) -> None:
        """Begin a chore of so many parts."""
        left = iter(range(parts - 1, -1, -1))

        def do_part() -> bool:
            self.done.append(name)
            return next(left) > 0

        self.chores.begin(do_part)

    def test_parts(self) -> None:
        """The first part is done at once, and one in each turn after that."""
        self.begin("a", 3)
        for parts in (1, 2, 3):
            self.assertEqual(self.done, parts * ["a"])
            self.assertEqual(bool(self.chores), parts < 3)
            self.clock.turn()
        self.assertEqual((self.done, self.clock.getDelayedCalls()), (3 * ["a"], []))

    def test_in_turns(self) -> None:
        """Several chores take turns."""
        self.begin("a", 3)
        self.begin("b", 2)
        self.assertEqual(self.done, ["a", "b"])
        for _ in range(4):
            self.clock.turn()
        self.assertEqual((self.done[2:], bool(self.chores)), (["a", "b", "a"], False))

    def test_part_raises(self) -> None:
        """What raises is logged, and tried again a little later; it is not left half done."""
        outcomes = iter([None, True, False])

        def do_part() -> bool:
            outcome = next(outcomes)
            if outcome is None:
                raise MemoryError
            self.done.append("part")
            return outcome

        self.chores.begin(do_part)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        self.clock.turn()
        self.assertEqual(self.done, [])
        self.clock.advance(REST)
        self.assertEqual((self.done, bool(self.chores)), (["part", "part"], False))

    def test_clock_refuses(self) -> None:
        """If the clock will not call for the rest, it is done at once: it must be done."""
        self.patch(self.clock, "callLater", self.clock.refuse)
        self.begin("a", 3)
        self.assertEqual((self.done, bool(self.chores)), (3 * ["a"], False))
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 2)


class OutboxTests(SynchronousTestCase):
    def test_order(self) -> None:
        """Calls are made in order when they are sent, those that one of them asks for last."""
        outbox, made = Outbox(), list[str]()

        def ask() -> None:
            outbox.put(made.append, "asked for")
            outbox.send()
            made.append("asking")

        outbox.last = lambda: made.append("last")
        outbox.put(ask)
        outbox.put(made.append, "second")
        self.assertEqual(made, [])
        outbox.send()
        self.assertEqual(made, ["asking", "second", "asked for", "last"])
        outbox.send()
        self.assertEqual(len(made), 4)

    def test_one_raises(self) -> None:
        """One that raises is logged, and keeps no other from being made."""
        outbox, made = Outbox(), list[str]()
        outbox.put(lambda: 1 / 0)
        outbox.put(made.append, "other")
        outbox.send()
        self.assertEqual(made, ["other"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
