"""A worker that the template forks, as a Twisted process.

Made by :mod:`dangad.pool.processes`, which can so treat all workers alike. The pipes exist at once.
The process has an id as soon as :mod:`dangad.pool.template` has forked it. A kill before that
cancels the fork.
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
    """Forks workers; see :class:`dangad.pool.template.Template`."""

    def fork(self, process: ForkedProcess, descriptors: Sequence[int]) -> None:
        """Fork `process` soon, with the descriptors, which stay open until then."""

    def forget(self, process: ForkedProcess) -> None:
        """Do not fork `process`; if it is too late for this, kill it."""


class Forked(Protocol):
    """Twisted's protocol of a process, which also hears of the fork."""

    def makeConnection(self, process: ForkedProcess) -> object:
        """The pipes of `process` exist now."""

    def forked(self, pid: int) -> object:
        """The process exists now."""


class ForkedProcess(Process):
    """Twisted's process, except for its birth: the template makes it, and tells its id later."""

    pipes: dict[Any, Any]

    def __init__(self, reactor: Any, protocol: Forked, forks: Forks) -> None:
        """Make the pipes, and order the fork.

        :raises OSError: there is no room for the pipes, or the fork cannot be ordered.
        """
        _BaseProcess.__init__(self, cast("Any", protocol))
        self._reactor = reactor
        self._forks = forks
        self._worker = protocol
        #: Why it was not forked; None if it was forked, or may still be.
        self._not_forked: str | None = None
        self.pipes = {}
        ours: dict[int, int] = {}
        #: The worker's ends of its pipes, until the worker has them.
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
        """Note that the process was forked; it may already be dead."""
        self._close_theirs()
        self.pid = pid
        self._worker.forked(pid)
        self.reapProcess()
        if self.pid is not None:
            registerReapProcessHandler(pid, self)

    def not_forked(self, reason: str) -> None:
        """End the process, which will not be forked; the words of `reason` follow "the worker"."""
        self._not_forked = reason
        self._end(_FAILED)

    def signalProcess(self, signalID: str | int) -> None:
        """Send the process a signal. Before the fork only a kill counts: it cancels the fork.

        :raises ProcessExitedAlready: the process is gone, or does not exist yet.
        """
        if self.pid is not None:
            super().signalProcess(signalID)
        elif self.lostProcess or signalID not in ("KILL", _KILLED):
            raise ProcessExitedAlready
        else:
            self._forks.forget(self)
            self._reactor.callLater(0, self._end, _KILLED)

    def _end(self, status: int) -> None:
        """Report the end of a process that never existed."""
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
