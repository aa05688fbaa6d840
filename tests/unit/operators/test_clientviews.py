"""The document about clients, of a factory with connections in memory."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dangad.operators.clientviews import AT_ONCE, ClientViews
from dangad.operators.parts import Parts
from dangad.scheduler.dispatcher import Dispatcher
from tests.fakes import FakeWorker, catalogue, client_factory
from tests.unit.host.test_turns import TurnClock
from tests.unit.server.test_server import FakeClient, Line


class ClientViewsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Have a factory without clients, and one worker."""
        super().setUp()
        self.clock = TurnClock()
        self.dispatcher = Dispatcher(self.clock, 1000)
        self.factory = client_factory(self.clock, self.dispatcher, max_connections=5000)
        self.views = ClientViews(self.clock, self.dispatcher, self.factory, Parts(self.clock))
        worker = FakeWorker()
        worker.can_prefetch = False
        worker.say_hello(catalogue("Echo"))
        self.dispatcher.worker_ready(worker, worker.performs)

    def client(self) -> FakeClient:
        """A client who has connected."""
        line = Line()
        line.protocol = self.factory.buildProtocol(None)
        assert line.protocol is not None
        line.protocol.makeConnection(line)
        return FakeClient(line)

    def document(self, sort: str = "-since", limit: int = 100) -> Any:
        """The document, once it is there."""
        results: list[Any] = []
        self.views.clients(sort, limit).addCallback(results.append)
        while not results:
            self.clock.turn()
        return json.loads(json.dumps(results[0]))

    def test_entries(self) -> None:
        """An entry tells how long a client is here, and what it has to do here."""
        busy = self.client()
        self.clock.advance(5)
        self.client()
        for tag in (b"1", b"2", b"3"):
            busy.call(b"Echo", tag, data=b"x" * 1000)
        self.clock.advance(3)
        document = self.document()
        first, second = document["clients"]
        self.assertEqual(document["total"], 2)
        self.assertAlmostEqual(first.pop("since"), 8, places=2)
        self.assertAlmostEqual(second.pop("since"), 3, places=2)
        self.assertAlmostEqual(second.pop("idle"), 3, places=2)
        self.assertGreater(first.pop("bytes"), 3000)
        self.assertEqual(second.pop("bytes"), 0)
        for name in ("client", "peer"):
            first.pop(name)
            second.pop(name)
        self.assertEqual(first, {"idle": None, "waiting": 2, "running": 1, "held": False})
        self.assertEqual(second, {"waiting": 0, "running": 0, "held": False})

    def test_orders(self) -> None:
        """The first in any order are told; an order or a number may be wrong."""
        clients = [self.client() for _ in range(3)]
        for number, client in enumerate(clients):
            for tag in range(number):
                client.call(b"Echo", b"%d" % tag)
        waiting = [each["waiting"] for each in self.document("-waiting", 2)["clients"]]
        self.assertEqual(waiting, [2, 0])
        self.assertEqual(len(self.document("idle")["clients"]), 3)  # some are not idle
        self.assertEqual(len(self.document("peer", 1)["clients"]), 1)
        for sort, limit in (("size", 1), ("client", 0)):
            with self.assertRaises(ValueError):
                self.views.clients(sort, limit)

    def test_in_parts(self) -> None:
        """Very many clients are looked at in parts; those that leave meanwhile are not told."""
        clients = [self.client() for _ in range(AT_ONCE + 10)]
        results: list[Any] = []
        self.views.clients("client", 1000).addCallback(results.append)
        self.clock.turn()
        self.clock.turn()
        self.assertEqual(results, [])
        for client in clients:
            client.line.drop()
        while not results:
            self.clock.turn()
        self.assertEqual(results[0]["total"], AT_ONCE)
