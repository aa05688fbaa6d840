"""Processes of jobs that outlive their worker, and how they are ended.

Used by :mod:`dangad.service` where the process is dangad's own, and by :mod:`dangad.pool.processes`
for the process group of a worker that is dead, which goes first, and for what traces one. A daemon
has left that group; once its worker is dead it is nobody's child, and would be init's. The parent
adopts it instead, so that it can be found and killed. But not all that the parent adopts is a
job's: where it is the first process of a container, it gets what others have put in the background
there. So a process is killed only if it descends from a worker (see
:func:`dangad.host.descent.descends_from_worker`).

For that, a worker has to adopt the orphans of its own jobs as long as it lives: else a process
that a running job has put in the background would already be the parent's, and look the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from twisted.internet import task

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

_LAST_SWEEPS = 100
_LAST_INTERVAL = 0.01
"""How often orphans are looked for when the server stops, and after how many seconds again."""
TRACKER_TIME = 5.0
"""Seconds in which a resource tracker must have removed what others have left."""


def kill_group(group: int) -> None:
    """Kill a dead worker's process group; a resource tracker in it is left to do its work.

    So is what may be about to become one. It ends when it has removed the shared memory of all
    that are killed here; if it does not, `Orphans` kills it. It is only seen where this process
    adopts; elsewhere it is killed with the others.
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
    """Kill what keeps a worker, which was killed, from being gone: what traces it, see ptrace(2).

    Its death is told to its tracer first, and is not over before that has taken note; and a
    tracer may keep it from its last steps. Only what a job has started is killed, and what traces
    that in turn: an operator may look at a worker with a debugger.

    :param mark: that of the server's workers.
    :return: the processes that were killed, and those that trace it and were not.
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
    """Those of the process group that descend from this process, by way of one another."""
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
    """The children of this process that it did not start.

    All mutable state: `_adopting`, whether orphans become children of this process; `_dying`, who
    was killed and is not reaped yet; `_trackers`, resource trackers that may end by themselves, and
    since when.
    """

    def __init__(self, mark: str) -> None:
        """Know the workers' descendants by their server's mark."""
        self._mark = mark
        self._adopting = False
        self._dying: set[int] = set()
        self._trackers: dict[int, float] = {}

    @property
    def dying(self) -> int:
        """How many were killed, or are ending by themselves, and were not dead when last seen."""
        return len(self._dying) + len(self._trackers)

    def adopt(self) -> None:
        """From now on be the parent of all orphans among this process's descendants.

        Where the system cannot do that, nothing happens, here and in `sweep`.
        """
        self._adopting = adopt_orphans()

    def sweep(self, own: Collection[int]) -> list[int]:
        """Kill all orphans, reap those that are dead, and give the ids of those killed now.

        Does not wait for any to die: a later call reaps it. What a orphan has started is this
        process's child once the orphan is dead, so that falls to a later call, too. Others that
        this process has adopted are reaped when they are dead, and not touched before.

        :param own: the children that this process has started and will reap itself; neither
            they nor the members of process groups that they lead are touched.
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
        """Whether it is a resource tracker that has not had its time yet."""
        if not is_tracker(pid) or now - self._trackers.setdefault(pid, now) > TRACKER_TIME:
            self._trackers.pop(pid, None)
            return False
        return True

    async def sweep_out(self, clock: IReactorTime) -> list[int]:
        """Kill all orphans and what they have started, wait a moment for it, and name them.

        For when the process has no children of its own any more.
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
    """Whether the child is dead; then it is no zombie any more."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True
