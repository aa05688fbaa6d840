"""What concerns each of many jobs is done a part a turn; what must not start meanwhile does not."""

from __future__ import annotations

import itertools
from typing import Any

from dangad.scheduler.chores import PART
from tests.fakes import FakeClient
from tests.unit.scheduler.dispatching import DispatcherTestCase
from tests.unit.scheduler.test_pacing import Turns

MANY = 3 * PART
JOBS = f"ann: a1-{MANY}"


class ManyTests(DispatcherTestCase):
    def begin_anew(self) -> None:
        """Have room for many jobs, and a clock whose turns can be told apart."""
        super().begin_anew()
        self.clock: Any = Turns()
        self.clock.advance(1000)
        self.serve(quarantine_after=0)
        self.dispatcher.admission.max_queued = 10 * MANY

    def connect(self, name: str) -> FakeClient:
        """A client, who may be told while not all is done."""
        return FakeClient(name)

    def do_turn(self) -> None:
        """The reactor turns once."""
        self.clock.turn()

    def most_in_a_turn(self) -> int:
        """The most jobs that end in a turn from now on, until no more do."""
        counts = [sum(self.ended().values())]
        while self.clock.turn():
            counts.append(sum(self.ended().values()))
        return max(after - before for before, after in itertools.pairwise(counts))

    def test_client_gone(self) -> None:
        """The jobs of a client that goes end a part a turn, and none of them starts meanwhile."""
        self.play(f"{JOBS}, bob: b, ann leaves, ready w, w runs b, w answers, w runs nothing")
        self.play("release ann, w runs nothing")  # in vain
        self.assertLessEqual(self.most_in_a_turn(), PART)
        self.play(f"ended done=1 cancelled={MANY}")

    def test_deadlines_together(self) -> None:
        """Deadlines that pass together are told a part a turn, and none of these jobs starts."""
        self.play(f"{JOBS}/5s, bob: b, lag 5, turn, ann failures {PART}, ready w, w answers")
        self.assertLessEqual(self.most_in_a_turn(), 2 * PART)
        self.play(f"w runs nothing, w ran b, ann failures {MANY}")
        self.assertEqual(len(self.named["w"].given), 1)

    def test_drain_gives_up(self) -> None:
        """A drain that gives up many jobs tells a part a turn, starts none, and ends with them."""
        self.play(JOBS)
        told = self.dispatcher.drain(5).addCallback(lambda _: len(self.ann.failures))
        self.play(f"wait 4, lag 1, turn, ann failures {PART}, ready w, ann failures {2 * PART}")
        self.assertNoResult(told)
        self.assertLessEqual(self.most_in_a_turn(), PART)
        self.assertEqual((self.named["w"].given, self.successResultOf(told)), ([], MANY))

    def test_no_workers(self) -> None:
        """If no worker can be had, many end a part a turn, and the rest are done if one comes."""
        self.play(f"{JOBS}, no_workers memory, turn, ann failures {2 * PART}, ready w")
        for _ in range(PART):
            self.play("w answers, turn")
        self.play(f"ann failures {2 * PART}, done a{2 * PART + 1}-{MANY}")

    def test_type_is_gone(self) -> None:
        """When nobody performs a command any more, many end a part a turn, and none starts."""
        self.play(f"types Echo Old, ready w, {JOBS}/Old, w answers, w dies, types Echo, ready x")
        self.assertLess(len(self.ann.failures), MANY - 2)
        self.most_in_a_turn()
        self.assertEqual((self.named["x"].given, len(self.ann.failures)), ([], MANY - 1))
        codes = {error.code for _, error in self.ann.failures[1:]}
        self.assertEqual(codes, {b"UNHANDLED"})

    def test_type_gets_a_limit(self) -> None:
        """When a type gets a limit, it holds at once, however many of its jobs wait."""
        self.play(f"ready w, {JOBS}, w dies, types Echo:max_running=1, ready x y z")
        workers = [self.named[name] for name in "xyz"]
        order = []
        while self.dispatcher.running:
            [busy] = [worker for worker in workers if worker.job is not None]
            order.append(self.name_of(self.answer(busy)))
            self.clock.turn()
        self.assertEqual(order, [f"a{number}" for number in range(2, MANY + 1)])

    def test_pause(self) -> None:
        """A pause, and its end, concern some of the jobs each turn; no paused one ever starts."""
        self.play(f"types Echo Other, ready w, ann: o, {JOBS}, bob: b/Other, pause Echo")
        self.play(f"seeking {2 * PART + 1}, w answers, w runs b, turn, w answers, w runs nothing")
        while self.clock.turn():
            pass
        self.play(f"seeking 0, resume, seeking {PART - 1}, turn, seeking {2 * PART - 1}, 2x turn")
        self.play(f"{MANY}x w answers, idle 1")
        self.assertEqual(self.named["w"].given[2:], self.of([f"a1-{MANY}"]))

    def test_pauses_at_once(self) -> None:
        """A second pause lets the first be carried out to its end."""
        self.play(f"{JOBS}, bob: b/Other, pause Echo, pause Other, seeking {2 * PART + 1}")
        while self.clock.turn():
            pass
        self.play("seeking 0, resume Other, seeking 1")

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
