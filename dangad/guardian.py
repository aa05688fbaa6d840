"""A small process that outlives the parent by a moment, to see that nothing else does.

A worker whose parent dies is killed by the kernel (see :mod:`dangad.worker.child`), but not
what its job has started. So the pool tells the guardian of each worker's process group, over a
pipe that only the parent holds; when the pipe ends, however the parent did, the guardian kills
the groups that are left, and exits.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger

if TYPE_CHECKING:
    from twisted.python.failure import Failure

log = Logger()

PROGRAM = """\
import os, signal
os.setsid()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
groups, rest = set(), b""
while data := os.read(0, 65536):
    *lines, rest = (rest + data).split(b"\\n")
    for line in lines:
        (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""
"""What the guardian runs: no module but two of the standard library, and nothing of dangad."""

RESTART_DELAY = 1.0
"""Seconds before a guardian that was killed is replaced."""


class Guardian(ProcessProtocol):
    """The parent's end of the guardian.

    All mutable state: `_groups` that are to be killed if the parent dies; `_running`, whether
    there is a guardian that can be told; `_stopped`, who waits for its end, once it is not
    wanted any more.
    """

    transport: Any

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._groups: set[int] = set()
        self._running = False
        self._restart: Any = None
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Start the process."""
        self._restart = None
        self._reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, "-I", "-S", "-c", PROGRAM, "dangad-guardian"],
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

    def processEnded(self, reason: Failure) -> None:
        """Replace it if it was wanted."""
        self._running = False
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        log.warn("the guardian is gone, and is replaced: {reason}", reason=str(reason.value))
        self._restart = self._reactor.callLater(RESTART_DELAY, self.start)

    def _tell(self, line: bytes) -> None:
        if self._running:
            self.transport.write(line)
