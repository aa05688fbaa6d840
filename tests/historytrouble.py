"""What happens to a loaded server beside its clients: kills, freezes, operators, garbage.

Used by :mod:`tests.historyload`. Whatever may cost a client its job goes into the history; that
an operator reloads, or wants other numbers of workers, does not, because it may cost nobody
anything.
"""

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols import amp
from twisted.python.failure import Failure

from dangad.errors import NoAnswer, NotRunning, ReloadFailed
from dangad.wire import boxes, commands
from tests.history import Frozen, Killed
from tests.loadedserver import MIN_WORKERS, LoadedServer

LONGEST_FREEZE = 4.0
"""Seconds: a job with a time limit is found frozen, and killed, by then."""


class Vandal(Protocol):
    """A connection on which nothing sensible is sent."""

    def __init__(self) -> None:
        self.closed: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell that it is over."""
        self.closed.callback(None)


class Trouble:
    """Those who make it, each a story that lasts until the round is over.

    All mutable state: `counts`, how much of what they made.
    """

    def __init__(
        self,
        reactor: Any,
        server: LoadedServer,
        events: list[Any],
        seed: str,
        max_workers: int,
        end: float,
        *,
        spares_starts: bool = False,
    ) -> None:
        """Prepare for one round.

        :param seed: what chance begins with.
        :param end: when the round is over.
        :param spares_starts: whether workers that start are harmed seldom. A server whose starts
            fail one after the other waits between them, for longer each time: if much else kills
            its workers, too, it has none for most of the time, and nothing to lose.
        """
        self.counts: Counter[str] = Counter()
        self._reactor = reactor
        self._server = server
        self._events = events
        self._seed = seed
        self._max_workers = max_workers
        self._end = end
        self._spares_starts = spares_starts

    def stories(self) -> list[Coroutine[Any, Any, None]]:
        """All of it."""
        return [self._killer(), self._freezer(), self._operator(), self._vandal()]

    async def _killer(self) -> None:
        """Kill workers, in whatever they are doing."""
        chance = random.Random(f"{self._seed}/kill")
        while self._goes_on():
            await self._pause(chance.random() * 2)
            if workers := self._victims(chance):
                pid = chance.choice(workers)
                self._events.append(Killed(time.monotonic(), pid))
                self.counts["kills"] += 1
                _send(pid, signal.SIGKILL)

    async def _freezer(self) -> None:
        """Stop workers for a moment, or for so long that the server must find it by itself."""
        chance = random.Random(f"{self._seed}/freeze")
        while self._goes_on():
            await self._pause(chance.random() * 3)
            if workers := self._victims(chance):
                pid = chance.choice(workers)
                self._events.append(Frozen(time.monotonic(), pid))
                self.counts["freezes"] += 1
                _send(pid, signal.SIGSTOP)
                await self._pause(LONGEST_FREEZE * chance.choice((0.01, 0.02, 0.05, 0.2, 1.0)))
                if pid in self._server.workers():
                    _send(pid, signal.SIGCONT)

    def _victims(self, chance: random.Random) -> list[int]:
        """Workers that may be harmed now."""
        workers = self._server.workers()
        if self._spares_starts and chance.random() < 0.9:
            return self._server.booted(workers)
        return workers

    async def _operator(self) -> None:
        """Look at the server, reload, and want other numbers of workers."""
        chance = random.Random(f"{self._seed}/operator")
        operator = await connectProtocol(
            UNIXClientEndpoint(self._reactor, self._server.control), amp.AMP()
        )
        await operator.callRemote(commands.Scale, min=MIN_WORKERS, max=self._max_workers)
        await self._hang_up(operator, chance)
        deeds = (self._hang_up, self._reload, self._want, self._want, self._look)
        while self._goes_on():
            await self._pause(chance.random() * 3)
            await chance.choice(deeds)(operator, chance)
        # So that the pool settles at once, and not after its time of idleness.
        await operator.callRemote(commands.Scale, min=MIN_WORKERS, max=MIN_WORKERS)
        operator.transport.loseConnection()

    async def _hang_up(self, _: amp.AMP, __: random.Random) -> None:
        self.counts["reloads"] += 1
        os.kill(self._server.pid, signal.SIGHUP)

    async def _reload(self, operator: amp.AMP, _: random.Random) -> None:
        """Reload and wait for its end; the killer may make it fail."""
        self.counts["reloads"] += 1
        with contextlib.suppress(ReloadFailed):
            await operator.callRemote(commands.Reload)
            self.counts["reloads seen to their end"] += 1

    async def _want(self, operator: amp.AMP, chance: random.Random) -> None:
        self.counts["wants"] += 1
        most = chance.randint(1, self._max_workers)
        await operator.callRemote(commands.Scale, min=chance.randint(0, most), max=most)

    async def _look(self, operator: amp.AMP, chance: random.Random) -> None:
        """Look at everything, and at the stack of a job that runs."""
        for command in (commands.Status, commands.Recent):
            await operator.callRemote(command)
        workers = json.loads((await operator.callRemote(commands.Workers))["document"])
        if running := [worker["job"]["id"] for worker in workers if worker["job"]]:
            with contextlib.suppress(NotRunning, NoAnswer):
                await operator.callRemote(commands.Stack, job=chance.choice(running))
                self.counts["stacks"] += 1

    async def _vandal(self) -> None:
        """Send garbage, or half a request, and wait for the end or make it."""
        chance = random.Random(f"{self._seed}/garbage")
        half = boxes.pack({boxes.ASK: b"1", boxes.COMMAND: b"Quick", b"name": b"half"}.items())[:-2]
        while self._goes_on():
            await self._pause(chance.random())
            path = chance.choice((self._server.socket, self._server.control))
            vandal = await connectProtocol(UNIXClientEndpoint(self._reactor, path), Vandal())
            assert vandal.transport is not None
            self.counts["garbled connections"] += 1
            if chance.random() < 0.5:
                vandal.transport.write(half)
                await self._pause(chance.random() * 0.1)
                vandal.transport.loseConnection()
            else:
                vandal.transport.write(b"\xff" + chance.randbytes(chance.randrange(300, 3000)))
            await vandal.closed

    def _goes_on(self) -> bool:
        return bool(self._reactor.seconds() < self._end)

    def _pause(self, seconds: float) -> Deferred[None]:
        """Wait for so long, but not beyond the round's end."""
        left = self._end - self._reactor.seconds()
        return deferLater(self._reactor, max(0.0, min(seconds, left)))


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
