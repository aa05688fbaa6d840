"""A small process that outlives the parent by a moment, to see that nothing else does.

A worker whose parent dies is killed by the kernel (see :mod:`dangad.worker.child`), but not
what its job has started. So the pool tells the guardian of each worker's process group, over a
pipe that only the parent holds; when the pipe ends, however the parent did, the guardian kills
the groups that are left, and what has left them but still has the workers' mark in its
environment (see :data:`dangad.host.descent.MARK_VARIABLE`), and exits.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger

from dangad.host.descent import MARK_VARIABLE

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
"""What the guardian runs: no module but four of the standard library, and nothing of dangad.

A resource tracker has half a second to remove the shared memory of those that are killed.
"""

STOP_TIME = 2.0
"""Seconds in which a guardian that is not wanted any more must end by itself."""
RESTART_DELAY = 1.0
"""Seconds before a guardian that was killed is replaced."""


class Guardian(ProcessProtocol):
    """The parent's end of the guardian.

    All mutable state: `_groups` that are to be killed if the parent dies; `_running`, whether
    there is a guardian that can be told; `_stopped`, who waits for its end, once it is not
    wanted any more, and `_kill`, the end of the patience with that.
    """

    transport: Any

    def __init__(self, reactor: Any, mark: str = "") -> None:
        """Be ready to start it.

        :param mark: that of this server's workers; without one, only groups are killed.
        """
        self._reactor = reactor
        self._mark = f"{MARK_VARIABLE}={mark}" if mark else "no mark"
        self._groups: set[int] = set()
        self._running = False
        self._restart: Any = None
        self._kill: Any = None
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Start the process."""
        self._restart = None
        self._reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, "-I", "-S", "-c", PROGRAM, self._mark, "dangad-guardian"],
            env={},
            childFDs={0: "w", 1: "r", 2: "r"},
        )

    def stop(self) -> Deferred[None]:
        """End the guardian, which kills the groups that are left; fires when it is gone."""
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
        """Have the process group killed when the parent dies."""
        self._groups.add(group)
        self._tell(b"+%d\n" % group)

    def forget(self, group: int) -> None:
        """The process group is gone."""
        self._groups.discard(group)
        self._tell(b"-%d\n" % group)

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is none."""
        return self.transport.pid if self._running else None

    # The process's calls.

    def connectionMade(self) -> None:
        """Tell the new guardian what there is."""
        self._running = True
        for group in self._groups:
            self._tell(b"+%d\n" % group)

    def processExited(self, reason: Failure) -> None:
        """Replace it if it was wanted; somebody else may still hold its end of a pipe."""
        self._running = False
        for fd in list(self.transport.pipes):
            self.transport.closeChildFD(fd)
        if self._kill is not None and self._kill.active():
            self._kill.cancel()
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        log.warn("the guardian is gone, and is replaced: {reason}", reason=str(reason.value))
        self._restart = self._reactor.callLater(RESTART_DELAY, self.start)

    def _tell(self, line: bytes) -> None:
        if self._running:
            self.transport.write(line)
