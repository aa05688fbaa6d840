"""What clients leave to each other, with real workers and sockets."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import gatherResults

from dangad.limits import Limits
from tests.oddjobs import Odd, Wait
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase, until


class ShareTests(RealServerCase):
    """One client's jobs do not keep another's from their turn."""

    limits = Limits(min_workers=2, max_workers=2, drain=5.0, relief_after=0.1)

    @async_test
    async def test_endless_jobs(self) -> None:
        """Two jobs of one client that never end keep both workers, and another has its done."""
        greedy, modest = await self.connect(), await self.connect()
        never = os.path.join(self.folder, "never")
        endless = [greedy.callRemote(Wait, path=never) for _ in range(3)]
        for answer in endless:
            answer.addErrback(lambda _: None)
        await until(lambda: self.service.dispatcher.running == 2)
        for _ in range(3):
            await modest.callRemote(Odd, what="nothing")
        self.assertEqual(self.service.dispatcher.running, 2)
        self.assertEqual(self.service.dispatcher.waiting, 1)
        self.assertEqual(len(self.pids()), 3)
        greedy.transport.abortConnection()
        await until(lambda: self.service.dispatcher.running == 0)

    @async_test
    async def test_high_jobs(self) -> None:
        """A hundred high jobs of one client are not before the low one of another."""
        greedy, modest = await self.connect(), await self.connect()
        gate = os.path.join(self.folder, "gate")
        ended: list[bytes] = []
        first = [greedy.callRemote(Wait, path=gate) for _ in range(2)]
        await until(lambda: self.service.dispatcher.running == 2)

        def ask(client: Any, priority: bytes) -> Any:
            answer = client.callRemoteString(b"Odd", what=b"nothing", _priority=priority)
            return answer.addCallback(lambda _: ended.append(priority))

        others = [ask(greedy, b"high") for _ in range(100)]
        await until(lambda: self.service.dispatcher.waiting == 100)
        last = ask(modest, b"low")
        await until(lambda: self.service.dispatcher.waiting == 101)
        with open(gate, "w"):
            pass
        await gatherResults([last, *first, *others])
        self.assertLess(ended.index(b"low"), 10)
