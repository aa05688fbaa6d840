"""Who may connect to ``twistd dangad``, seen by real users of the machine, and what it leaves."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from typing import Any

from twisted.protocols import amp

from tests.otheruser import DAEMON, NOBODY, connect_as, needs_root
from tests.real.test_twistd import PING, PONG, TwistdCase
from tests.realserver import RealServer, until
from tests.twistdserver import PATIENCE

LOOPBACK = "tcp:0:interface=127.0.0.1"


class DoorsCase(TwistdCase):
    """Runs twistd in a directory that everybody may enter."""

    def setUp(self) -> None:
        """Open the directory."""
        super().setUp()
        self.folder.chmod(0o755)

    def path(self, name: str) -> str:
        """That of a socket in the directory."""
        return str(self.folder / name)

    def ports(self) -> list[int]:
        """The TCP ports on which the server listens, in the order of its endpoints."""
        return [int(port) for port in re.findall(r"dangad starting on (\d+)", self.log())]

    def answer(self, client: socket.socket, request: bytes = PING) -> bytes:
        """What the server says to a request."""
        with client:
            client.settimeout(PATIENCE)
            client.sendall(request)
            received = b""
            while not received.endswith(b"\0\0") and (data := client.recv(4096)):
                received += data
            return received

    def assert_let_in(self, user: int, address: Any, groups: tuple[int, ...] = ()) -> None:
        """The user's request is answered."""
        self.assertEqual(self.answer(connect_as(user, address, groups)), PONG)

    def assert_refused(self, user: int, address: Any) -> None:
        """The user is told that he may not connect."""
        [box] = amp.parseString(self.answer(connect_as(user, address)))
        self.assertEqual(box[b"_error_code"], b"FORBIDDEN")
        self.assertIn(f"user {user} ".encode(), box[b"_error_description"])


@needs_root
class UserTests(DoorsCase):
    """Root runs a server; nobody, and the user daemon, come."""

    def test_closed_by_default(self) -> None:
        """Sockets of which nothing is said are the server's own user's, operators' included."""
        process = self.start_twistd(
            "--listen", "unix:one", "--listen", self.path("two"), "--listen", LOOPBACK
        )
        for name in ("one", "two", "dangad.control"):
            with self.subTest(name):
                self.assertEqual(stat.S_IMODE(os.stat(self.path(name)).st_mode), 0o600)
                with self.assertRaises(PermissionError):
                    connect_as(NOBODY, self.path(name))
        for address in (self.path("one"), self.path("two"), ("127.0.0.1", self.ports()[0])):
            self.assert_let_in(0, address)
        self.assert_refused(NOBODY, ("127.0.0.1", self.ports()[0]))
        self.assertIn(f"refused a connection of user {NOBODY} to {LOOPBACK}", self.log())
        self.flood(("127.0.0.1", self.ports()[0]))
        self.leave_request(process, ("127.0.0.1", self.ports()[0]))

    def flood(self, address: Any) -> None:
        """A user who is refused again and again fills neither the log nor the server."""
        answers = []
        for client in [connect_as(NOBODY, address) for _ in range(60)]:
            with contextlib.suppress(ConnectionResetError):
                answers.append(self.answer(client))
        self.assertTrue(any(b"FORBIDDEN" in answer for answer in answers))
        self.assertFalse(any(PONG in answer for answer in answers))
        self.assertLess(self.log().count("refused a connection"), 10)
        self.assert_let_in(0, address)

    def leave_request(self, process: subprocess.Popen[str], address: Any) -> None:
        """A refused client's request is not performed, though it wants no answer and is gone."""
        request = amp.AmpBox(_command=b"Echo", data=b"hello").serialize()
        process.send_signal(signal.SIGSTOP)
        with connect_as(NOBODY, address) as client:
            client.sendall(request)
        process.send_signal(signal.SIGCONT)
        self.assert_let_in(0, address)
        process.terminate()
        process.wait(PATIENCE)
        self.assertIn("0 jobs accepted", self.log())
        self.assertIn("it is not known whose it is", self.log())

    def test_opened(self) -> None:
        """What is opened is open: by a mode, auth=none, --insecure, and lists of users and groups.

        The lists do not hold where operators connect. The log tells of it at the start.
        """
        self.start_twistd(
            *("--listen", "unix:mode:mode=666", "--listen", "unix:both:mode=666:auth=user"),
            *("--listen", LOOPBACK, "--listen", f"{LOOPBACK}:auth=none"),
            *("--listen", "tcp:0", "--insecure", "--control", LOOPBACK),
            *("--allow-users", str(DAEMON), "--allow-groups", "4711"),
        )
        asking, open_to_all, beyond, control = (("127.0.0.1", port) for port in self.ports())
        for user in (NOBODY, DAEMON):
            self.assert_let_in(user, self.path("mode"))
            self.assert_let_in(user, open_to_all)
            self.assert_let_in(user, beyond)
        for address in (self.path("both"), asking):
            self.assert_let_in(DAEMON, address)
            self.assert_refused(NOBODY, address)
        self.assert_let_in(NOBODY, self.path("both"), groups=(4711,))
        self.assert_refused(DAEMON, control)
        log = self.log()
        self.assertIn(f"{LOOPBACK} (port {asking[1]}) (for root, user 1, group 4711)", log)
        self.assertIn(f"anybody on this machine may connect to {LOOPBACK}:auth=none", log)
        self.assertIn("anybody who can reach it may connect to tcp:0", log)
        self.assertRegex(log, r"dangad \S+ serves \d+ commands? with 1 to \d+ workers")


class LeftoverTests(DoorsCase):
    """What a server leaves behind that is killed, and what that means to the next."""

    def test_race(self) -> None:
        """Of servers that race for one path, where a dead one was, exactly one gets it."""
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACER, self.path("s")],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        for racer in racers:
            self.addCleanup(racer.communicate)
            self.addCleanup(racer.kill)
        for _ in range(20):
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write("go\n")
                racer.stdin.flush()
            outcomes = [racer.stdout.readline().strip() for racer in racers if racer.stdout]
            self.assertEqual(sorted(outcomes), ["InUse"] * 3 + ["listens"])
            winner = racers[outcomes.index("listens")]
            for racer in (winner, *(each for each in racers if each is not winner)):
                assert racer.stdin is not None
                assert racer.stdout is not None
                racer.stdin.write("die\n")
                racer.stdin.flush()
                self.assertEqual(racer.stdout.readline(), "dead\n")


RACER = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from dangad.server.unixport import UnixEndpoint

def say(text):
    print(text, flush=True)

ports = []
while sys.stdin.readline():
    outcome = []
    UnixEndpoint(reactor, sys.argv[1]).listen(Factory()).addBoth(outcome.append)
    ports = [outcome[0]] if hasattr(outcome[0], "getHost") else []
    say("listens" if ports else type(outcome[0].value).__name__)
    sys.stdin.readline()
    for port in ports:
        reactor.removeReader(port)
        port.socket.close()
    say("dead")
"""
"""Listens when it is told to, and then closes its socket as the kernel does for the dead."""


async def test_announced_late(own_server: RealServer) -> None:
    """That it serves is told in the end where the first worker cannot be described at once."""
    own_server.start(max_queued=0)
    await until(lambda: "serves" in own_server.logged("dangad.service"))
