"""What a job may change in its process, and that the next job does not see it."""

import gc
import locale
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dangad.worker.processstate import NotReusable, ProcessState
from tests.realserver import PATIENCE

LOOP_PRELUDE = """
import asyncio
from dangad.worker.loops import current_loop
from dangad.worker.processstate import ProcessState

async def nothing():
    pass
"""


class ProcessStateTests(SynchronousTestCase):
    """Plays a job that changes the process, which is the one that the test runs in."""

    def setUp(self) -> None:
        """Be a worker that has imported its job modules, in a folder of its own."""
        before = ProcessState()
        self.addCleanup(before.restore)
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        os.chdir(self.folder)
        os.environ["ODD"] = "before"
        self.process_state = ProcessState()

    def check(self, look: Callable[[], Any], deed: Callable[[], Any], name: str) -> None:
        """What the deed changes is named, and is as it was when looked at again."""
        before = look()
        deed()
        self.assertNotEqual(look(), before)
        self.assertEqual(self.process_state.restore(), [name])
        self.assertEqual(look(), before)
        self.assertEqual(self.process_state.restore(), [])

    def test_nothing(self) -> None:
        """A job that changes nothing is not said to have changed anything."""
        self.assertEqual(self.process_state.restore(), [])

    def test_directory(self) -> None:
        """The working directory is put back."""
        self.check(os.getcwd, lambda: os.chdir("/"), "the working directory")

    def test_removed_directory(self) -> None:
        """It is so when the job removed the directory that it had changed to."""

        def deed() -> None:
            os.mkdir("inner")
            os.chdir("inner")
            os.rmdir("../inner")

        deed()
        self.assertEqual(self.process_state.restore(), ["the working directory"])
        self.assertEqual(os.getcwd(), self.folder)

    def test_no_way_back(self) -> None:
        """A worker whose own directory the job has removed is not reusable."""
        shutil.rmtree(self.folder)
        with self.assertRaises(NotReusable) as caught:
            self.process_state.restore()
        self.assertIn("the working directory cannot be put back", str(caught.exception))
        self.assertIn("No such file", str(caught.exception))

    def test_environment(self) -> None:
        """Variables that were set, changed and deleted are as they were, for programs too."""

        def look() -> tuple[dict[str, str], str]:
            with os.popen('echo "$ODD $NEW"') as output:
                return dict(os.environ), output.read()

        def deed() -> None:
            os.environ["ODD"] = "after"
            os.environ["NEW"] = "new"
            del os.environ["PATH"]

        self.check(look, deed, "the environment")

    def test_replaced_environment(self) -> None:
        """A dict in the place of ``os.environ`` does not stay there."""
        deed: Any = lambda: setattr(os, "environ", {"ODD": "after"})  # noqa: E731
        self.check(lambda: (type(os.environ), os.environ["ODD"]), deed, "the environment")

    def test_handlers(self) -> None:
        """Signal handlers are put back, whichever signal they were for."""
        for number in (signal.SIGINT, signal.SIGURG, signal.SIGCHLD, signal.SIGUSR2):
            self.check(
                lambda number=number: signal.getsignal(number),  # type: ignore[misc]
                lambda number=number: signal.signal(number, signal.SIG_IGN),  # type: ignore[misc]
                "signal handlers",
            )

    def test_timer(self) -> None:
        """An alarm that the job has set does not hit the next job."""
        self.check(
            lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0,
            lambda: signal.alarm(600),
            "the timer",
        )

    def test_timer_of_a_module(self) -> None:
        """One that a job module set on import goes on."""
        signal.alarm(600)
        self.addCleanup(signal.alarm, 0)
        self.assertEqual(ProcessState().restore(), [])
        self.assertTrue(signal.getitimer(signal.ITIMER_REAL)[0])

    def test_profiling_timer(self) -> None:
        """A timer whose handler goes is stopped, for without the handler it would kill."""

        def deed() -> None:
            signal.signal(signal.SIGPROF, lambda *_: None)
            signal.setitimer(signal.ITIMER_PROF, 600)

        self.check(lambda: signal.getitimer(signal.ITIMER_PROF)[0] > 0, deed, "signal handlers")

    def test_mask(self) -> None:
        """Signals that the job has blocked come through again."""
        self.check(
            lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
            "the signal mask",
        )

    def test_blocked_signals_that_came(self) -> None:
        """Those that came meanwhile kill nobody; they reach the handler, if there is one."""
        came: list[int] = []
        usual = signal.signal(signal.SIGURG, lambda number, _: came.append(number))
        self.addCleanup(signal.signal, signal.SIGURG, usual)
        process_state = ProcessState()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGUSR2, signal.SIGURG})
        signal.signal(signal.SIGUSR2, lambda *_: None)
        for number in (signal.SIGALRM, signal.SIGUSR2, signal.SIGURG):
            signal.pthread_kill(threading.get_ident(), number)
        self.assertEqual(process_state.restore(), ["signal handlers", "the signal mask"])
        self.assertEqual(came, [signal.SIGURG])

    def test_umask(self) -> None:
        """The umask is put back."""

        def look() -> int:
            with tempfile.NamedTemporaryFile(dir=self.folder) as file:
                os.unlink(file.name)
                os.close(os.open(file.name, os.O_CREAT | os.O_WRONLY, 0o666))
                return os.stat(file.name).st_mode

        self.check(look, lambda: os.umask(0o777), "the umask")

    def test_locale(self) -> None:
        """The locale is put back."""
        before = locale.setlocale(locale.LC_ALL)
        other = "C.UTF-8" if before == "C" else "C"
        self.check(
            lambda: locale.setlocale(locale.LC_ALL),
            lambda: locale.setlocale(locale.LC_ALL, other),
            "the locale",
        )

    def test_recursion_limit(self) -> None:
        """The recursion limit is put back."""
        self.check(
            sys.getrecursionlimit, lambda: sys.setrecursionlimit(100_000), "the recursion limit"
        )

    def test_streams(self) -> None:
        """Objects that the job has put in the place of the standard streams go."""
        self.check(
            lambda: (sys.stdin, sys.stdout, sys.stderr),
            lambda: setattr(sys, "stdout", None),
            "the standard streams",
        )

    def test_smaller_things(self) -> None:
        """So do the default timeout of sockets, the collector's rest, and the switch interval."""
        self.check(
            socket.getdefaulttimeout,
            lambda: socket.setdefaulttimeout(1),
            "the default timeout of sockets",
        )
        self.check(gc.isenabled, gc.disable, "the garbage collector")
        self.check(sys.getswitchinterval, lambda: sys.setswitchinterval(0.5), "the switch interval")

    def test_trace_and_profile(self) -> None:
        """A debugger or profiler that a job has left on is taken off."""
        self.check(sys.getprofile, lambda: sys.setprofile(lambda *_: None), "the profile function")
        self.check(sys.gettrace, lambda: sys.settrace(lambda *_: None), "the trace function")

    def test_several(self) -> None:
        """All that a job has changed is named."""
        os.chdir("/")
        os.umask(0o111)
        os.environ["ODD"] = "after"
        self.assertEqual(
            self.process_state.restore(),
            ["the umask", "the environment", "the working directory"],
        )


