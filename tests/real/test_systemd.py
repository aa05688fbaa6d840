"""The units of docs/how-to/systemd, run as systemd would: what the page shows is what works."""

from __future__ import annotations

import configparser
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from dangad.pool.link import STOP_GRACE
from dangad.service import FLUSH_TIME, WORKERS_TIME
from tests.blockingpeer import BlockingPeer, code_of
from tests.reader import PATIENCE, ROOT, environment_variables, virtual_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

UNITS = ROOT / "docs/how-to/systemd"
WATCHDOG = 1
"""Seconds in which the stand-in for systemd wants to hear of the server."""

STAND_IN = """\
import fcntl, os, sys
sockets = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[2].split(",")]
for number, fd in enumerate(sockets):
    os.dup2(fd, 3 + number)
    os.close(fd)
os.environ |= {
    "LISTEN_PID": str(os.getpid()),
    "LISTEN_FDS": str(len(sockets)),
    "LISTEN_FDNAMES": sys.argv[1],
}
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Does what systemd does between fork and exec: sd_listen_fds(3)."""

SLOW_JOBS = """\
import socket
with socket.socket(socket.AF_UNIX) as importing:
    importing.connect({path!r})
    importing.recv(1)
from twisted.protocols import amp
from dangad import job
class Slow(amp.Command):
    pass
@job(Slow)
def slow():
    return {{}}
"""
"""A module that is imported as soon as who listens at that path lets it."""


def unit(name: str) -> configparser.ConfigParser:
    """A unit file of the page."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((UNITS / name).read_text().replace("\\\n", " "))
    return parser


def options_of(name: str) -> list[str]:
    """What the unit's ExecStart gives to twistd; the group `dangad` is one that there is here."""
    program, *options = shlex.split(unit(name)["Service"]["ExecStart"])
    assert program.endswith("/bin/twistd")
    options[options.index("--allow-groups") + 1] = str(os.getgid())
    return options


