"""A worker that is not started by this process, but forked by the template, as a Twisted process.

Made by :mod:`dangad.pool.processes`, which so treats all workers alike. The pipes are there at
once. The process's id is known when :mod:`dangad.pool.template` has forked it: until then the
process has none, and to kill it means not to have it forked.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.process import (
    Process,
    ProcessReader,
    ProcessWriter,
    _BaseProcess,
    registerReapProcessHandler,
)

from dangad.pool.obituary import NotForked

if TYPE_CHECKING:
    from collections.abc import Sequence


WRITES = {0: True, 1: False, 2: False, 3: True, 4: False}
"""The worker's descriptors, as ampoule numbers them, and whether the parent writes to each."""
_KILLED = 9
_FAILED = 256
"""Statuses as wait(2) would give them: killed by SIGKILL, and exited with 1."""


class Forks(Protocol):
    """Whoever forks; see :class:`dangad.pool.template.Template`."""

    def fork(self, process: ForkedProcess, descriptors: Sequence[int]) -> None:
        """Have `process` forked soon, with the descriptors, which stay open until it is."""

    def forget(self, process: ForkedProcess) -> None:
        """Do not have it forked, or have it killed if it is too late for that."""


class Forked(Protocol):
    """Twisted's protocol of a process, which is told of its birth, too."""

    def makeConnection(self, process: ForkedProcess) -> object:
        """Its pipes are there."""

    def forked(self, pid: int) -> object:
        """It is there."""


class ForkedProcess(Process):
    """Twisted's process, but for its birth: the template makes it, and tells its id later."""

    pipes: dict[Any, Any]

    def __init__(self, reactor: Any, protocol: Forked, forks: Forks) -> None:
        """Make the pipes, and have it forked.

        :raises OSError: there is no room for the pipes, or the template cannot be told.
        """
        _BaseProcess.__init__(self, cast("Any", protocol))
        self._reactor = reactor
        self._forks = forks
        self._worker = protocol
        #: Why it was not forked; None if it was, or may be.
        self._not_forked: str | None = None
        self.pipes = {}
        ours: dict[int, int] = {}
        #: The worker's ends of its pipes, until it has them.
        self._theirs: dict[int, int] = {}
        try:
            for number, writes in WRITES.items():
                reading, writing = os.pipe()
                ours[number] = writing if writes else reading
                self._theirs[number] = reading if writes else writing
            forks.fork(self, list(self._theirs.values()))
        except BaseException:
            for fd in (*ours.values(), *self._theirs.values()):
                os.close(fd)
            raise
        for number, fd in ours.items():
            if WRITES[number]:
                self.pipes[number] = ProcessWriter(reactor, self, number, fd, forceReadHack=True)
            else:
                self.pipes[number] = ProcessReader(reactor, self, number, fd)
        protocol.makeConnection(self)

    def forked(self, pid: int) -> None:
        """It has been forked, and may be dead by now."""
        self._close_theirs()
        self.pid = pid
        self._worker.forked(pid)
        self.reapProcess()
        if self.pid is not None:
            registerReapProcessHandler(pid, self)

    def not_forked(self, reason: str) -> None:
        """It will not be, for a reason in words that follow "the worker"."""
        self._not_forked = reason
        self._end(_FAILED)

    def signalProcess(self, signalID: str | int) -> None:
        """Send it a signal. Before it is forked only a kill counts, and ends it at once.

        :raises ProcessExitedAlready: it is gone, or not there yet.
        """
        if self.pid is not None:
            super().signalProcess(signalID)
        elif self.lostProcess or signalID not in ("KILL", _KILLED):
            raise ProcessExitedAlready
        else:
            self._forks.forget(self)
            self._reactor.callLater(0, self._end, _KILLED)

    def _end(self, status: int) -> None:
        """It is gone without having been there."""
        self._close_theirs()
        if not self.lostProcess:
            self.processEnded(status)

    def _getReason(self, status: int) -> BaseException:
        """See Twisted's."""
        if self._not_forked is not None:
            return NotForked(self._not_forked)
        return super()._getReason(status)

    def _close_theirs(self) -> None:
        for fd in self._theirs.values():
            os.close(fd)
        self._theirs.clear()
