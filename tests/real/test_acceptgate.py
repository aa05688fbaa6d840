"""Whether connections are accepted: with ports and numbers that are made up, and with real ones."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
from typing import TYPE_CHECKING, ClassVar, cast

from twisted.internet.interfaces import IListeningPort, IPushProducer
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.internet.testing import MemoryReactor
from zope.interface import implementer

from dangad.server.acceptgate import (
    BACKLOG,
    BURST,
    LOOK_INTERVAL,
    MARGIN,
    OVERSHOOT,
    SAY_INTERVAL,
    AcceptGate,
    Descriptors,
)
from dangad.wire import boxes
from tests.fakes import lines_of, noted_events
from tests.real.test_twistd import PING, PONG, TwistdCase
from tests.twistdserver import PATIENCE, wait_for
from tests.unit.telling import TellingTestCase

if TYPE_CHECKING:
    from tests.unit.telling import Deeds

SHUT = "new connections wait"
OPEN = "connections are accepted again"
SAID = {"SHUT": SHUT, "OPEN": OPEN}
SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)


@implementer(IPushProducer)
class FakePort:
    """Notes whether it accepts."""

    def __init__(self) -> None:
        self.accepts = True

    def pauseProducing(self) -> None:
        """Accept no more."""
        self.accepts = False

    def resumeProducing(self) -> None:
        """Accept."""
        self.accepts = True

    def stopProducing(self) -> None:
        """Nothing."""


class FakeDescriptors(Descriptors):
    """Numbers that are made up: `base` are open, a gate's connections aside, of `most`."""

    def __init__(self, base: int, most: int) -> None:
        self.base, self.most = base, most
        self.used = base
        self.problem: OSError | None = None

    def limit(self) -> int:
        """See `Descriptors.limit`."""
        return self.most

    def open_now(self) -> int:
        """See `Descriptors.open_now`."""
        return self.base

    def lowest_free(self) -> int:
        """See `Descriptors.lowest_free`."""
        if self.problem is not None:
            raise self.problem
        return self.used


GATES = {
    "with the last place taken all ports stop, and one line says so, with the numbers": f"""
        enter 2, open, said, enter 1, shut, said SHUT, says "3 are open"
        says "of {10 + 40 + OVERSHOOT + MARGIN + 3} open files 3", says LimitNOFILE=
    """,
    "when one connection closes, the ports accept again": f"""
        enter {3 + OVERSHOOT}, leave {OVERSHOOT}, shut, leave 1, open, said SHUT OPEN
    """,
    "at the limit the log is not flooded, and in the end it tells how things are": f"""
        100x come_and_go, enter 3, said SHUT OPEN, {int(SAY_INTERVAL / LOOK_INTERVAL)}x look
        said SHUT OPEN SHUT, leave 1, said SHUT OPEN SHUT OPEN
    """,
    "a port that begins to listen while there is no room is stopped soon": """
        enter 3, new_port, look, shut
    """,
    "when there may be more workers, there is room for less connections": """
        enter 2, reserve 41, look, shut, reserve 40, look, open
    """,
    "who raises the limit of the running server has the waiting clients let in": """
        enter 3, raise_limit, look, open
    """,
    "whoever has taken the descriptors, clients wait until there are some again": """
        enter 1, leak, look, shut, says "something else has used up the descriptors", leave 1, open
        said SHUT OPEN
    """,
    "if none are left in this process, it looks each second for some": f"""
        no_descriptor {errno.EMFILE}, notice, shut, look, shut, some_again, look, open
    """,
    "so it does if none are left on the machine": f"""
        no_descriptor {errno.ENFILE}, notice, shut, look, shut, some_again, look, open
    """,
    "once it is stopped it does nothing more, and no alarm is left": """
        enter 3, stop, leave 3, shut, said SHUT, quiet
    """,
}


