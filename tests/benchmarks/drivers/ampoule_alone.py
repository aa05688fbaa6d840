"""A pool of ampoule's in this process, used as its documentation says.

``python -m tests.benchmarks.drivers.ampoule_alone``. It has a reactor, so the conversation of a
driver is a protocol on stdin and stdout here.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from ampoule import child
from ampoule import pool as ampoule_pool
from twisted.internet.defer import Deferred
from twisted.internet.stdio import StandardIO
from twisted.protocols.amp import Command, Integer, String
from twisted.protocols.basic import LineOnlyReceiver

from tests.benchmarks.drivers import check, payload, say
from tests.benchmarks.work import WORK

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS = 2


class Work(Command):
    """Do some work, and answer the data."""

    arguments = [(b"work", String()), (b"data", String()), (b"amount", Integer())]
    response = [(b"data", String())]


class Child(child.AMPChild):  # type: ignore[misc]
    """What runs in ampoule's worker processes."""

    @Work.responder
    def work(self, work: bytes, data: bytes, amount: int) -> dict[str, bytes]:
        """The data, after the work."""
        return {"data": WORK[work.decode()](data, amount)}


class Calls:
    """The functions of the driver, which return Deferreds here."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def serial(
        self, jobs: int, work: str = "echo", amount: int = 0, size: int = 32
    ) -> dict[str, Any]:
        """One job after the other: the seconds that each took."""
        latencies = []
        for number in range(jobs):
            start = time.perf_counter()
            await self._one(work, payload(number, size), amount)
            latencies.append(time.perf_counter() - start)
        return {"latencies": latencies}

    async def windowed(
        self, jobs: int, window: int, work: str = "echo", amount: int = 0, size: int = 32
    ) -> dict[str, Any]:
        """So many jobs in flight at any time: the seconds that all took."""
        datas = iter([payload(number, size) for number in range(jobs)])
        start = time.perf_counter()
        streams = [Deferred.fromCoroutine(self._stream(datas, work, amount)) for _ in range(window)]
        for stream in streams:
            await stream
        return {"seconds": time.perf_counter() - start}

    async def _stream(self, datas: Iterator[bytes], work: str, amount: int) -> None:
        """Take the next data whenever a job is done."""
        for data in datas:
            await self._one(work, data, amount)

    async def _one(self, work: str, data: bytes, amount: int) -> None:
        answer = await self._pool.doWork(Work, work=work.encode(), data=data, amount=amount)
        check(answer, {"data": data})


class Conversation(LineOnlyReceiver):
    """Lines of JSON, as in :func:`tests.benchmarks.drivers.serve`."""

    delimiter = b"\n"

    def __init__(self, calls: Calls, reactor: Any) -> None:
        self._calls = calls
        self._reactor = reactor

    def lineReceived(self, line: bytes) -> None:
        """Call the function, and answer when it is done; a failure ends the driver."""
        request = json.loads(line)
        function = getattr(self._calls, request.pop("run"))
        Deferred.fromCoroutine(function(**request)).addCallback(say).addErrback(self._fail)

    def connectionLost(self, reason: Any = None) -> None:
        """End, since stdin has."""
        if self._reactor.running:
            self._reactor.stop()

    def _fail(self, failure: Any) -> None:
        failure.printTraceback()
        self._reactor.stop()


def main() -> None:
    """Start the pool, and do what is asked."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    pool = ampoule_pool.ProcessPool(Child, min=WORKERS, max=WORKERS, recycleAfter=0)
    StandardIO(Conversation(Calls(pool), reactor))
    pool.start().addCallback(lambda _: say("ready"))
    reactor.addSystemEventTrigger("before", "shutdown", pool.stop)
    reactor.run()


if __name__ == "__main__":
    # ampoule's children import the class by its module's name, which is not __main__.
    from tests.benchmarks.drivers import ampoule_alone

    ampoule_alone.main()