class EventLoopTests(SynchronousTestCase):
    """asyncio's current loop, in processes of their own."""

    def check(self, program: str) -> None:
        """The program goes through, as a worker that has imported asyncio."""
        output = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", LOOP_PRELUDE + program],
            capture_output=True,
            check=False,
            text=True,
            timeout=PATIENCE,
        )
        self.assertEqual(output.stderr, "")

    def test_none(self) -> None:
        """After a job that has run a loop of its own, there is none, as in a new process."""
        self.check("""
process_state = ProcessState()
asyncio.run(nothing())
assert process_state.restore() == []
assert current_loop() == (None, None)
""")

    def test_of_a_module(self) -> None:
        """A loop that a job module has made the current one is it again."""
        self.check("""
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
process_state = ProcessState()
asyncio.run(nothing())
process_state.restore()
assert asyncio.get_event_loop() is loop
""")

    def test_of_the_reactor(self) -> None:
        """With a reactor of asyncio's, installed by a job, its loop is the one of all jobs."""
        self.check("""
process_state = ProcessState()
from twisted.internet import asyncioreactor
asyncioreactor.install(asyncio.new_event_loop())
asyncio.run(nothing())
process_state.restore()
from twisted.internet import reactor
assert asyncio.get_event_loop() is reactor._asyncioEventloop
asyncio.run(nothing())
process_state.restore()
assert asyncio.get_event_loop() is reactor._asyncioEventloop
""")


class ProcessGroupTests(SynchronousTestCase):
    """A worker is signalled, and killed, with its process group."""

    def test_another(self) -> None:
        """One that a job has joined is left again."""
        program = (
            "import os, subprocess\n"
            "from dangad.worker.processstate import ProcessState\n"
            "os.setpgid(0, 0)\n"
            "process_state = ProcessState()\n"
            "other = subprocess.Popen(['sleep', '600'], process_group=0)\n"
            "os.setpgid(0, other.pid)\n"
            "print(process_state.restore(), os.getpgrp() == os.getpid())\n"
            "other.kill()\n"
            "other.wait()\n"
        )
        output = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            check=True,
            text=True,
            timeout=PATIENCE,
        )
        self.assertEqual(output.stdout, "['the process group'] True\n")
