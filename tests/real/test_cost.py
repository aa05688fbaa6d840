"""How little the cost of a job depends on what waits: counted, not timed."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.interfaces import IClient, IWorker
from dangad.scheduler.record import Death, Job
from dangad.wire.values import Priority
from tests.echopath import PERFORMS, StoppedClock
from tests.fakes import OneJobAtATime

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


SAMPLE = 20
"""How many events of each kind are counted."""


def _do_nothing(*_: object, **__: object) -> None:
    """Remember nothing, so that this costs the same whenever it is called."""


@implementer(IClient)
class QuietClient:
    """A client that remembers nothing."""

    name = "quiet"
    outranks = False
    peer = "nobody"
    was_served = False
    deliver = report = fail = abort = _do_nothing


@implementer(IWorker)
class QuietWorker(OneJobAtATime):
    """A worker that does nothing until it is told to have answered."""

    pid = 4711
    interrupt = pause = resume = kill = _do_nothing


class CostTests(SynchronousTestCase):
    def test_same_with_any_backlog(self) -> None:
        """With 100,000 jobs of 1,000 clients waiting, each event costs what it does with 100.

        But for a quarter: a client's first and last job of a kind cost a little more, or less.
        """
        few, many = self.costs(10, 10), self.costs(1000, 100)
        for event, cost in few.items():
            self.assertLess(many[event], 1.25 * cost, (event, few, many))

    def costs(self, clients: int, jobs_each: int) -> dict[str, int]:
        """How many opcodes so many events of each kind take with such a backlog."""
        dispatcher = Dispatcher(StoppedClock(), 200_000, quarantine_after=0)
        everybody = [QuietClient() for _ in range(clients)]
        workers = [QuietWorker() for _ in range(4)]
        numbers = itertools.count(1)
        kinds = itertools.cycle(itertools.product((b"Echo", b"Few", b"Again"), Priority))

        def make(client: QuietClient) -> Job:
            command, priority = next(kinds)
            number = next(numbers)
            return Job(number, client, b"%d" % number, command, b"\0\0", priority, 60.0)

        for worker in workers:
            dispatcher.worker_ready(worker, PERFORMS)
        waiting = []
        for _ in range(jobs_each):
            for client in everybody:
                job = make(client)
                dispatcher.submit(job)
                waiting.append(job)
        self.assertEqual(dispatcher.waiting, clients * jobs_each - 4)
        more = [make(pick) for pick in itertools.islice(itertools.cycle(everybody), SAMPLE)]
        middle = waiting[len(waiting) // 2 :][:SAMPLE]

        def lose(worker: QuietWorker) -> None:
            dispatcher.worker_gone(worker, Death("died"))
            dispatcher.worker_ready(worker, PERFORMS)

        def hold_and_release(client: QuietClient) -> None:
            dispatcher.hold(client)
            dispatcher.release(client)

        some = list(itertools.islice(itertools.cycle(workers), SAMPLE))
        return {
            "submit": count_opcodes(dispatcher.submit, more),
            "cancel": count_opcodes(dispatcher.cancel, middle),
            "answer": count_opcodes(
                lambda w: dispatcher.answers.job_finished(w, False, b"\0\0"), some
            ),
            "death": count_opcodes(lose, some),
            "hold": count_opcodes(hold_and_release, everybody[:10]),
        }


def count_opcodes(event: Callable[[Any], object], subjects: list[Any]) -> int:
    """How many opcodes of Python it takes to have the event happen to all subjects."""
    count = 0

    def trace(frame: FrameType, what: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += what == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for subject in subjects:
            event(subject)
    finally:
        sys.settrace(before)
    return count