class GateTest(TellingTestCase):
    """A gate with room for three connections, and two ports."""

    deeds: ClassVar[Deeds] = {
        "look": lambda case: case.clock.advance(LOOK_INTERVAL),  # it does so now and then
        "notice": lambda case: case.gate.entered(),
        "new_port": lambda case: case.ports.append(FakePort()),
        "reserve": lambda case, count: setattr(case, "reserve", int(count)),  # for workers
        "raise_limit": lambda case: setattr(case.descriptors, "most", case.descriptors.most + 1),
        "leak": lambda case: setattr(case.descriptors, "used", case.descriptors.most - OVERSHOOT),
        "no_descriptor": lambda case, number: setattr(
            case.descriptors, "problem", OSError(int(number), "too many open files")
        ),
        "some_again": lambda case: setattr(case.descriptors, "problem", None),
        "stop": lambda case: case.gate.stop(),
    }
    facts: ClassVar[Deeds] = {
        "open": lambda case: [] if {port.accepts for port in case.ports} == {True} else ["no"],
        "shut": lambda case: [] if {port.accepts for port in case.ports} == {False} else ["no"],
        "said": lambda case: [
            next(word for word, text in SAID.items() if line.startswith(text))
            for line in case.logged()
        ],
        "quiet": lambda case: case.clock.getDelayedCalls(),
    }

    def setUp(self) -> None:
        """Begin to note log events."""
        self.events = noted_events(self)
        super().setUp()

    def begin_anew(self) -> None:
        """Start a gate."""
        self.events.clear()
        self.clock = Clock()
        self.ports = [FakePort(), FakePort()]
        self.reserve = 40
        self.descriptors = FakeDescriptors(10, 10 + 40 + OVERSHOOT + MARGIN + 3)
        ports = cast("list[IListeningPort]", self.ports)
        self.gate = AcceptGate(self.clock, ports, lambda: self.reserve, self.descriptors)
        self.gate.start(3)

    def logged(self) -> list[str]:
        """What the gate logged."""
        return lines_of(self.events, "dangad.server.acceptgate")

    def do_enter(self, count: str) -> None:
        """So many connections come."""
        for _ in range(int(count)):
            self.descriptors.used += 1
            self.gate.entered()

    def do_leave(self, count: str) -> None:
        """So many go."""
        for _ in range(int(count)):
            self.descriptors.used -= 1
            self.gate.left()

    def do_come_and_go(self) -> None:
        """As many come and go as may."""
        self.do_enter("3")
        self.do_leave("3")

    def see_says(self, text: str) -> None:
        """This is in the first line of the log."""
        self.assertIn(text, self.logged()[0])

    def test_stories(self) -> None:
        """They are true."""
        self.tell(GATES)

    def test_a_low_limit(self) -> None:
        """If the limit is too low for the wanted connections the start says so; one is let in."""
        self.descriptors.most = 100
        gate = AcceptGate(self.clock, [], lambda: self.reserve, self.descriptors)
        gate.start(10_000)
        self.assertEqual(gate.room, 1)
        [line] = self.logged()
        self.assertIn("the limit of 100 open files leaves room for 1 connections, and --max-", line)

    def test_ports(self) -> None:
        """Of Twisted's ports each accepts few connections in one go.

        Many may wait for it, unless its endpoint says how many.
        """
        by_default, chosen = self.listen(), self.listen(backlog=10)
        by_default.numberAccepts = 100
        AcceptGate(self.clock, [by_default, chosen], lambda: 0, self.descriptors).start(1)
        self.assertEqual(by_default.numberAccepts, BURST)
        self.assertEqual((by_default.backlog, chosen.backlog), (BACKLOG, 10))

    def listen(self, **options: int) -> Port:
        """A port of Twisted's on a real socket."""
        port = Port(0, Factory(), interface="127.0.0.1", reactor=MemoryReactor(), **options)
        port.startListening()
        self.addCleanup(port.socket.close)
        return port


