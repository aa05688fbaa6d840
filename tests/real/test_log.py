"""The log of ``twistd dangad``: its forms and levels, where twistd's options send it."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from tests.blockingpeer import BlockingPeer, code_of
from tests.real.test_twistd import TwistdCase
from tests.twistdserver import PATIENCE, wait_for

if TYPE_CHECKING:
    import subprocess

OPTIONS = ("--listen=unix:dangad.sock", "--min-workers=1", "--max-workers=1")
OWN = ("time", "level", "namespace", "text")
"""The keys that begin each object."""
HOSTILE = b"\x1b[2J\nforged\r\x00\x7f\xc2\x85\xe2\x80\xae\xff"
"""Bytes that would deceive the reader of a log."""
JOBS = """
import sys
from twisted.protocols import amp
import dangad

class Shout(amp.Command):
    arguments = [(b"text", amp.String())]
    response = [(b"text", amp.String())]
    errors = {}

@dangad.job(Shout)
def shout(text):
    sys.stdout.buffer.write(text + b"\\n")
    sys.stdout.flush()
    raise ValueError(text.decode("latin-1"))
"""


BLOCKING = """
import signal, time
from twisted.internet import reactor
from twisted.scripts.twistd import run

def block_everything():
    time.sleep(1.0)

signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(block_everything))
run()
"""
"""A program like twistd that is blocked by a signal."""
OWN_LOG = """
from twisted.logger import FileLogObserver

def make():
    return FileLogObserver(open("own", "w"), lambda event: f"own: {event['log_format']}\\n")
