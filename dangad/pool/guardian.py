"""The guardian: a small process that outlives the parent by a moment and kills what it left behind.

The kernel kills a worker whose parent dies (see :mod:`dangad.worker.child`). It does not kill the
processes that the worker's job has started. So the pool tells the guardian the process group of
each worker, over a pipe that only the parent holds. The pipe ends when the parent ends, for
whatever reason. Then the guardian kills the remaining groups, and every process that has left its
group but carries the workers' mark in its environment (see
:data:`dangad.host.descent.MARK_VARIABLE`), and exits.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger

from dangad.host.descent import MARK_VARIABLE
from dangad.pool.obituary import how_the_process_ended

if TYPE_CHECKING:
    from twisted.python.failure import Failure

log = Logger()

PROGRAM = """\
import os, signal, sys, time

def kill(pid, number, send=os.kill):
    try:
        send(pid, number)
    except OSError:
        pass

def left():
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            environment = open(f"/proc/{pid}/environ", "rb").read().split(b"\\0")
            if os.getpgid(pid) in groups or mark in environment:
                command = open(f"/proc/{pid}/cmdline", "rb").read()
                yield pid, not command or b"resource_tracker" in command
        except OSError:
            pass

os.setsid()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
mark = sys.argv[1].encode()
groups, rest = set(), b""
while data := os.read(0, 65536):
    *lines, rest = (rest + data).split(b"\\n")
    for line in lines:
        (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
if sys.platform == "linux" and os.path.isdir("/proc/self"):
    for group in groups:
        kill(group, signal.SIGSTOP, os.killpg)
    end = time.monotonic() + 0.5
    while processes := list(left()):
        over = time.monotonic() > end
        for pid, is_tracker in processes:
            kill(pid, signal.SIGCONT if is_tracker and not over else signal.SIGKILL)
        if over:
            break
        time.sleep(0.005)
for group in groups:
    kill(group, signal.SIGKILL, os.killpg)
"""
"""The guardian's program: it imports four modules of the standard library, and nothing of dangad.

A resource tracker (see :mod:`multiprocessing.shared_memory`) has half a second to remove the
shared memory of the processes that are killed.
"""

STOP_TIME = 2.0
"""Seconds in which the guardian must exit by itself when the server stops."""
RESTART_DELAY = 1.0
"""Seconds before a killed guardian is replaced; after each failed start they double."""
LONGEST_DELAY = 30.0
"""The most seconds before a killed guardian is replaced."""


class Guardian(ProcessProtocol):
    """The parent's end of the guardian. A guardian that dies before `stop` is replaced."""

    transport: Any

    def __init__(self, reactor: Any, mark: str = "") -> None:
        """Start no process yet.

        :param mark: the mark of this server's workers; without one, only groups are killed.
        """
        self._reactor = reactor
        self._mark = f"{MARK_VARIABLE}={mark}" if mark else "no mark"
        #: The process groups to kill if the parent dies.
        self._groups: set[int] = set()
        #: Whether there is a guardian process to tell.
        self._running = False
        #: The call that replaces a dead guardian; None if none is due.
        self._restart: Any = None
        #: The seconds until the next such call.
        self._delay = RESTART_DELAY
        #: The call that kills a guardian which does not stop in time; None if none is due.
        self._kill: Any = None
        #: Fires when the stopped guardian is gone; None before `stop`.
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Start the process.

        :raises OSError: the system has no room for another one.
        """
        self._reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, "-I", "-S", "-c", PROGRAM, self._mark, "dangad-guardian"],
            env={},
            childFDs={0: "w", 1: "r", 2: "r"},
        )

    def stop(self) -> Deferred[None]:
        """Stop the guardian, which kills the remaining groups; fires when it is gone."""
        self._stopped = Deferred()
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._running:
            self.transport.closeStdin()
            self._kill = self._reactor.callLater(STOP_TIME, self.transport.signalProcess, "KILL")
        else:
            self._stopped.callback(None)
        return self._stopped

    def watch(self, group: int) -> None:
        """Let the guardian kill the process group `group` if the parent dies."""
        self._groups.add(group)
        self._tell(b"+%d\n" % group)

    def forget(self, group: int) -> None:
        """Note that the process group `group` is gone."""
        self._groups.discard(group)
        self._tell(b"-%d\n" % group)

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is none."""
        return self.transport.pid if self._running else None

    # The process's calls.

    def connectionMade(self) -> None:
        """Tell the new guardian the groups."""
        self._running = True
        self._delay = RESTART_DELAY
        for group in self._groups:
            self._tell(b"+%d\n" % group)

    def processExited(self, reason: Failure) -> None:
        """Replace the process, unless it was stopped.

        The pipes are closed here: another process may hold the other end and keep them open.
        """
        self._running = False
        for fd in list(self.transport.pipes):
            self.transport.closeChildFD(fd)
        if self._kill is not None and self._kill.active():
            self._kill.cancel()
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        log.warn("the guardian {how}, and is replaced", how=how_the_process_ended(reason))
        self._restart = self._reactor.callLater(self._delay, self._start_again)

    def _start_again(self) -> None:
        """Replace the process, now or later."""
        self._restart = None
        try:
            self.start()
        except Exception as error:  # noqa: BLE001 - without a guardian the rest goes on
            self._delay = min(2 * self._delay, LONGEST_DELAY)
            log.warn(
                "no guardian can be started, and the next try is in {delay:g} s: {error}",
                delay=self._delay,
                error=str(error),
            )
            self._restart = self._reactor.callLater(self._delay, self._start_again)

    def _tell(self, line: bytes) -> None:
        if self._running:
            self.transport.write(line)