class PortTest(TwistdCase):
    """A server on a UNIX socket, with a limit that is lowered."""

    def setUp(self) -> None:
        """Start the server, with one worker at most."""
        super().setUp()
        self.clients: list[socket.socket] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT - 1, HARD))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (SOFT, HARD))
        self.server = self.start_twistd("--listen", "unix:dangad.sock", "--max-workers", "1")

    def limit(self, most: int) -> None:
        """Set the server's soft limit of open files."""
        resource.prlimit(self.server.pid, resource.RLIMIT_NOFILE, (most, HARD))

    def connect(self, path: str = "dangad.sock") -> socket.socket:
        """A new client, which has sent a request."""
        client = super().connect(path)
        self.clients.append(client)
        client.sendall(PING)
        return client

    def assert_answered(self, client: socket.socket) -> None:
        """The client gets its answer."""
        self.assertEqual(client.recv(100), PONG)

    def assert_waits(self, client: socket.socket) -> None:
        """The client is not closed, and has no answer."""
        client.setblocking(False)
        with self.assertRaises(BlockingIOError):
            client.recv(100)
        client.settimeout(PATIENCE)

    def test_more_clients_than_room(self) -> None:
        """Those for whom there is no room wait, while workers can start, until others have gone."""
        self.limit(200)
        while SHUT not in self.log():
            self.assert_answered(self.connect())
        late = [self.connect() for _ in range(20)]
        for client in self.clients[: -len(late)]:
            client.sendall(PING)
            self.assert_answered(client)
        for client in late:
            self.assert_waits(client)
        [worker] = self.ready_workers()
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: len(self.ready_workers()) == 2)
        close_all(self.clients[: len(late)])
        for client in late:
            self.assert_answered(client)
        for beginning in (SHUT, OPEN):
            self.assertEqual(self.log().count(beginning), 1, self.log())
        self.assertNotIn("EMFILE", self.log())

    def test_a_crowd(self) -> None:
        """Clients that come all at once, and do not block, are let in one after the other."""
        self.server.send_signal(signal.SIGSTOP)
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(500)]
        self.addCleanup(close_all, crowd)
        for client in crowd:
            client.setblocking(False)
            client.connect(str(self.folder / "dangad.sock"))
            client.send(PING)
        self.server.send_signal(signal.SIGCONT)
        for client in crowd:
            client.settimeout(PATIENCE)
            self.assert_answered(client)

    def test_limits(self) -> None:
        """The server raises its soft limit to the hard one; its workers have it as it was."""
        [worker] = self.ready_workers()
        self.assertEqual(resource.prlimit(self.server.pid, resource.RLIMIT_NOFILE), (HARD, HARD))
        self.assertEqual(resource.prlimit(worker, resource.RLIMIT_NOFILE), (SOFT - 1, HARD))

    def test_no_descriptors_at_all(self) -> None:
        """With no descriptor left it accepts nobody, says so, and goes on when there are some."""
        before = self.connect()
        self.assert_answered(before)
        self.limit(3)
        wait_for(lambda: SHUT in self.log())
        late = self.connect()
        before.sendall(PING)
        self.assert_answered(before)
        self.assert_waits(late)
        self.limit(HARD)
        self.assert_answered(late)
        self.assertIn(OPEN, self.log())
        self.assertNotIn("EMFILE", self.log())


class ManyTest(TwistdCase):
    """As many connections as are allowed."""

    def setUp(self) -> None:
        """Raise this process's own limit, for its ends of the connections."""
        super().setUp()
        resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (SOFT, HARD))

    def test_two_thousand(self) -> None:
        """2,000 idle connections, a job on each, one too many; then all that they took is free."""
        count = min(2000, HARD - 500)
        server = self.start_twistd(
            *("--listen", "unix:dangad.sock", "--max-connections", str(count)),
            *("--min-workers", "2", "--max-workers", "2"),
        )
        wait_for(lambda: len(self.ready_workers()) == 2)
        before = descriptors_of(server.pid)
        clients = [self.connect() for _ in range(count)]
        wait_for(lambda: descriptors_of(server.pid) == before + count)
        for number, client in enumerate(clients):
            client.sendall(echo(number))
        for number, client in enumerate(clients):
            self.assertIn(boxes.pair(b"data", b"%d" % number), client.recv(1000))
        late = self.connect()
        late.sendall(PING)
        self.assertIn(b"QUEUE_FULL", late.recv(1000))
        self.assertEqual(late.recv(1000), b"")
        close_all([*clients, late])
        wait_for(lambda: descriptors_of(server.pid) == before)
        self.assertEqual(self.ask(PING), PONG)
        self.assertNotIn(SHUT, self.log())


def close_all(clients: list[socket.socket]) -> None:
    """Close the clients' ends of their connections."""
    for client in clients:
        client.close()


def descriptors_of(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def echo(number: int) -> bytes:
    """A request to have a number echoed."""
    return boxes.pack([(b"_ask", b"1"), (b"_command", b"Echo"), (b"data", b"%d" % number)])
