"""What happens when much is held for clients, on a clock of the test's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dangad.server.memorybudget import (
    DEFAULT_LIMIT,
    LOOK_INTERVAL,
    PATIENCE,
    IHolder,
    MemoryBudget,
    default_limit,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

MIB = 2**20


@implementer(IHolder)
class Holder:
    """Somebody for whom so many bytes are held."""

    def __init__(self, budget: MemoryBudget, held: int, stuck: bool = False) -> None:
        self.held = held
        self.unread = 0
        self.waits = False
        self.was_shed = False
        self.stuck = stuck
        self._budget = budget
        self._steps = 0
        budget.add(held)

    def progress(self) -> Hashable:
        """As it is meant."""
        self._steps += not self.stuck
        return self._steps

    def wait_for_memory(self) -> None:
        """Note it."""
        self.waits = True

    def go_on(self) -> None:
        """Note it."""
        self.waits = False

    def shed(self) -> int:
        """Give up everything."""
        freed, self.held = self.held, 0
        self._budget.total -= freed
        self.was_shed = True
        return freed


class BudgetTest(SynchronousTestCase):
    def setUp(self) -> None:
        """Have a budget of 100 MiB, of which a request may need 20."""
        self.clock = Clock()
        self.holders: list[Holder] = []
        self.budget = MemoryBudget(self.clock, 100 * MIB, 20 * MIB, lambda: self.holders)

    def hold(self, *sizes: int, stuck: bool = False) -> list[Holder]:
        """Have so many MiB held for as many more holders."""
        added = [Holder(self.budget, size * MIB, stuck) for size in sizes]
        self.holders += added
        return added

    def pass_time(self, seconds: float) -> None:
        """Let time pass in the steps in which is looked."""
        self.clock.pump([LOOK_INTERVAL] * int(seconds / LOOK_INTERVAL))

    def test_interface(self) -> None:
        """The stand-in promises what holders do."""
        verifyObject(IHolder, self.hold(1)[0])

    def test_little(self) -> None:
        """Up to half of the bound nobody is looked at."""
        holders = self.hold(40, 10)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(any(each.waits for each in holders))

    def test_much(self) -> None:
        """Beyond that, as many are read as there is room for; the largest wait for it."""
        holders = self.hold(20, 12, 25, 5)
        self.clock.advance(0)
        self.assertEqual([each.waits for each in holders], [True, True, True, False])

    def test_one_is_always_read(self) -> None:
        """However little room there is, one of them is read, until it has what it needs."""
        first, second = self.hold(45, 50)
        self.clock.advance(0)
        self.assertEqual((first.waits, second.waits), (False, True))
        first.held -= 45 * MIB
        self.budget.total -= 45 * MIB
        self.pass_time(1)
        self.assertFalse(second.waits)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_much(self) -> None:
        """Beyond the bound, the largest give up what they have, one after the other."""
        holders = self.hold(20, 40, 30, 12)
        self.clock.advance(0)
        self.assertEqual([each.was_shed for each in holders], [False, True, False, False])

    def test_who_gets_on(self) -> None:
        """Below it, only those do who are read and have not got on for long."""
        stuck, waiting = self.hold(45, stuck=True) + self.hold(50, stuck=True)
        self.pass_time(PATIENCE / 2)
        self.assertEqual((stuck.was_shed, waiting.waits), (False, True))
        self.pass_time(PATIENCE)
        self.assertEqual((stuck.was_shed, waiting.was_shed), (True, False))
        self.assertFalse(waiting.waits)

    def test_who_does_not_read(self) -> None:
        """So do those who do not read: they could, even if they are not read themselves."""
        [reads] = self.hold(45)
        [stuck] = self.hold(50, stuck=True)
        stuck.unread = stuck.held
        self.pass_time(3 * PATIENCE)
        self.assertEqual((stuck.was_shed, reads.was_shed), (True, False))

    def test_small_ones(self) -> None:
        """Nobody is troubled for whom little is held, even if all together hold too much."""
        self.holders = [Holder(self.budget, 2**15) for _ in range(4000)]
        self.clock.advance(0)
        self.assertFalse(any(each.was_shed or each.waits for each in self.holders))

    def test_one_who_leaves(self) -> None:
        """Who is gone is not told anything any more."""
        _, large = self.hold(45, 50)
        self.clock.advance(0)
        self.budget.forget(large)
        self.holders.remove(large)
        self.budget.total -= large.held
        self.pass_time(1)
        self.assertTrue(large.waits)

    def test_default(self) -> None:
        """Without a number, it is what the machine has room for, and the largest requests need."""
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.assertEqual(default_limit(MIB), max(4 * MIB, min(DEFAULT_LIMIT, memory // 4)))
        self.assertEqual(default_limit(2**40), 2**42)
