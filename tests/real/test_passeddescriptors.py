"""Descriptors that peers pass over UNIX sockets, on real sockets."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
import tempfile
import threading
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor as _reactor
from twisted.internet import unix
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from dangad.server.passeddescriptors import PatientlyClosed, dispose, guard, refuse
from tests.realserver import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.python.failure import Failure

reactor: Any = _reactor

LINGER = 60
"""Seconds for which the close of a descriptor blocks: longer than any test has."""


@contextlib.contextmanager
def lingering() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection and its other end; who closes it last waits for :data:`LINGER` seconds.

    But not the test, at its end.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = socket.create_connection(listening.getsockname())
        peer, _ = listening.accept()
    with peer, connection:
        linger(connection, LINGER)
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                connection.send(bytes(2**16))
        yield connection, peer
        if connection.fileno() >= 0:
            linger(connection, 0)


def linger(connection: socket.socket, seconds: int) -> None:
    """Have the close of the connection block for so long."""
    value = struct.pack("ii", int(seconds > 0), seconds)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, value)


def pass_on(through: socket.socket, *passed: socket.socket) -> None:
    """Send descriptors of the sockets along with a byte."""
    rights = array.array("i", [each.fileno() for each in passed])
    through.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


class DisposeTest(TestCase):
    timeout = LINGER // 2

    async def test_a_descriptor_that_lingers(self) -> None:
        """Its close keeps nobody waiting, and comes at once, since it lingers no more."""
        with lingering() as (connection, peer):
            dispose(connection.detach())
            peer.setblocking(False)
            await until(lambda: is_closed(peer))
            await until(lambda: no_threads())

    async def test_descriptors_of_any_kind(self) -> None:
        """Pipes and files are closed, too, however many; no thread is left."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(reader, False)
        for _ in range(100):
            dispose(os.dup(writer))
        os.close(writer)

        def at_end() -> bool:
            try:
                return os.read(reader, 1) == b""
            except BlockingIOError:
                return False

        await until(at_end)
        await until(lambda: no_threads())

    def test_no_descriptor(self) -> None:
        """One that is closed already does no harm."""
        reader, writer = os.pipe()
        os.close(reader)
        os.close(writer)
        dispose(writer)


def is_closed(peer: socket.socket) -> bool:
    """Whether the other end, which is read to its end, has closed."""
    try:
        while peer.recv(2**20):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


def no_threads() -> bool:
    """Whether nothing is being closed."""
    return not any(thread.name == "dangad closes" for thread in threading.enumerate())


class RefuseTest(SynchronousTestCase):
    def test_refuse(self) -> None:
        """Where the kernel can refuse descriptors, whoever passes one is told; else not."""
        with (
            tempfile.TemporaryDirectory() as folder,
            socket.socket(socket.AF_UNIX) as listening,
            socket.socket(socket.AF_UNIX) as client,
        ):
            listening.bind(os.path.join(folder, "socket"))
            listening.listen()
            refused = refuse(listening)
            client.connect(os.path.join(folder, "socket"))
            if refused:
                self.assertRaises(PermissionError, pass_on, client, client)
            else:
                pass_on(client, client)


@implementer(IFileDescriptorReceiver)
class Deaf(Protocol):
    """Reads nothing."""

    def __init__(self, lost: Deferred[None]) -> None:
        self._lost = lost

    def connectionMade(self) -> None:
        """Read nothing."""
        transport: Any = self.transport
        transport.pauseProducing()

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Never called."""
        raise AssertionError("it was read")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell."""
        self._lost.callback(None)


class UnreadTest(TestCase):
    timeout = LINGER // 2

    async def test_a_connection_with_unread_descriptors(self) -> None:
        """Its close keeps nobody waiting, and its client sees it, on any kernel."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "socket")
        lost: Deferred[None] = Deferred()
        protocol = Deaf(lost)
        port = reactor.listenUNIX(path, Factory.forProtocol(lambda: protocol))
        self.addCleanup(port.stopListening)
        port.transport = PatientlyClosed  # as of a kernel that refuses none
        with socket.socket(socket.AF_UNIX) as client, lingering() as (connection, _):
            client.connect(path)
            await until(lambda: protocol.transport)
            pass_on(client, connection)
            connection.close()  # not the last reference, so this does not linger
            transport: Any = protocol.transport
            transport.abortConnection()
            await lost
            client.setblocking(False)
            await until(lambda: is_closed(client))

    async def test_guard(self) -> None:
        """A port either refuses descriptors, or closes its connections patiently."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for port in (
            reactor.listenUNIX(os.path.join(folder.name, "socket"), Factory()),
            reactor.listenTCP(0, Factory(), interface="127.0.0.1"),
        ):
            self.addCleanup(port.stopListening)
            guard(port)
            if isinstance(port, unix.Port):
                self.assertNotEqual(refuse(port.socket), port.transport is PatientlyClosed)
