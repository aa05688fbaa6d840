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
from functools import partial
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from dangad.worker.processstate import NotReusable, ProcessState
from tests.realserver import PATIENCE

PRELUDE = """
import asyncio, os, subprocess
from dangad.worker.loops import current_loop
from dangad.worker.processstate import ProcessState

async def nothing():
    pass
"""


def variables() -> tuple[type, str | None, str]:
    """Those of this process, and of programs that it starts."""
    with os.popen('echo "$ODD $NEW"') as output:
        return type(os.environ), os.environ.get("PATH"), output.read()


def change_variables() -> None:
    """Set, change and delete some."""
    os.environ["ODD"] = "after"
    os.environ["NEW"] = "new"
    del os.environ["PATH"]


def mode_of_a_file() -> int:
    """That of one that is made, which the umask decides."""
    with tempfile.TemporaryDirectory() as folder:
        os.close(os.open(f"{folder}/file", os.O_CREAT | os.O_WRONLY, 0o666))
        return os.stat(f"{folder}/file").st_mode


def profile() -> None:
    """Set a timer that kills where its handler is missing."""
    signal.signal(signal.SIGPROF, lambda *_: None)
    signal.setitimer(signal.ITIMER_PROF, 600)


def has_timer(kind: int) -> bool:
    """Whether a timer runs."""
    return signal.getitimer(kind)[0] > 0


OTHER_LOCALE = "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C"
CHANGES: list[tuple[Callable[[], Any], Callable[[], Any], str]] = [
    (os.getcwd, lambda: os.chdir("/"), "the working directory"),
    (variables, change_variables, "the environment"),
    (variables, lambda: setattr(os, "environ", {"ODD": "after"}), "the environment"),
    *(
        (
            partial(signal.getsignal, number),
            partial(signal.signal, number, signal.SIG_IGN),
            "signal handlers",
        )
        for number in (signal.SIGINT, signal.SIGURG, signal.SIGCHLD, signal.SIGUSR2)
    ),
    (partial(has_timer, signal.ITIMER_REAL), lambda: signal.alarm(600), "the timer"),
    (partial(has_timer, signal.ITIMER_PROF), profile, "signal handlers"),
    (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
        "the signal mask",
    ),
    (mode_of_a_file, lambda: os.umask(0o777), "the umask"),
    (
        lambda: locale.setlocale(locale.LC_ALL),
        lambda: locale.setlocale(locale.LC_ALL, OTHER_LOCALE),
        "the locale",
    ),
    (sys.getrecursionlimit, lambda: sys.setrecursionlimit(100_000), "the recursion limit"),
    (
        lambda: (sys.stdin, sys.stdout, sys.stderr),
        lambda: setattr(sys, "stdout", None),
        "the standard streams",
    ),
    (
        socket.getdefaulttimeout,
        lambda: socket.setdefaulttimeout(1),
        "the default timeout of sockets",
    ),
    (gc.isenabled, gc.disable, "the garbage collector"),
    (sys.getswitchinterval, lambda: sys.setswitchinterval(0.5), "the switch interval"),
    (sys.getprofile, lambda: sys.setprofile(lambda *_: None), "the profile function"),
    (sys.gettrace, lambda: sys.settrace(lambda *_: None), "the trace function"),
]
"""What a job can change: how to look at it, how it is changed, and how it is named."""


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

    def test_put_back(self) -> None:
        """What a job changes is named, and is as it was for the next job."""
        for look, deed, name in CHANGES:
            with self.subTest(name):
                before = look()
                deed()
                self.assertNotEqual(look(), before)
                self.assertEqual(self.process_state.restore(), [name])
                self.assertEqual(look(), before)
                self.assertEqual(self.process_state.restore(), [])

    def test_several(self) -> None:
        """All that a job has changed is named."""
        os.chdir("/")
        os.umask(0o111)
        os.environ["ODD"] = "after"
        changed = ["the umask", "the environment", "the working directory"]
        self.assertEqual(self.process_state.restore(), changed)

    def test_removed_directory(self) -> None:
        """A job may remove the directory that it had changed to.

        If it removes the worker's own the worker is not reusable.
        """
        os.mkdir("inner")
        os.chdir("inner")
        os.rmdir("../inner")
        self.assertEqual(self.process_state.restore(), ["the working directory"])
        self.assertEqual(os.getcwd(), self.folder)
        shutil.rmtree(self.folder)
        with self.assertRaisesRegex(NotReusable, r"directory cannot be put back.*No such file"):
            self.process_state.restore()

    def test_timer_of_a_module(self) -> None:
        """An alarm that a job module set on import goes on."""
        signal.alarm(600)
        self.addCleanup(signal.alarm, 0)
        self.assertEqual(ProcessState().restore(), [])
        self.assertTrue(has_timer(signal.ITIMER_REAL))

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


LOOPS = {
    "none": """
process_state = ProcessState()
asyncio.run(nothing())
assert process_state.restore() == []
assert current_loop() == (None, None)
""",
    "of a module": """
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
process_state = ProcessState()
asyncio.run(nothing())
process_state.restore()
assert asyncio.get_event_loop() is loop
""",
    "of the reactor": """
process_state = ProcessState()
from twisted.internet import asyncioreactor
asyncioreactor.install(asyncio.new_event_loop())
for _ in range(2):
    asyncio.run(nothing())
    process_state.restore()
    from twisted.internet import reactor
    assert asyncio.get_event_loop() is reactor._asyncioEventloop
""",
}
"""What is asyncio's current loop after a job that has run one of its own.

It is none, as in a new process; the one of a job module; or that of asyncio's reactor, which a job
has installed for all.
"""

GROUP = """
os.setpgid(0, 0)
process_state = ProcessState()
other = subprocess.Popen(["sleep", "600"], process_group=0)
os.setpgid(0, other.pid)
assert process_state.restore() == ["the process group"]
assert os.getpgrp() == os.getpid()
other.kill()
other.wait()
"""
"""A worker is signalled, and killed, with its process group: another that a job joins is left."""


@pytest.mark.parametrize("program", [*LOOPS.values(), GROUP], ids=[*LOOPS, "process group"])
def test_in_another_process(program: str) -> None:
    """What cannot be changed in this process is put back in one of its own."""
    command = [sys.executable, "-W", "ignore", "-c", PRELUDE + program]
    subprocess.run(command, check=True, timeout=PATIENCE)
