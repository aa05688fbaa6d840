"""Many jobs at once through a real server: nothing is lost, doubled or mixed up."""

import hashlib
import os
import random
import signal
from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.protocols import amp

import dangad
from dangad.examples import Echo
from dangad.limits import Limits
from dangad.pool.launch import WorkerSettings
from dangad.service import DangadService
from tests.oddjobs import Odd, Wait
from tests.real.test_workers import async_test
from tests.realserver import RealServerCase, reactor, until


class LoadTests(RealServerCase):
    """Stock AMP clients, over TCP and UNIX at once."""

    jobs = ("tests.oddjobs", "dangad.examples")
    limits = Limits(min_workers=2, max_workers=2)

    def start(self, settings: WorkerSettings) -> None:
        """Listen on both kinds of socket."""
        self.socket = os.path.join(self.folder, "socket")
        endpoints = [f"unix:{self.socket}", "tcp:0:interface=127.0.0.1"]
        self.service = DangadService(reactor, endpoints, settings, self.limits)
        self.service.startService()
        self.addCleanup(self.stop)

    async def connect_tcp(self) -> Any:
        """A new connection of stock AMP over TCP."""
        port = self.service.addresses[1].port
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        connection = await connectProtocol(endpoint, amp.AMP())
        self.connections.append(connection)
        return connection

    @async_test
    async def test_answers_belong_to_requests(self) -> None:
        """2,000 jobs of 20 connections, 100 in flight on each: each gets its own answer."""
        clients = [await self.connect() for _ in range(10)]
        clients += [await self.connect_tcp() for _ in range(10)]

        async def ask(client: Any, data: bytes) -> None:
            self.assertEqual((await client.callRemote(Echo, data=data))["data"], data)

        asked = []
        for number, client in enumerate(clients):
            window = DeferredSemaphore(100)
            asked += [
                window.run(lambda *request: Deferred.fromCoroutine(ask(*request)), client, data)
                for data in (b"%d/%d" % (number, job) for job in range(100))
            ]
        await gatherResults(asked)
        self.assertEqual(len(asked), 2000)

    @async_test
    async def test_kills(self) -> None:
        """300 jobs while workers are killed: each is answered once, and the pool is whole."""
        chance = random.Random(1)
        killed: set[int] = set()

        def kill() -> None:
            lives = self.service.supervisor.records.values()
            if pids := [life.process.pid for life in lives if life.serves]:
                pid = chance.choice(pids)
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)

        clients = [await self.connect() for _ in range(4)]
        outcomes: Counter[str] = Counter()

        async def ask(client: Any) -> None:
            try:
                await client.callRemote(Odd, what="some time")
            except dangad.WorkerLost:
                outcomes["lost"] += 1
            else:
                outcomes["done"] += 1
            if outcomes.total() % 50 == 0:
                kill()

        await gatherResults(
            [Deferred.fromCoroutine(ask(client)) for client in clients for _ in range(75)]
        )
        self.assertEqual(outcomes.total(), 300)
        self.assertGreaterEqual(len(killed), 3)
        self.assertLessEqual(outcomes["lost"], len(killed))
        await until(lambda: self.service.dispatcher.idle >= self.limits.min_workers)

    @async_test
    async def test_large_values(self) -> None:
        """1 and 60 MB there and back through stock AMP, byte for byte."""
        client = await self.connect_tcp()
        for size in (10**6, 6 * 10**7):
            data = random.Random(size).randbytes(size)
            answer = (await client.callRemote(Echo, data=data))["data"]
            self.assertEqual(hashlib.sha256(answer).digest(), hashlib.sha256(data).digest())

    @async_test
    async def test_slow_and_quick(self) -> None:
        """While one client's job holds a worker, another's quick jobs go on."""
        slow, quick = await self.connect(), await self.connect_tcp()
        mark, go = f"{self.folder}/mark", f"{self.folder}/go"
        waiting = slow.callRemote(Wait, path=go, mark=mark)
        await until(lambda: os.path.exists(mark))
        for number in range(100):
            await quick.callRemote(Echo, data=b"%d" % number)
        self.assertFalse(waiting.called)
        with open(go, "w"):
            pass
        await waiting
