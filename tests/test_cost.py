"""What a job costs, and how little that depends on what waits: counted, not timed."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from dangad.host.memory import Deaths
from dangad.pool.guardian import Guardian
from dangad.pool.link import WorkerLink
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.interfaces import IClient, IWorker
from dangad.scheduler.prefetch import MOST
from dangad.scheduler.record import Death, Job
from dangad.scheduler.supervisor import Supervisor
from dangad.server.acceptgate import AcceptGate
from dangad.server.factory import ClientFactory
from dangad.wire import boxes, commands, workerboxes
from dangad.wire.values import Priority
from tests.fakes import OneJobAtATime, catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from twisted.internet.interfaces import IDelayedCall

    from dangad.errors import DangadError

ROOT = Path(__file__).parent.parent
PERFORMS = catalogue("Echo", Few={"max_running": 1}, Again={"retries": 3})
SAMPLE = 20
"""How many events of each kind are counted."""


@implementer(IReactorTime)
class StoppedClock:
    """A clock that stands still, and takes the same time for each alarm, as a reactor does."""

    def __init__(self) -> None:
        self.now = 1000.0

    def seconds(self) -> float:
        """See :meth:`IReactorTime.seconds`."""
        return self.now

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> DelayedCall:
        """See :meth:`IReactorTime.callLater`."""
        return DelayedCall(
            self.now + delay, callable, args, kwargs, self.forget, self.forget, self.seconds
        )

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """See :meth:`IReactorTime.getDelayedCalls`."""
        return []

    def forget(self, call: DelayedCall) -> None:
        """Nothing: no alarm is kept."""


@implementer(IClient)
class QuietClient:
    """A client that remembers nothing."""

    name = "quiet"
    outranks = False

    def deliver(self, job: Job, failed: bool, body: bytes | memoryview) -> None:
        """See :meth:`IClient.deliver`."""

    def report(self, job: Job, body: bytes | memoryview, parts: bool) -> None:
        """See :meth:`IClient.report`."""

    def fail(self, job: Job, error: DangadError) -> None:
        """See :meth:`IClient.fail`."""

    def abort(self) -> None:
        """See :meth:`IClient.abort`."""


@implementer(IWorker)
class QuietWorker(OneJobAtATime):
    """A worker that does nothing until it is told to have answered."""

    pid = 4711

    def interrupt(self, job: Job, why: bytes) -> None:
        """See :meth:`IWorker.interrupt`."""

    def pause(self) -> None:
        """See :meth:`IWorker.pause`."""

    def resume(self) -> None:
        """See :meth:`IWorker.resume`."""

    def kill(self, reason: str) -> None:
        """See :meth:`IWorker.kill`."""


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
            "answer": count_opcodes(lambda w: dispatcher.job_finished(w, False, b"\0\0"), some),
            "death": count_opcodes(lose, some),
            "hold": count_opcodes(hold_and_release, everybody[:10]),
        }


class Pipe:
    """Stands in for a worker's process: keeps what is written to it, and can be asked for it."""

    is_flushed = True
    can_take_back = True

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.jobs = self
        self.finished: Deferred[str] = Deferred()
        self.written: list[bytes] = []

    def write(self, header: bytes, box: bytes) -> bool:
        """Keep it."""
        self.written.append(header + box)
        return True

    def write_packet(self, packet: bytes) -> bool:
        """Keep it."""
        self.written.append(packet)
        return True


ECHO_OPCODES = 2810
"""What an echo may cost in the code of dangad and of the test: a tenth more than when counted."""
AHEAD_OPCODES = 3820
"""What one may cost, likewise, while many wait."""
WORKER_OPCODES = 1930
"""What one may cost a worker, likewise."""
DATA = boxes.pair(b"data", bytes(32)) + boxes.END


class EchoTests(SynchronousTestCase):
    """An echo on its way through the server's own code, from one transport to the other."""

    def setUp(self) -> None:
        """Have a connection, and a worker that has said Hello."""
        clock = StoppedClock()
        dispatcher = Dispatcher(clock)
        supervisor = Supervisor(clock, dispatcher, 1, 1)
        clients = ClientFactory(
            clock,
            dispatcher,
            AcceptGate(clock, [], lambda: 0),
            max_payload=2**20,
            max_in_flight=100,
            max_connections=10,
        )
        self.pipe = Pipe(4711)
        self.link = WorkerLink(
            clock, supervisor, dispatcher, Guardian(None), Deaths(), max_payload=2**20
        )
        self.link.makeConnection(cast("Any", self.pipe))
        hello = commands.Hello.makeArguments({"catalogue": PERFORMS, "cpu": 0}, None)
        self.link.dataReceived(boxes.pack([(boxes.COMMAND, b"dangad.Hello"), *hello.items()]))
        self.transport = StringTransport()
        self.client = cast("Any", clients.buildProtocol(None))
        self.client.makeConnection(self.transport)

    def echo(self, number: int) -> None:
        """One job, from the client's bytes to the answer's."""
        self.ask(number)
        self.answer(number)

    def ask(self, number: int) -> None:
        """The client asks for a job."""
        start = boxes.pair(boxes.ASK, b"%07d" % number) + boxes.pair(boxes.COMMAND, b"Echo")
        self.client.dataReceived(start + DATA)

    def answer(self, number: int) -> None:
        """The worker answers it, and the client is told."""
        usage = b"%d 100 40000 500000 0" % number
        self.link.dataReceived(boxes.pair(workerboxes.DONE, usage) + DATA)
        self.assertEqual(self.transport.value(), boxes.pair(boxes.ANSWER, b"%07d" % number) + DATA)
        self.transport.clear()

    def burst(self, _: object) -> None:
        """An answer of a worker that has others ahead, and the client's next request."""
        self.answer(self.answered + 1)
        self.answered += 1
        self.ask(self.asked + 1)
        self.asked += 1

    def test_opcodes_ahead(self) -> None:
        """So much it costs where workers have jobs ahead."""
        for number in range(1, 61):
            self.ask(number)
        self.asked = 60
        for number in range(1, 31):
            self.answer(number)
        self.answered = 30
        self.assertEqual(len(self.pipe.written), 30 + 1 + MOST)
        cost = count_opcodes(self.burst, list(range(SAMPLE))) / SAMPLE
        self.assertEqual(len(self.pipe.written), 30 + 1 + MOST + SAMPLE)
        nothing = count_opcodes(lambda _: None, list(range(SAMPLE))) / SAMPLE
        self.assertLess(cost - nothing, AHEAD_OPCODES)
        self.assertGreater(cost - nothing, AHEAD_OPCODES / 2, "the bound is too wide by now")

    def test_opcodes(self) -> None:
        """An echo costs the parent no more than it did: who makes it dearer, does so knowingly."""
        numbers = list(range(1, SAMPLE + 1))
        cost = count_opcodes(self.echo, numbers) / SAMPLE
        nothing = count_opcodes(lambda _: None, numbers) / SAMPLE
        self.assertLess(cost - nothing, ECHO_OPCODES)
        self.assertGreater(cost - nothing, ECHO_OPCODES / 2, "the bound is too wide by now")


class WorkerTests(SynchronousTestCase):
    def test_opcodes(self) -> None:
        """An echo costs the worker no more than it did, with all that is looked at after it."""
        command = [sys.executable, "-m", "tests.countedworker"]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
        cost = int(done.stdout)
        self.assertLess(cost, WORKER_OPCODES)
        self.assertGreater(cost, WORKER_OPCODES / 2, "the bound is too wide by now")


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
