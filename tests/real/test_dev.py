"""``dangad dev``: what a developer sees, and that nothing is left however it ends."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from dangad.cli.filewatch import notices
from tests.realserver import alive
from tests.twistdserver import PATIENCE, wait_for

JOBS = '''\
from twisted.protocols import amp

import dangad
import rules


class Add(amp.Command):
    """Add two numbers."""

    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"sum", amp.Integer())]


@dangad.job(Add)
def add(a, b):
    print("adding", a, b)
    return {"sum": rules.add(a, b)}
'''
RULES = "def add(a, b):\n    return a + b\n"
WAIT = '''

class Wait(amp.Command):
    """Wait for ever."""


@dangad.job(Wait)
def wait():
    import subprocess
    subprocess.run(["sleep", "1000"])
'''
PROGRAM = (sys.executable, "-m", "dangad")


class Dev:
    """``dangad dev`` in a folder, with what it says."""

    def __init__(self, folder: str, *words: str, terminal: bool = False, where: str = "") -> None:
        """Start it.

        :param where: the working directory, from `folder`.
        """
        self.folder = folder
        #: By which its processes are found.
        self.mark = os.urandom(8).hex()
        self.said = ""
        reading, writing = pty.openpty() if terminal else os.pipe()
        temporary = Path(folder, "tmp")
        temporary.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "TMPDIR": str(temporary),
            "TERM": "xterm",
            "DEV_MARK": self.mark,
        }
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [*PROGRAM, "dev", *words],
            cwd=os.path.join(folder, where),
            env=environment,
            stdin=writing if terminal else subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=terminal,
            preexec_fn=_own_terminal if terminal else None,
        )
        os.close(writing)
        self._reading = reading
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._reading, 4096)
            except OSError:  # a terminal that nobody has open any more
                return
            if not data:
                return
            self.said += data.decode().replace("\r\n", "\n")

    def wait_for(self, pattern: str, times: int = 1) -> re.Match[str]:
        """What matches, once it was said so often."""

        def found() -> re.Match[str] | None:
            matches = list(re.finditer(pattern, self.said, re.MULTILINE))
            assert self.process.poll() is None or len(matches) >= times, self.said
            return matches[times - 1] if len(matches) >= times else None

        try:
            match: re.Match[str] = wait_for(found, pattern)
        except AssertionError:
            raise AssertionError(f"no {pattern!r} in: {self.said}") from None
        return match

    def type(self, data: bytes) -> None:
        """Type into its terminal."""
        os.write(self._reading, data)

    def call(self, command: str, **values: Any) -> str:
        """What a call answers, made by the line that was shown."""
        line = self.wait_for(rf"^ *(?:\x1b\[1m)?(\S+ -m dangad call .* {command}\b[^\x1b\n]*)")[1]
        words = [word for word in shlex.split(line) if word.partition("=")[0] not in values]
        words += [f"{key}={value}" for key, value in values.items()]
        done = subprocess.run(
            words,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout.strip()

    def end(self) -> int:
        """Its exit status, after its end."""
        status = self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        return status

    def stop(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.end()
        wait_for(lambda: not self.processes(), "the end of all processes")
        os.close(self._reading)

    def processes(self) -> list[int]:
        """Its processes, and those of its server."""
        mark = f"DEV_MARK={self.mark}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                marked = mark in (path / "environ").read_bytes().split(b"\0")
            except OSError:  # it ended while we looked
                continue
            if marked and alive(int(path.name)):
                found.append(int(path.name))
        return found

    def sockets(self) -> list[str]:
        """The folders of its sockets."""
        return os.listdir(Path(self.folder, "tmp"))


def _own_terminal() -> None:
    """Make the terminal on the standard input the process's own, so that Ctrl-C reaches it."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class DevTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Write a file with jobs, and one that it imports."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = os.path.realpath(folder.name)
        self.write("jobs.py", JOBS)
        self.write("rules.py", RULES)

    def write(self, name: str, text: str) -> None:
        """Write a file of the developer's."""
        Path(self.folder, name).write_text(text)

    def start(self, *words: str, terminal: bool = False, where: str = "") -> Dev:
        """A running ``dangad dev``, which ends with the test."""
        dev = Dev(self.folder, *words, terminal=terminal, where=where)
        self.addCleanup(dev.stop)
        return dev

    def assert_nothing_left(self, dev: Dev) -> None:
        """All processes and sockets are gone."""
        wait_for(lambda: not dev.processes(), "the end of all processes")
        wait_for(lambda: not dev.sockets(), "the removal of the sockets")

    def test_first_minutes(self) -> None:
        """A job is called by the shown line; what is saved is served; mistakes are told."""
        dev = self.start("jobs.py")
        dev.wait_for(r"not for production: .* twistd dangad --jobs jobs$")
        self.assertEqual(dev.call("Add"), "sum  5")
        job = dev.wait_for(r"^\d\d:\d\d:\d\d  job (\d+) Add done in .* m?s$")[1]
        shown = re.findall(rf"  job {job} (.*)", dev.said)
        self.assertEqual(shown[:2], ["Add started", "| adding 2 3"])

        # What the file imports is changed, too.
        self.write("rules.py", "def add(a, b):\n    return a * b\n")
        dev.wait_for(r"rules\.py changed: reloading")
        dev.wait_for(r"  reloaded$")
        self.assertEqual(dev.call("Add"), "sum  6")

        self.write("rules.py", "def add(a, b:\n")
        dev.wait_for(r"not reloaded: SyntaxError")
        dev.wait_for(r"\| .*rules\.py\", line 1$")
        dev.wait_for(r"the old code goes on")
        self.assertEqual(dev.call("Add"), "sum  6")

        self.write("rules.py", "def add(a, b):\n    return a // (b - 3)\n")
        dev.wait_for(r"  reloaded$", times=2)
        self.assertIn("ZeroDivisionError", dev.call("Add"))
        dev.wait_for(r"job \d+ Add failed in .*: JOB_FAILED: ZeroDivisionError")
        dev.wait_for(r"job \d+ \|     return a // \(b - 3\)$")

        self.write("jobs.py", JOBS + WAIT)
        dev.wait_for(r"  reloaded$", times=3)
        dev.wait_for(r"  new:\n *.* -m dangad call .* Wait$")

        dev.process.send_signal(signal.SIGINT)
        self.assertEqual(dev.end(), -signal.SIGINT, dev.said)
        self.assert_nothing_left(dev)
        self.assertNotIn("\x1b", dev.said)

    def test_directory_gone(self) -> None:
        """In a working directory that was removed, a change is told, and why it is not served."""
        os.mkdir(os.path.join(self.folder, "gone"))
        dev = self.start("../jobs.py", where="gone")
        self.assertEqual(dev.call("Add"), "sum  5")
        os.rmdir(os.path.join(self.folder, "gone"))
        self.write("rules.py", "def add(a, b):\n    return a * b\n")
        dev.wait_for(r"rules\.py changed: reloading")
        dev.wait_for(r"not reloaded: .*/gone cannot be used: No such file or directory$")

    def test_page(self) -> None:
        """The page is at the shown address, and has the job types."""
        dev = self.start("jobs.py")
        address = dev.wait_for(r"to see and call jobs: (http://127\.0\.0\.1:\d+/)$")[1]
        dev.wait_for(r"m dangad call .* Add ")
        with urllib.request.urlopen(address, timeout=PATIENCE) as page:
            self.assertIn("Add", page.read().decode())

    def test_broken_at_first(self) -> None:
        """A file that cannot be imported is served as soon as it can; Ctrl-C ends the wait, too."""
        self.write("jobs.py", "import nonsuch\n")
        dev = self.start("jobs.py")
        dev.wait_for(r"not served; waiting for a change")
        self.assertIn("import nonsuch\n", dev.said)
        self.assertEqual(dev.sockets(), [])
        self.write("jobs.py", "import twisted\n")
        dev.wait_for(r"no job types: decorate a function")
        dev.wait_for(r"dangad dev --help")
        self.write("jobs.py", JOBS)
        self.assertEqual(dev.call("Add", a=20), "sum  23")

    def test_slow_import(self) -> None:
        """An import that takes long is told, at a start and at a reload, which Ctrl-C ends."""
        hanging = f"import time\n\ntime.sleep(1000)\n{JOBS}"
        self.write("jobs.py", hanging)
        first = self.start("jobs.py", terminal=True)
        first.wait_for(r"the job modules are being imported, for 3 s so far")
        first.type(b"\x03")
        first.end()
        self.write("jobs.py", JOBS)
        second = self.start("jobs.py", terminal=True)
        self.assertEqual(second.call("Add"), "sum  5")
        self.write("jobs.py", hanging)
        second.wait_for(r"the new code is being imported, for 3 s so far")
        second.type(b"\x03")
        self.assertEqual(second.end(), -signal.SIGINT, second.said)
        self.assertNotIn("the old code goes on", second.said)
        self.assert_nothing_left(second)

    def test_interrupted(self) -> None:
        """On a terminal lines have colours; Ctrl-C ends everything, and running jobs."""
        self.write("jobs.py", JOBS + WAIT)
        dev = self.start("jobs.py", terminal=True)
        self.assertEqual(dev.call("Add"), "sum  5")
        dev.wait_for(r"\x1b\[32mdone\x1b\[0m")
        caller = threading.Thread(target=dev.call, args=("Wait",))
        caller.start()
        self.addCleanup(caller.join)
        dev.wait_for(r"Wait \x1b\[2mstarted")
        dev.type(b"\x03")
        self.assertEqual(dev.end(), -signal.SIGINT, dev.said)
        self.assert_nothing_left(dev)

    def test_killed(self) -> None:
        """If it is killed, the server ends, and the sockets are removed; so, if the keeper is."""
        dev = self.start("jobs.py")
        self.assertEqual(dev.call("Add"), "sum  5")
        dev.process.kill()
        dev.end()
        self.assert_nothing_left(dev)

    def test_server_killed(self) -> None:
        """If the server dies, this is told, and a change starts it again at the same address."""
        dev = self.start("jobs.py")
        self.assertEqual(dev.call("Add"), "sum  5")
        for pid in self.twistds(dev):
            os.kill(pid, signal.SIGKILL)
        dev.wait_for(r"the server was killed by SIGKILL; a change")
        self.write("rules.py", RULES + "\n")
        dev.wait_for(r"another terminal", times=2)
        self.assertEqual(dev.call("Add"), "sum  5")  # by the first line

    def twistds(self, dev: Dev) -> list[int]:
        """The servers of `dev`: the children of its keepers."""
        keepers = [
            pid
            for pid in dev.processes()
            if b"dangad.host.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        self.assertEqual(len(keepers), 1)
        children = Path(f"/proc/{keepers[0]}/task/{keepers[0]}/children").read_text()
        return [int(pid) for pid in children.split()]

    def test_keeper_killed(self) -> None:
        """If the process between them is killed, the server ends, and nothing else is left."""
        dev = self.start("jobs.py")
        self.assertEqual(dev.call("Add"), "sum  5")
        [server] = self.twistds(dev)
        status = Path(f"/proc/{server}/status").read_text()
        os.kill(int(re.search(r"PPid:\s+(\d+)", status)[1]), signal.SIGKILL)  # type: ignore[index]
        dev.wait_for(r"the server was killed by SIGKILL")
        dev.process.terminate()
        self.assertEqual(dev.end(), -signal.SIGTERM)
        self.assert_nothing_left(dev)

    def test_two(self) -> None:
        """A second one beside the first is on its own; sockets can be at a known place."""
        first = self.start("jobs.py")
        second = self.start("jobs", "--listen", "here.sock", "--control", "unix:here.control")
        self.assertEqual((first.call("Add"), second.call("Add")), ("sum  5", "sum  5"))
        self.assertIn(f"--connect {self.folder}/here.sock Add", second.said)
        done = subprocess.run(
            [*PROGRAM, "status", "--control", f"{self.folder}/here.control"],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertIn("uptime", done.stdout)

    def test_place_taken(self) -> None:
        """A server that cannot start for another reason ends the command, with one line."""
        dev = self.start("jobs.py", "--listen", "/nonexistent/dangad.sock")
        self.assertEqual(dev.end(), 1)
        self.assertRegex(dev.said, r"dangad: the server does not start: .*/nonexistent")
        self.assert_nothing_left(dev)

    def test_reader_leaves(self) -> None:
        """Without a reader of its lines it ends, and leaves nothing."""
        dev = Dev(self.folder, "jobs.py")
        dev.wait_for(r"^ *.* -m dangad call .* Add ")
        process = subprocess.Popen(
            f"{shlex.join(PROGRAM)} dev jobs.py | head -1",
            shell=True,
            cwd=self.folder,
            env={**os.environ, "DEV_MARK": dev.mark, "TMPDIR": f"{self.folder}/tmp"},
            stdout=subprocess.DEVNULL,
        )
        dev.stop()
        self.assertEqual(process.wait(PATIENCE), 0)
        self.assert_nothing_left(dev)


class NoticesTests(SynchronousTestCase):
    def test_kernel(self) -> None:
        """With `watchfiles`, the kernel tells of a change of a Python file."""
        if find_spec("watchfiles") is None:
            raise SkipTest("the extra dangad[dev] is not installed")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        told = threading.Event()

        class Reactor:
            """Takes calls from threads."""

            def callFromThread(self, call: Any) -> None:
                """Note it."""
                told.set()

        found = notices(Reactor())
        assert found is not None
        found.watch([folder.name])
        assert found.thread is not None
        self.addCleanup(found.thread.join)
        self.addCleanup(found.stop)
        jobs = Path(folder.name, "jobs.py")
        wait_for(lambda: jobs.write_text(os.urandom(8).hex()) and told.wait(0.1), "a notice")
        self.assertTrue(found.works)
