"""What a job took is its own: nothing of what an orphan, a neighbour or an earlier job took."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dangad.host.memory import memory_of
from dangad.host.reaping import Taken, reap
from tests.blockingpeer import code_of
from tests.twistdserver import TextServer, wait_for

MIB = 2**20
BUSY = 1.0
"""Seconds of CPU time that the daemon takes at least."""

LEAVES_DAEMON = """
import os, time
if not os.fork():
    os.setsid()
    if not os.fork():
        while time.process_time() < {busy}:
            pass
        with open({path!r}, "w") as file:
            file.write(str(os.getpid()))
        while True:
            pass
    os._exit(0)
while not os.path.exists({path!r}):
    time.sleep(0.01)
os._exit(3)
"""
"""A job that costs its worker, and leaves behind what has taken much time and goes on to do so."""
DIES_WHEN_TOLD = """
import os, time
open({path!r} + " begun", "w")
while not os.path.exists({path!r}):
    time.sleep(0.01)
os._exit(4)
"""


def recent(folder: str) -> list[dict[str, Any]]:
    """The jobs that ended last, as operators see them."""
    command = [sys.executable, "-m", "dangad.cli", "recent", "--json"]
    output = subprocess.run(
        [*command, f"--control=unix:{folder}/dangad.control"], check=True, stdout=subprocess.PIPE
    ).stdout
    jobs: list[dict[str, Any]] = json.loads(output)
    return jobs


def test_orphan() -> None:
    """The daemon of a job that is over is reaped while another runs, which is not charged."""
    with tempfile.TemporaryDirectory() as folder:
        server = TextServer(folder, workers=2)
        daemon, go = Path(folder, "daemon"), Path(folder, "go")
        with contextlib.closing(server.connect()) as peer:
            other = peer.ask(b"Python", code=DIES_WHEN_TOLD.format(path=str(go)).encode())
            wait_for(Path(f"{go} begun").exists)
            leaves = LEAVES_DAEMON.format(path=str(daemon), busy=BUSY).encode()
            assert code_of(peer.call(b"Python", code=leaves)) == "WORKER_LOST"
            wait_for(lambda: not os.path.exists(f"/proc/{daemon.read_text()}"))
            go.touch()
            assert code_of(peer.answer(other)) == "WORKER_LOST"
        for job in recent(folder):
            assert job["cpu"] < BUSY / 2, job
        server.stop()


def start(program: str) -> int:
    """Start a Python program; its process id."""
    return os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", program], os.environ)


def take(pid: int) -> Taken:
    """What the child took, which is reaped."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    found = reap(pid)
    assert found is not None
    return found[1]


class ReapingTests(SynchronousTestCase):
    """What is known of a child that is reaped."""

    def test_its_own(self) -> None:
        """Of two children that have died at once, each has taken what it has."""
        large = memory_of(os.getpid()).peak + 100 * MIB
        busy = start("import time\nwhile time.process_time() < 2: pass")
        full = start(f"x = bytearray({large}); x[::4096] = x[::4096]")
        for pid in (busy, full):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        of_busy, of_full = take(busy), take(full)
        self.assertGreaterEqual(of_busy.cpu, 2_000_000)
        self.assertLess(of_full.cpu, 2_000_000)
        self.assertEqual(of_busy.peak_memory, 0)
        self.assertGreater(of_full.peak_memory, large)

    def test_its_children(self) -> None:
        """With what a child took counts what was taken by those for which it has waited."""
        burn = "import time\nwhile time.process_time() < 0.3: pass"
        pid = start(f"import os\nif not os.fork():\n    exec({burn!r})\n    os._exit(0)\nos.wait()")
        self.assertGreaterEqual(take(pid).cpu, 300_000)

    def test_alive(self) -> None:
        """A child that lives is left alone, and its status is known once it is dead."""
        reading, writing = os.pipe()
        os.set_inheritable(reading, True)
        pid = start(f"import os\nos.read({reading}, 1)\nos._exit(3)")
        self.assertIsNone(reap(pid))
        os.close(writing)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        found = reap(pid)
        assert found is not None
        self.assertEqual(os.waitstatus_to_exitcode(found[0]), 3)
        self.assertRaises(ChildProcessError, reap, pid)
        os.close(reading)