class SystemdTest(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a directory for sockets, whose path is short enough for them."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        state = tempfile.TemporaryDirectory()
        self.addCleanup(state.cleanup)
        self.state = Path(state.name)
        """Where the server runs, and is at home: StateDirectory and WorkingDirectory."""
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(str(self.state / "notify"))
        self.manager.settimeout(PATIENCE)

    def start(
        self, options: Sequence[str], sockets: dict[str, socket.socket]
    ) -> subprocess.Popen[str]:
        """A server started with these options, and with sockets if there are any, by name."""
        command = [str(virtual_environment() / "bin" / "twistd"), *options]
        if sockets:
            numbers = ",".join(str(listener.fileno()) for listener in sockets.values())
            command = [sys.executable, "-c", STAND_IN, ":".join(sockets), numbers, *command]
        server = subprocess.Popen(
            command,
            pass_fds=[listener.fileno() for listener in sockets.values()],
            cwd=self.state,
            env={
                **environment_variables(),
                "NOTIFY_SOCKET": str(self.state / "notify"),
                "WATCHDOG_USEC": str(WATCHDOG * 10**6),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert server.stdout is not None
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        return server

    def heard(self, message: bytes) -> None:
        """Wait until the server has told its manager that."""
        while message not in self.manager.recv(1000).splitlines():
            pass

    def stop(self, server: subprocess.Popen[str]) -> None:
        """Stop the server as systemd does with KillMode=mixed; nothing is amiss in its log."""
        server.terminate()
        output, _ = server.communicate(timeout=PATIENCE)
        self.assertEqual(server.returncode, -signal.SIGTERM, output)
        self.assertNotIn("Traceback", output)
        self.assertEqual(os.listdir(self.state), ["notify"])

    def listen(self, unit_name: str) -> tuple[str, socket.socket]:
        """The socket that the unit describes, in the test's directory, and its name."""
        section = unit(unit_name)["Socket"]
        where = section["ListenStream"]
        if where.startswith("/"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.folder / Path(where).name))
            os.chmod(listener.getsockname(), int(section["SocketMode"], 8))
        else:
            listener = socket.socket()
            listener.bind((where.partition(":")[0], 0))
        listener.listen()
        self.addCleanup(listener.close)
        return section["FileDescriptorName"], listener

    def connect(self, listener: socket.socket) -> socket.socket:
        """A client's connection to that socket."""
        client = socket.socket(listener.family)
        self.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.connect(listener.getsockname())
        return client

    def assert_answers(self, client: socket.socket) -> None:
        """The client asks for something, and gets it."""
        self.assertEqual(BlockingPeer(client).call(b"Echo", data=b"hello")[b"data"], b"hello")

    def test_two_sockets(self) -> None:
        """A UNIX and a TCP socket, each by its name; the page gives the option for the second."""
        page = (UNITS.parent / "systemd.md").read_text()
        option = "--listen systemd:domain=INET:name=dangad-tcp"
        self.assertIn(option, page)
        unix_name, unix = self.listen("dangad.socket")
        tcp_name, tcp = self.listen("dangad-tcp.socket")
        options = [*options_of("dangad.service"), *option.split()]
        server = self.start(options, {tcp_name: tcp, unix_name: unix})
        for listener in (unix, tcp):
            self.assert_answers(self.connect(listener))
        self.stop(server)

    def test_without_socket_activation(self) -> None:
        """The server makes its sockets itself, where the unit says, and removes them."""
        options = [
            option.replace("/run/dangad", str(self.folder)).replace("tcp:7003", "tcp:0")
            for option in options_of("without-socket/dangad.service")
        ]
        server = self.start(options, {})
        assert server.stdout is not None
        self.heard(b"READY=1")
        path = self.folder / "dangad.sock"
        self.assertEqual(path.stat().st_mode & 0o777, 0o660)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            self.assert_answers(client)
        self.stop(server)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_notify(self) -> None:
        """It says when it serves, gives signs of life, and says when it reloads and stops."""
        for name in ("dangad.service", "without-socket/dangad.service"):
            service = unit(name)["Service"]
            self.assertEqual((service["Type"], service["NotifyAccess"]), ("notify", "main"))
            self.assertEqual(service["ExecReload"], "/bin/kill -HUP $MAINPID")
        name, listener = self.listen("dangad.socket")
        server = self.start(options_of("dangad.service"), {name: listener})
        self.heard(b"READY=1")
        client = self.connect(listener)
        self.assert_answers(client)
        self.heard(b"WATCHDOG=1")
        server.send_signal(signal.SIGHUP)
        self.heard(b"RELOADING=1")
        self.heard(b"READY=1")
        self.assert_answers(client)
        self.stop(server)
        self.heard(b"STOPPING=1")

    def test_ready_is_not_said_too_early(self) -> None:
        """It does not say that it serves while the first worker still imports the jobs."""
        library = tempfile.TemporaryDirectory()
        self.addCleanup(library.cleanup)
        path = Path(library.name, "importing")
        Path(library.name, "slow.py").write_text(SLOW_JOBS.format(path=str(path)))
        importing = socket.socket(socket.AF_UNIX)
        self.addCleanup(importing.close)
        importing.settimeout(PATIENCE)
        importing.bind(str(path))
        importing.listen()
        name, listener = self.listen("dangad.socket")
        jobs = ["--worker-path", library.name, "--jobs", "slow", "--jobs", "dangad.examples"]
        server = self.start([*options_of("dangad.service"), *jobs], {name: listener})
        importing.accept()[0].close()  # the check of the job modules
        first, _ = importing.accept()
        self.manager.setblocking(False)
        with self.assertRaises(BlockingIOError):
            while b"READY=1" not in self.manager.recv(1000):
                pass
        self.manager.settimeout(PATIENCE)
        first.close()
        self.heard(b"READY=1")
        self.assert_answers(self.connect(listener))
        self.stop(server)

    def test_nothing_lost_across_a_restart(self) -> None:
        """Of clients that connect all the time, each is answered, or told to come again.

        A client that connects while no server runs, or it restarts, waits and is answered.
        """
        name, listener = self.listen("dangad.socket")
        client = self.connect(listener)
        server = self.start(options_of("dangad.service"), {name: listener})
        self.assert_answers(client)
        outcomes: Counter[str] = Counter()
        enough = threading.Event()
        asking = threading.Thread(target=self.ask_until, args=(enough, listener, outcomes))
        asking.start()
        try:
            while outcomes["ok"] < 20 and asking.is_alive():
                self.assert_answers(self.connect(listener))
            self.stop(server)
            self.assertEqual(os.stat(listener.getsockname()).st_mode & 0o777, 0o660)
            client = self.connect(listener)
            server = self.start(options_of("dangad.service"), {name: listener})
            self.assert_answers(client)
        finally:
            enough.set()
            asking.join()
        self.stop(server)
        self.assertFalse(outcomes.keys() - {"ok", "SHUTTING_DOWN"}, outcomes)
        self.assertGreaterEqual(outcomes["ok"], 20)

    def ask_until(
        self, enough: threading.Event, listener: socket.socket, outcomes: Counter[str]
    ) -> None:
        """Ask for one thing after the other, each on a connection of its own."""
        while not enough.is_set():
            try:
                with socket.socket(listener.family) as client:
                    client.settimeout(PATIENCE)
                    client.connect(listener.getsockname())
                    outcomes[code_of(BlockingPeer(client).call(b"Echo", data=b"hello"))] += 1
            except (OSError, EOFError) as error:
                outcomes[repr(error)] += 1

    def test_time_to_stop(self) -> None:
        """Nothing is killed while it stops in order: jobs, workers, connections have their time."""
        for name in ("dangad.service", "without-socket/dangad.service"):
            options = options_of(name)
            drain = float(options[options.index("--drain") + 1])
            patience = float(unit(name)["Service"]["TimeoutStopSec"])
            self.assertGreater(patience, drain + WORKERS_TIME + FLUSH_TIME + STOP_GRACE)
            self.assertEqual(unit(name)["Service"]["KillMode"], "mixed")
