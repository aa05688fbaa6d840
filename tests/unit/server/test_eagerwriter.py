"""The writer on real sockets, whose other end is in the test's hands."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet import tcp
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from dangad.server.eagerwriter import EagerWriter, IUnreadWatcher
from dangad.server.memorybudget import MemoryBudget

reactor: Any = _reactor


@implementer(IUnreadWatcher)
class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def unread_grows(self) -> None:
        """See :meth:`IUnreadWatcher.unread_grows`."""
        self.told.append("grows")

    def all_is_read(self) -> None:
        """See :meth:`IUnreadWatcher.all_is_read`."""
        self.told.append("read")


class PlainTests(SynchronousTestCase):
    """A socket of TCP's kind takes what is written without a turn of the reactor."""

    def setUp(self) -> None:
        """Make a connection."""
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.addCleanup(self.peer.close)
        self.addCleanup(ours.close)
        ours.setblocking(False)
        self.transport: Any = tcp.Connection(ours, Protocol(), reactor)
        self.transport.connected = True
        self.addCleanup(self.transport.stopWriting)
        self.clock = Clock()
        self.watcher = Watcher()
        self.budget = MemoryBudget(self.clock, 2**30, 2**20, list)
        self.writer = EagerWriter(self.clock, self.transport, self.watcher, self.budget)

    def came(self) -> bytes:
        """What the peer has received."""
        received = b""
        while True:
            try:
                received += self.peer.recv(2**20)
            except BlockingIOError:
                return received

    def test_at_once(self) -> None:
        """What is written alone is there at once."""
        self.writer.write(b"one")
        self.assertEqual(self.came(), b"one")

    def test_together(self) -> None:
        """What more will follow is sent with that, when all else is done."""
        self.writer.write(b"one ", more=True)
        self.writer.write(b"two ", more=True)
        self.assertEqual(self.came(), b"")
        self.clock.advance(0)
        self.assertEqual(self.came(), b"one two ")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_order(self) -> None:
        """What comes after something that was kept is sent after it."""
        self.writer.write(b"one ", more=True)
        self.writer.write(b"two")
        self.assertEqual(self.came(), b"one two")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full(self) -> None:
        """What the socket does not take goes out in order, through the transport."""
        data = b"".join(b"%07d " % number for number in range(200_000))
        self.writer.write(data)
        self.writer.write(b"and more", more=True)
        self.clock.advance(0)
        received = b""
        while len(received) < len(data) + 8:
            received += self.came()
            self.transport.doWrite()
        self.assertEqual(received, data + b"and more")
        self.writer.write(b"last")
        self.assertEqual(self.came(), b"last")

    def test_peer_gone(self) -> None:
        """A peer that is gone is left for the transport to find out."""
        self.peer.close()
        self.writer.write(b"one")
        self.assertIsInstance(self.transport.doWrite(), Exception)

    def test_closed(self) -> None:
        """When the connection is lost, what was kept is forgotten, and no call is left."""
        self.writer.write(b"one", more=True)
        self.writer.forget()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flush(self) -> None:
        """What was kept can be had out at once, and then nothing is kept."""
        self.writer.write(b"one", more=True)
        self.writer.flush()
        self.writer.flush()
        self.assertEqual(self.came(), b"one")


class OtherTests(SynchronousTestCase):
    def test_other_transports(self) -> None:
        """A transport of another kind, as with TLS, is written to as it wants to be."""
        transport = StringTransport()
        clock = Clock()
        writer = EagerWriter(clock, transport, Watcher(), MemoryBudget(clock, 2**30, 2**20, list))
        writer.write(b"one ", more=True)
        writer.write(b"two")
        writer.flush()
        self.assertEqual(transport.value(), b"one two")
