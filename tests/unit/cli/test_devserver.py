"""The server of ``dangad dev``: its command line, its addresses, and the lines that it says."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.error import ConnectionDone, ProcessDone, ProcessTerminated
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dangad.cli import devserver
from dangad.cli.devserver import (
    MOST_LINE,
    ServerProcess,
    SocketFolder,
    client_address,
    hold_port,
    server_words,
)
from dangad.cli.jobfiles import JobCode
from dangad.cli.outcome import WrongUsage
from dangad.options.commandline import Options

reactor: Any = _reactor


class AddressTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """Clients connect to where the server listens."""
        here = os.getcwd()
        for endpoint, address in (
            ("dangad.sock", f"{here}/dangad.sock"),
            ("/run/a:b.sock", "/run/a:b.sock"),
            ("unix:dangad.sock:mode=660", f"{here}/dangad.sock"),
            ("tcp:7003:interface=127.0.0.1", "tcp:127.0.0.1:7003"),
            ("tcp:7003:interface=localhost", "tcp:localhost:7003"),
        ):
            self.assertEqual(client_address("--listen", endpoint), address)

    def test_beyond_this_machine(self) -> None:
        """An endpoint that other machines reach is refused: the advice is how to write it."""
        for endpoint in ("tcp:7003", "tcp:7003:interface=0.0.0.0", "tcp:7003:interface=example"):
            error = self.assertRaises(WrongUsage, client_address, "--listen", endpoint)
            self.assertTrue(str(error).endswith("; write tcp:7003:interface=127.0.0.1"), error)

    def test_not_valid(self) -> None:
        """Other endpoints are refused, in one line."""
        for endpoint in ("tcp:0", "tcp:abc", "unix:", "systemd:domain=UNIX:index=0"):
            error = self.assertRaises(WrongUsage, client_address, "--listen", endpoint)
            self.assertEqual(
                str(error),
                f"--listen {endpoint}: write a path, or tcp:PORT:interface=127.0.0.1",
            )


class WordsTests(SynchronousTestCase):
    def test_understood(self) -> None:
        """The words are understood by the server."""
        code = JobCode(("jobs", "app.rules"), (os.getcwd(),), (), (), ())
        words = server_words(code, "unix:/a/s", "unix:/a/c", 8080)
        options = Options()
        options.parseOptions(words[words.index("dangad") + 1 :])
        self.assertEqual(options["jobs"], ["jobs", "app.rules"])
        self.assertEqual(options["worker-path"], [os.getcwd()])
        self.assertEqual((options["listen"], options["control"]), (["unix:/a/s"], "unix:/a/c"))
        self.assertEqual(options["drain"], 0)
        self.assertEqual(options["web"], "tcp:8080:interface=127.0.0.1")


class PortTests(SynchronousTestCase):
    def test_held(self) -> None:
        """A port is kept for the servers that come one after the other, and for nobody else."""
        with hold_port() as held:
            where = held.getsockname()
            with socket.socket() as other, self.assertRaises(OSError):
                other.bind(where)
            for _ in range(2):
                server = reactor.listenTCP(where[1], ServerFactory(), interface=where[0])
                self.assertEqual(server.getHost().port, where[1])
                server.connectionLost(Failure(ConnectionDone()))  # at once


class FolderTests(SynchronousTestCase):
    def test_name(self) -> None:
        """The folder is for one user alone, and has the same name when it is made again."""
        folder = SocketFolder()
        folder.remove()
        path = folder.make()
        self.addCleanup(folder.remove)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o700)
        folder.remove()
        self.assertFalse(os.path.exists(path))
        self.assertEqual(folder.make(), path)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o700)

    def test_long_path(self) -> None:
        """Where temporary files have a long path, sockets are elsewhere."""
        near = os.path.join(tempfile.mkdtemp(), "x" * 100)
        self.addCleanup(shutil.rmtree, os.path.dirname(near))
        os.mkdir(near)
        self.patch(tempfile, "tempdir", near)
        folder = SocketFolder()
        self.addCleanup(folder.remove)
        self.assertLess(len(folder.make()), devserver.LONGEST_FOLDER)


class ProcessTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A server that says something."""
        self.said: list[str] = []
        self.ends: list[int] = []
        self.process = ServerProcess(self.said.append, self.ends.append)

    def test_lines(self) -> None:
        """Its output is told line by line, and what is left at its end."""
        for data in (b"on", b"e\ntwo\n\nthr\xff", b"ee"):
            self.process.childDataReceived(1, data)
        self.assertEqual(self.said, ["one", "two", ""])
        self.process.processEnded(Failure(ProcessDone(0)))
        self.assertEqual(self.said[3:], ["thr\\xffee"])

    def test_long_line(self) -> None:
        """A line without an end is told in pieces."""
        self.process.childDataReceived(1, b"x" * (MOST_LINE + 1))
        self.assertEqual([len(line) for line in self.said], [MOST_LINE + 1])

    def test_ends(self) -> None:
        """The status is as a shell has it."""
        for reason in (ProcessDone(0), ProcessTerminated(1), ProcessTerminated(None, 9)):
            self.process.processEnded(Failure(reason))
        self.assertEqual(self.ends, [0, 1, 137])
