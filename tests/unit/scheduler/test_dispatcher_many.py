"""What concerns each of many jobs is done a part a turn; what must not start meanwhile does not."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from dangad.scheduler.chores import PART
from tests.fakes import FakeClient, catalogue
from tests.unit.scheduler.dispatching import ECHO, DispatcherTestCase
from tests.unit.scheduler.test_pacing import Turns

if TYPE_CHECKING:
    from dangad.scheduler.record import Job

MANY = 3 * PART
LIMITED = catalogue(Echo={"max_running": 1})


class ManyTests(DispatcherTestCase):
    def setUp(self) -> None:
        """Have room for many jobs, and a clock whose turns can be told apart."""
        super().setUp()
        self.clock: Any = Turns()
        self.clock.advance(1000)
        self.serve(quarantine_after=0)
        self.dispatcher.admission.max_queued = 10 * MANY
        self.ann, self.bob = FakeClient("ann"), FakeClient("bob")

    def submit_many(self, client: FakeClient, *args: Any, **options: Any) -> list[Job]:
        """Very many jobs of `client`, submitted."""
        return [self.submit(client, *args, **options) for _ in range(MANY)]

    def turns(self) -> list[int]:
        """How many jobs have ended after each turn from now on, until no more do."""
        counts = [sum(self.ended().values())]
        while self.clock.turn():
            counts.append(sum(self.ended().values()))
        return counts

    def test_client_gone(self) -> None:
        """The jobs of a client that goes end a part a turn, and none of them starts meanwhile."""
        self.submit_many(self.ann)
        theirs = self.submit(self.bob)
        self.leave(self.ann)
        worker = self.ready()
        self.assertIs(worker.job, theirs)
        self.answer(worker)
        self.assertIsNone(worker.job)
        self.dispatcher.release(self.ann)  # in vain
        self.assertIsNone(worker.job)
        counts = self.turns()
        self.assertLessEqual(max(b - a for a, b in itertools.pairwise(counts)), PART)
        self.assertEqual(self.ended(), {"cancelled": MANY, "done": 1})

    def test_deadlines_together(self) -> None:
        """Deadlines that pass together are told a part a turn, and none of these jobs starts."""
        self.submit_many(self.ann, deadline=5.0)
        theirs = self.submit(self.bob)
        self.clock.rightNow += 5
        self.clock.turn()
        self.assertEqual(len(self.ann.failures), PART)
        worker = self.ready()
        self.answer(worker)
        counts = self.turns()
        self.assertLessEqual(max(b - a for a, b in itertools.pairwise(counts)), 2 * PART)
        self.assertEqual((worker.given, len(self.ann.failures)), ([theirs], MANY))

    def test_drain_gives_up(self) -> None:
        """A drain that gives up many jobs tells a part a turn, starts none, and ends with them."""
        self.submit_many(self.ann)
        told = self.dispatcher.drain(5).addCallback(lambda _: len(self.ann.failures))
        self.clock.advance(4)
        self.clock.rightNow += 1
        self.clock.turn()
        self.assertEqual(len(self.ann.failures), PART)
        worker = self.ready()
        self.assertEqual((worker.given, len(self.ann.failures)), ([], 2 * PART))
        self.assertNoResult(told)
        self.turns()
        self.assertEqual((worker.given, self.successResultOf(told)), ([], MANY))

    def test_no_workers(self) -> None:
        """If no worker can be had, many end a part a turn, and the rest are done if one comes."""
        self.submit_many(self.ann)
        self.dispatcher.no_workers("no memory")
        self.clock.turn()
        self.assertEqual(len(self.ann.failures), 2 * PART)
        worker = self.ready()
        for _ in range(PART):
            self.answer(worker)
            self.clock.turn()
        self.assertEqual((len(self.ann.failures), len(self.ann.answers)), (2 * PART, PART))

    def test_type_is_gone(self) -> None:
        """When nobody performs a command any more, many end a part a turn, and none starts."""
        first = self.ready(catalogue("Echo", "Old"))
        self.submit_many(self.ann, "Old")
        self.answer(first)
        self.die(first)
        worker = self.ready(ECHO)
        self.assertLess(len(self.ann.failures), MANY - 2)
        self.turns()
        self.assertEqual((worker.given, len(self.ann.failures)), ([], MANY - 1))
        codes = {error.code for _, error in self.ann.failures[1:]}
        self.assertEqual(codes, {b"UNHANDLED"})

    def test_type_gets_a_limit(self) -> None:
        """When a type gets a limit, it holds at once, however many of its jobs wait."""
        first = self.ready()
        jobs = self.submit_many(self.ann)
        self.die(first)
        workers = [self.ready(LIMITED) for _ in range(3)]
        self.assertEqual([worker.job for worker in workers].count(None), 2)
        order = []
        while self.dispatcher.running:
            [busy] = [worker for worker in workers if worker.job is not None]
            order.append(self.answer(busy))
            self.clock.turn()
        self.assertEqual(order, jobs[1:])

    def test_catalogue(self) -> None:
        """Those who wait for the catalogue are told a part a turn."""
        waiting = [self.dispatcher.describe() for _ in range(MANY)]
        self.ready()
        counts = []
        while self.clock.getDelayedCalls():
            counts.append(sum(waiter.called for waiter in waiting))
            self.clock.turn()
        self.assertEqual(counts, [PART, 2 * PART])
        self.assertEqual(len({self.successResultOf(waiter) for waiter in waiting}), 1)