"""


def documents(text: str) -> list[dict[str, Any]]:
    """The objects of a log in JSON, one in each line."""
    lines = text.split("\n")
    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines)
    read = [json.loads(line) for line in lines]
    assert all(tuple(each)[:4] == OWN for each in read), text
    return read


class LogTests(TwistdCase):
    def ready(self, name: str = "log") -> bool:
        """Whether the log says that the server serves."""
        return "serves" in self.log(name)

    def peer(self) -> BlockingPeer:
        """A client, until the end of the test."""
        peer = BlockingPeer(str(self.folder / "dangad.sock"))
        self.addCleanup(peer.close)
        return peer

    def listens(self) -> bool:
        """Whether the server takes connections; for one whose log does not say so."""
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def foreground(self, *options: str) -> subprocess.Popen[str]:
        """A server whose log goes to its stdout."""
        server = self.start_program([*self.twistd, "-n", "dangad", *OPTIONS, *options])
        wait_for(lambda: self.ready() or server.poll() is not None)
        return server

    def end(self, server: subprocess.Popen[str]) -> None:
        """Stop the server in good order."""
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(PATIENCE), -signal.SIGTERM)

    def daemon(self, *options: str, twistd: tuple[str, ...] = ()) -> int:
        """A daemon's process id; it is killed at the end of the test."""
        done = self.run_twistd(*twistd, "dangad", *OPTIONS, *options)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        pid = int((self.folder / "twistd.pid").read_text())
        self.addCleanup(self.kill, pid)
        return pid

    @staticmethod
    def kill(pid: int) -> None:
        """Kill the process, if it is still there."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def test_json(self) -> None:
        """In the foreground every line is an object, from the first to the last."""
        server = self.foreground("--log-format=json", "--log-jobs=all")
        peer = self.peer()
        self.assertEqual(code_of(peer.answer(peer.ask(b"Echo", data=b"x"))), "ok")
        self.end(server)
        read = documents(self.log())
        about_jobs = [each for each in read if "job" in each]
        [*life, end] = [each for each in about_jobs if "joblog" in each["namespace"]]
        [worker] = self.ready_workers()
        named = {name: end[name] for name in ("job", "command", "worker", "state", "code")}
        self.assertEqual(
            named, {"job": 1, "command": "Echo", "worker": worker, "state": "done", "code": None}
        )
        self.assertGreater(end["runtime"], 0)
        self.assertEqual([each["job"] for each in life], [1, 1])
        self.assertIn(f"process {os.getpid()}", end["client"])
        self.assertEqual(read[-1]["text"], "Server Shut Down.")

    def test_daemon(self) -> None:
        """A daemon's file is in JSON, too; SIGUSR1 begins another one."""
        for twistd, name in (((), "twistd.log"), (("--logfile=other.log",), "other.log")):
            with self.subTest(name):
                pid = self.daemon("--log-format=json", "--control=unix:c", twistd=twistd)
                wait_for(lambda name=name: self.ready(name))
                os.kill(pid, signal.SIGUSR1)
                wait_for((self.folder / f"{name}.1").exists)
                os.kill(pid, signal.SIGTERM)
                wait_for(lambda name=name: "Server Shut Down" in self.log(name))
                before, after = documents(self.log(f"{name}.1")), documents(self.log(name))
                self.assertIn("starting up", before[1]["text"])
                self.assertIn("Received SIGTERM", after[0]["text"])
                wait_for(lambda: not (self.folder / "twistd.pid").exists())

    def test_text(self) -> None:
        """Without the option the log is in twistd's own form."""
        pid = self.daemon(twistd=("--logfile=a.log",))
        wait_for(lambda: self.ready("a.log"))
        for line in self.log("a.log").splitlines():
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[[\w.]+#info\] ")
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: "Server Shut Down" in self.log("a.log"))

    def test_level(self) -> None:
        """Less important lines are left out, in both forms; the server serves all the same."""
        for form in ("text", "json"):
            with self.subTest(form):
                words = [*self.twistd, "-n", "dangad", *OPTIONS]
                server = self.start_program([*words, "--log-level=warn", f"--log-format={form}"])
                wait_for(self.listens)
                peer = self.peer()
                self.assertEqual(code_of(peer.answer(peer.ask(b"Echo", data=b"x"))), "ok")
                server.send_signal(signal.SIGUSR2)
                wait_for(lambda: "SIGUSR2" in self.log())
                self.end(server)
                said = [line for line in self.log().splitlines() if "checking the job" not in line]
                self.assertEqual(len(said), 1, said)
                if form == "json":
                    self.assertEqual(documents(self.log())[0]["level"], "warn")

    def test_own_observer(self) -> None:
        """Twistd's own option names another log, which then gets everything."""
        (self.folder / "own_log.py").write_text(OWN_LOG)
        self.environment["PYTHONPATH"] += f":{self.folder}"
        words = [*self.twistd, "-n", "--logger=own_log.make", "dangad", *OPTIONS]
        server = self.start_program([*words, "--log-format=json", "--log-level=error"])
        wait_for(lambda: "own: dangad {version} serves" in self.log("own"))
        self.end(server)

    def test_stall(self) -> None:
        """What blocks the server's own process is logged, with its stack; then jobs go on."""
        self.twistd = [sys.executable, "-c", BLOCKING]
        server = self.foreground("--log-stalls=0.2", "--log-format=json", "--control=unix:c")
        server.send_signal(signal.SIGUSR1)
        wait_for(lambda: "the reactor was blocked" in self.log())
        peer = self.peer()
        self.assertEqual(code_of(peer.answer(peer.ask(b"Echo", data=b"x"))), "ok")
        self.end(server)
        stalls = [each for each in documents(self.log()) if "threshold" in each]
        [stall] = [each for each in stalls if " in block_everything" in each["text"]]
        self.assertEqual((stall["level"], stall["threshold"]), ("warn", 0.2))
        self.assertGreaterEqual(stall["seconds"], 1.0)

    def test_mistakes(self) -> None:
        """A word that is not valid, or missing, is told in one line."""
        for words, says in (
            (["--log-jobs"], "--log-jobs needs a value (whose end the log tells"),
            (["--log-jobs", "--force"], "--log-jobs --force: it must be one of none, failed, all"),
            (["--log-format=xml"], "--log-format xml: it must be one of text, json"),
            (["--log-level=loud"], "--log-level loud: it must be one of debug, info, warn"),
            (
                ["--log-stalls=-1"],
                "--log-stalls -1: not a number of seconds, 0, or 0.01 or more",
            ),
            (["--log-stalls=0.009"], "--log-stalls 0.009: not a number of seconds, 0, or 0.01"),
        ):
            done = self.run_twistd("-n", "dangad", *words)
            self.assertIn(f"twistd dangad: {says}", done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)
        done = self.run_twistd("--logfile=-", "dangad", *OPTIONS)
        self.assertIn("a daemon cannot log to its stdout; see --nodaemon", done.stderr)

    def test_hostile_peers(self) -> None:
        """What clients and jobs send controls no terminal, and forges no line, in both forms."""
        self.write_jobs("shouting", JOBS)
        self.environment["PYTHONPATH"] += f":{self.folder}"
        for form in ("text", "json"):
            with self.subTest(form):
                server = self.foreground(
                    "--jobs=shouting", "--log-jobs=all", f"--log-format={form}", "--control=unix:c"
                )
                peer = self.peer()
                for command in (HOSTILE, b"Shout"):
                    tag = peer.ask(command, text=HOSTILE)
                    self.assertNotEqual(code_of(peer.answer(tag)), "ok")
                self.ask(b"\xff" + HOSTILE)
                self.ask(b"\0\4_ask\0\0017\0\x08_command\0\x0e" + HOSTILE[:14] + b"\0\0", "c")
                wait_for(lambda: "shout" in self.log() and "forged" in self.log())
                self.end(server)
                for line in self.log().split("\n"):
                    self.assertTrue(line.lstrip("\t").isprintable(), line)
                    self.assertFalse(line.startswith("forged"))
                if form == "json":
                    documents(self.log())
