"""How much a reactor does in one turn, whatever happens to its descriptors at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.pollreactor import PollReactor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.trial.unittest import SynchronousTestCase

from dangad.host.shortturns import EVENTS, take_few_events

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

CLIENTS = 3 * EVENTS


class Crowd(Factory):
    """Connections that note what happens to them, and to which."""

    def __init__(self) -> None:
        self.ended: list[Protocol] = []
        self.heard: list[Protocol] = []

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """One of them."""
        crowd = self

        class Member(Protocol):
            def dataReceived(self, data: bytes) -> None:
                crowd.heard.append(self)

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                crowd.ended.append(self)

        return Member()


class ShortTurnsTest(SynchronousTestCase):
    def gather(self, reactor: Any) -> tuple[Crowd, list[socket.socket]]:
        """Many connections of that reactor, and their other ends."""
        take_few_events(reactor)
        crowd, clients = Crowd(), []
        for _ in range(CLIENTS):
            ours, theirs = socket.socketpair()
            with ours:  # the reactor takes a copy
                reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, crowd)
            self.addCleanup(theirs.close)
            clients.append(theirs)
        return crowd, clients

    def epoll_reactor(self) -> Any:
        """A reactor that nobody runs."""
        reactor = EPollReactor()
        self.addCleanup(close, reactor)
        return reactor

    def test_connections_that_end_at_once(self) -> None:
        """In each turn some of those are dealt with whose clients have gone, and all in the end."""
        reactor = self.epoll_reactor()
        crowd, clients = self.gather(reactor)
        for client in clients:
            client.close()
        ended = []
        for _ in range(4):
            before = len(crowd.ended)
            reactor.doIteration(0)
            ended.append(len(crowd.ended) - before)
        self.assertEqual(ended, [EVENTS, EVENTS, EVENTS, 0])

    def test_everybody_has_a_turn(self) -> None:
        """Of clients that send without a pause all are read once before any is read again."""
        reactor = self.epoll_reactor()
        crowd, clients = self.gather(reactor)
        for _ in range(3):
            for client in clients:
                with contextlib.suppress(BlockingIOError):
                    client.send(b"x", socket.MSG_DONTWAIT)
            reactor.doIteration(0)
        self.assertEqual(len(crowd.heard), CLIENTS)
        self.assertEqual(len(set(crowd.heard)), CLIENTS)

    def test_asyncio(self) -> None:
        """So it is with asyncio's loop, which has timers of its own."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        reactor = AsyncioSelectorReactor(loop)
        self.addCleanup(close, reactor)
        crowd, clients = self.gather(reactor)
        for client in clients:
            client.close()
        loop.call_soon(loop.stop)
        loop.run_forever()
        self.assertEqual(len(crowd.ended), EVENTS)

    def test_a_reactor_without_epoll(self) -> None:
        """It is left alone."""
        reactor = PollReactor()
        self.addCleanup(close, reactor)
        poller = reactor._poller
        take_few_events(reactor)
        self.assertIs(reactor._poller, poller)


def close(reactor: Any) -> None:
    """Close all descriptors of a reactor that was not run."""
    for each in (*reactor.removeAll(), *reactor._internalReaders):
        each.connectionLost(connectionDone)
    if isinstance(reactor, EPollReactor):
        reactor._poller.close()
