"""Somebody sets the system's clock while the server runs: nothing that it does depends on it."""

import subprocess
import sys
import time
import unittest

from tests.blockingpeer import BlockingPeer, code_of
from tests.real.test_twistd import TwistdCase
from tests.twistdserver import PATIENCE, ROOT, wait_for

SHIFTED = """\
import time
real = time.time

def shifted():
    try:
        with open("shift") as file:
            return real() + float(file.read())
    except FileNotFoundError:
        return real()

time.time = shifted
from twisted.scripts.twistd import run
run()
"""
"""twistd in a process whose wall clock is off by as much as a file says."""

JOBS = """
import time
from twisted.protocols import amp
from dangad import job

class Limited(amp.Command):
    arguments = [(b"seconds", amp.Float())]

class Long(amp.Command):
    arguments = [(b"seconds", amp.Float())]

@job(Limited, time_limit=1)
def limited(seconds):
    print("begun")
    time.sleep(seconds)
    return {}

@job(Long)
def long(seconds):
    print("begun")
    time.sleep(seconds)
    return {}
"""


class SetClockTests(TwistdCase):
    """A server whose wall clock is set in the middle of its work."""

    twistd = [sys.executable, "-c", SHIFTED]

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start a server whose clock `shift` can set, and a peer."""
        self.write_jobs("timed", JOBS)
        process = self.start_twistd("--listen", "unix:dangad.sock", "--jobs", "timed", *options)
        self.peer = BlockingPeer(self.connect())
        return process

    def shift(self, seconds: float) -> None:
        """Set the server's wall clock forward, or back."""
        (self.folder / "shift.new").write_text(str(seconds))
        (self.folder / "shift.new").rename(self.folder / "shift")

    def begun(self, count: int) -> None:
        """Wait until so many jobs have begun."""
        wait_for(lambda: self.log().count(": begun") >= count)

    def test_forward(self) -> None:
        """Set forward by an hour: no limit and no deadline comes before its time."""
        self.start("--max-workers", "2", "--min-workers", "2")
        tags = [
            self.peer.ask(command, seconds=b"0.4", _deadline=b"600")
            for command in (b"Limited", b"Long")
        ]
        self.begun(2)
        self.shift(3600)
        self.assertEqual([code_of(self.peer.answer(tag)) for tag in tags], ["ok", "ok"])

    def test_back(self) -> None:
        """Set back by an hour: a time limit is kept, and so is a drain's; the log has the date."""
        process = self.start("--drain", "0.5")
        tag = self.peer.ask(b"Limited", seconds=b"600")
        self.begun(1)
        self.shift(-3600)
        self.assertEqual(code_of(self.peer.answer(tag)), "TIMED_OUT")
        tag = self.peer.ask(b"Long", seconds=b"600")
        self.begun(2)
        self.shift(-400 * 86400)
        process.terminate()
        self.assertEqual(code_of(self.peer.answer(tag)), "SHUTTING_DOWN")
        process.wait(PATIENCE)
        year = time.gmtime(time.time() - 400 * 86400).tm_year
        self.assertTrue(self.log().splitlines()[-1].startswith(f"{year}-"))


class PendingCallsTests(unittest.TestCase):
    """The reactor's clock is changed while calls wait."""

    def test_come_in_time(self) -> None:
        """They come in their order, when they were meant to, and so does one that was moved."""
        program = (
            "from twisted.internet import reactor\n"
            "from dangad.host.clock import use_steady_clock\n"
            "seen = []\n"
            "reactor.callLater(0.02, seen.append, 'second')\n"
            "moved = reactor.callLater(3600, seen.append, 'third')\n"
            "reactor.callLater(0.01, seen.append, 'first')\n"
            "reactor.callLater(3600, seen.append, 'never').cancel()\n"
            "use_steady_clock(reactor)\n"
            "moved.reset(0.03)\n"
            "reactor.callLater(0.04, reactor.stop)\n"
            "reactor.run()\n"
            "print(seen)\n"
        )
        outcome = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((outcome.stdout, outcome.stderr), ("['first', 'second', 'third']\n", ""))
