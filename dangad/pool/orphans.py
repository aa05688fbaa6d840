"""Orphans: processes of jobs that outlive their worker, and how they are killed.

:mod:`dangad.pool.processes` first kills the process group of a dead worker, and the processes that
trace a worker. A daemon has left the process group. When its worker dies, it would become a child
of init; the parent adopts it instead, finds it and kills it. :mod:`dangad.service` asks for this
where the process is dangad's own.

The parent may adopt other processes, too: as the first process of a container it adopts every
background process there. So it kills only descendants of a worker (see
:func:`dangad.host.descent.descends_from_worker`).

Each worker adopts the orphans of its own jobs while it lives. Otherwise the background process of
a running job would be the parent's child at once, and look like an orphan.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from twisted.internet import task
from twisted.logger import Logger

from dangad.host.descent import (
    children,
    descends_from_worker,
    is_beginning,
    is_descendant,
    is_tracker,
    tracers,
)
from dangad.host.processcontrol import adopt_orphans

if TYPE_CHECKING:
    from collections.abc import Collection

    from twisted.internet.interfaces import IReactorTime

log = Logger()

_LAST_SWEEPS = 100
"""How many times the server looks for orphans when it stops."""
_LAST_INTERVAL = 0.01
"""Seconds between two searches for orphans when the server stops."""
TRACKER_TIME = 5.0
"""Seconds in which a resource tracker must have removed the shared memory of dead processes."""


def kill_group(group: int) -> None:
    """Kill a dead worker's process group, but leave a resource tracker in it to do its work.

    A process that may be about to become a resource tracker is left, too. A tracker exits when it
    has removed the shared memory of all the killed processes; if it does not, `Orphans` kills it.
    Trackers are recognised only where this process adopts orphans; elsewhere they are killed with
    the others.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGSTOP)  # from now on none of them starts another
        members = _members(group)
        trackers = {pid for pid in members if is_tracker(pid) or is_beginning(pid)}
        if not trackers:
            os.killpg(group, signal.SIGKILL)
        for pid in members - trackers:
            _signal(pid, signal.SIGKILL)
        for pid in trackers:
            _signal(pid, signal.SIGCONT)


def kill_tracers(worker: int, mark: str) -> tuple[set[int], set[int]]:
    """Kill the processes of jobs that trace a killed worker, see ptrace(2).

    The kernel reports the death of a traced process to its tracer first; the process stays until
    the tracer has reacted. Only processes that a job has started are killed, and their tracers in
    turn: an operator may look at a worker with a debugger.

    :param worker: the worker's process id.
    :param mark: the mark of the server's workers.
    :return: the ids of the tracers that were killed, and of the tracers that were not.
    """
    killed: set[int] = set()
    others: set[int] = set()
    unseen = tracers(worker)
    while unseen:
        pid = unseen.pop()
        is_ours = is_descendant(pid) or descends_from_worker(pid, mark)
        if is_ours and pid != os.getpid() and _signal(pid, signal.SIGKILL):
            killed.add(pid)
            unseen |= tracers(pid) - killed - others
        else:
            others.add(pid)
    return killed, others


def _members(group: int) -> set[int]:
    """The processes of the group that descend from this process through members of the group."""
    found: set[int] = set()
    unseen = _of_group(group, "self")
    while unseen:
        found |= unseen
        unseen = set().union(*(_of_group(group, pid) for pid in unseen)) - found
    return found


def _of_group(group: int, parent: int | str) -> set[int]:
    found = set()
    with contextlib.suppress(OSError):  # no descriptor is free for a look
        for pid in children(parent):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) == group:
                    found.add(pid)
    return found


class Orphans:
    """The children of this process that it did not start itself."""

    def __init__(self, mark: str) -> None:
        """:param mark: the server's mark, by which its workers' descendants are recognised."""
        self._mark = mark
        #: Whether orphans become children of this process.
        self._adopting = False
        #: The ids of the processes that were killed and are not reaped yet.
        self._dying: set[int] = set()
        #: The ids of resource trackers that may still exit by themselves, each with the time at
        #: which it was first seen.
        self._trackers: dict[int, float] = {}

    @property
    def dying(self) -> int:
        """How many orphans are dying: killed, or trackers that may exit by themselves."""
        return len(self._dying) + len(self._trackers)

    def adopt(self) -> None:
        """Become the parent of all orphans among this process's descendants.

        Where the system cannot do this, neither this method nor `sweep` has an effect.
        """
        self._adopting = adopt_orphans()

    def sweep(self, own: Collection[int]) -> list[int]:
        """Kill all orphans, reap the dead ones, and return the ids of those killed by this call.

        It does not wait for an orphan to die: a later call reaps it. The children of an orphan
        become children of this process when the orphan dies, so a later call kills them, too.
        Other adopted processes are reaped when they are dead, and left alone before.

        :param own: the children that this process has started and reaps elsewhere; neither they
            nor the members of the process groups that they lead are touched.
        """
        if not self._adopting:
            return []
        try:
            adopted = children().difference(own)
        except OSError:
            return []  # no descriptor was free for a look: a later call has one
        now = time.monotonic()
        self._dying = {pid for pid in self._dying & adopted if not _reap(pid)}
        self._trackers = {pid: since for pid, since in self._trackers.items() if pid in adopted}
        killed = []
        for pid in adopted - self._dying:
            with contextlib.suppress(ProcessLookupError):
                if _reap(pid):
                    self._trackers.pop(pid, None)
                elif (
                    os.getpgid(pid) not in own
                    and descends_from_worker(pid, self._mark)
                    and not self._may_tidy_up(pid, now)
                    and _signal(pid, signal.SIGKILL)
                ):
                    killed.append(pid)
        self._dying.update(pid for pid in killed if not _reap(pid))
        return killed

    def _may_tidy_up(self, pid: int, now: float) -> bool:
        """Whether the process is a resource tracker whose time is not over."""
        if not is_tracker(pid) or now - self._trackers.setdefault(pid, now) > TRACKER_TIME:
            self._trackers.pop(pid, None)
            return False
        return True

    async def sweep_out(self, clock: IReactorTime) -> list[int]:
        """Kill all orphans and their descendants, wait a moment for their death; return the ids.

        To be called when the process has no children of its own any more.
        """
        killed: list[int] = []
        for _ in range(_LAST_SWEEPS):
            now = self.sweep(())
            if not now and not self.dying:
                break
            killed += now
            await task.deferLater(clock, _LAST_INTERVAL)
        return killed


def _signal(pid: int, number: int) -> bool:
    """Whether the process could be sent the signal."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _reap(pid: int) -> bool:
    """Reap the child if it is dead; whether it was."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def log_orphans(killed: list[int]) -> None:
    """Log these processes, if there are any, which were killed."""
    if killed:
        log.warn("killed processes that jobs had left behind: {pids}", pids=killed)
