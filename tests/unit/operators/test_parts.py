"""Work in parts, and the first of very many."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dangad.operators.parts import (
    LONGEST_REST,
    PART,
    REST,
    WRITTEN_AT_ONCE,
    First,
    Parts,
    write_list,
)
from tests.unit.host.test_turns import TurnClock

if TYPE_CHECKING:
    from collections.abc import Generator


class PartsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Have nothing to do."""
        super().setUp()
        self.clock = TurnClock()
        self.parts = Parts(self.clock)
        self.done: list[str] = []

    def work(self, name: str, parts: int) -> Generator[None, None, str]:
        """Work that notes each of its parts."""
        for number in range(parts):
            self.done.append(f"{name}{number}")
            yield
        return name

    def turn(self) -> list[str]:
        """What is done in the next turn of the reactor."""
        self.done.clear()
        self.clock.turn()
        return list(self.done)

    def test_one_a_turn(self) -> None:
        """However much is to be done, a turn has one part, and all get on."""
        first, second = self.parts.do(self.work("a", 3)), self.parts.do(self.work("b", 1))
        self.assertEqual(self.done, [])
        turns = [self.turn() for _ in range(6)]
        self.assertEqual(turns, [["a0"], ["b0"], ["a1"], [], ["a2"], []])
        self.assertEqual(self.successResultOf(first), "a")
        self.assertEqual(self.successResultOf(second), "b")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rest(self) -> None:
        """After a part nothing is done for as long again, but not for very long."""
        clock = Clock()
        parts = Parts(clock)

        def take(_: str, seconds: float) -> None:
            clock.rightNow += seconds

        for seconds, rest in ((0.01, REST * 0.01), (1.0, LONGEST_REST)):
            for early in (True, False):  # whether the next one waits before the rest
                parts.turn().addCallback(take, seconds)
                following = parts.turn() if early else None
                clock.advance(0)
                following = following or parts.turn()
                clock.advance(0.9 * rest)
                self.assertNoResult(following)
                clock.advance(0.2 * rest)
                self.assertEqual(self.successResultOf(following), "")

    def test_turns(self) -> None:
        """Who waits for a turn has it after those who came before."""
        self.parts.do(self.work("a", 2))
        turn = self.parts.turn()
        self.assertEqual(self.turn(), ["a0"])
        self.assertNoResult(turn)
        self.turn()
        self.assertEqual(self.successResultOf(turn), "")
        self.assertEqual(self.turn(), ["a1"])

    def test_failure(self) -> None:
        """Work that fails is over, and the others go on; more can follow at once."""

        def broken() -> Generator[None, None, None]:
            yield
            raise KeyError("gone")

        failed, other = self.parts.do(broken()), self.parts.do(self.work("a", 1))
        again = failed.addErrback(lambda failure: self.parts.do(self.work("b", 1)))
        for _ in range(6):
            self.turn()
        self.assertEqual(self.successResultOf(again), "b")
        self.assertEqual(self.successResultOf(other), "a")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_long_list(self) -> None:
        """A long list is written in parts, as it would be at once."""
        entries = [{"number": number} for number in range(2 * WRITTEN_AT_ONCE + 1)]
        written = Deferred.fromCoroutine(write_list(entries, self.parts.turn))
        for _ in range(2):
            self.turn()
            self.assertNoResult(written)
        self.turn()
        self.assertEqual(self.successResultOf(written), json.dumps(entries))
        nothing = Deferred.fromCoroutine(write_list([], self.parts.turn))
        self.assertEqual(self.successResultOf(nothing), "[]")


class FirstTests(SynchronousTestCase):
    def test_sorted(self) -> None:
        """The first of very many are those of all of them sorted; of equals, the earlier."""
        chance = random.Random(7)
        keys = [chance.randrange(500) for _ in range(3 * PART)]
        numbered = list(enumerate(keys))
        for descending in (False, True):
            first: First[int] = First(300, descending)
            for number, key in numbered:
                first.add(key, number, number)
            expected = sorted(numbered, key=lambda each: -each[1] if descending else each[1])
            self.assertEqual(first.items(), [number for number, _ in expected[:300]])
