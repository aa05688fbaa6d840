"""An echo on its way through the parent's own code, from one transport to the other, in memory.

For :mod:`tests.real.test_cost` and :mod:`tests.benchmarks.calls`, which count what it costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from dangad.host.memory import KernelKills
from dangad.pool.guardian import Guardian
from dangad.pool.link import WorkerLink
from dangad.scheduler.dispatcher import Dispatcher
from dangad.scheduler.supervisor import Supervisor
from dangad.wire import boxes, commands, workerboxes
from tests.fakes import catalogue, client_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall

PERFORMS = catalogue("Echo", Few={"max_running": 1}, Again={"retries": 3})
DATA = boxes.pair(b"data", bytes(32)) + boxes.END


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


class Pipe:
    """Stands in for a worker's process: keeps what is written to it, and can be asked for it."""

    is_flushed = True
    can_reclaim = True

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


class EchoPath:
    """An echo on its way through the server's own code, from one transport to the other."""

    def __init__(self) -> None:
        """Have a connection, and a worker that has said Hello."""
        self.asked = self.answered = 0
        clock = StoppedClock()
        dispatcher = Dispatcher(clock)
        supervisor = Supervisor(clock, dispatcher, 1, 1)
        clients = client_factory(clock, dispatcher)
        self.pipe = Pipe(4711)
        self.link = WorkerLink(
            clock, supervisor, dispatcher.answers, Guardian(None), KernelKills(), max_payload=2**20
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
        expected = boxes.pair(boxes.ANSWER, b"%07d" % number) + DATA
        if self.transport.value() != expected:
            raise AssertionError(self.transport.value())
        self.transport.clear()

    def fill(self, asked: int, answered: int) -> None:
        """Have so many asked for, and so many of them answered."""
        for number in range(1, asked + 1):
            self.ask(number)
        self.asked = asked
        for number in range(1, answered + 1):
            self.answer(number)
        self.answered = answered

    def burst(self, _: object = None) -> None:
        """An answer of a worker that has others prefetched, and the client's next request."""
        self.answer(self.answered + 1)
        self.answered += 1
        self.ask(self.asked + 1)
        self.asked += 1
