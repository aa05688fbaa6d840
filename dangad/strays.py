"""Processes that a job has detached from its worker's process group, and that outlive it.

Used by :mod:`dangad.service` where the process is dangad's own. A worker's process group is
killed with it, but a daemon has left that group; once its worker is dead it is nobody's child,
and would be init's. The parent adopts it instead, so that it can be found and killed.

For that, a worker has to adopt the orphans of its own jobs as long as it lives: else a process
that a running job has put in the background would already be the parent's, and look the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

from twisted.internet import task

if TYPE_CHECKING:
    from collections.abc import Collection

    from twisted.internet.interfaces import IReactorTime

_PR_SET_CHILD_SUBREAPER = 36
_LAST_SWEEPS = 100
_LAST_INTERVAL = 0.01
"""How often strays are looked for when the server stops, and after how many seconds again."""
_THREADS = "/proc/self/task"


class Strays:
    """The children of this process that it did not start.

    All mutable state: `_adopting`, whether orphans become children of this process; `_elder`,
    the children that it had before, as when a script has put a program in the background and
    then become this process; `_dying`, who was killed and is not reaped yet.
    """

    def __init__(self) -> None:
        self._adopting = False
        self._elder: set[int] = set()
        self._dying: set[int] = set()

    @property
    def dying(self) -> int:
        """How many were killed and were not dead yet when last looked at."""
        return len(self._dying)

    def adopt(self) -> None:
        """From now on be the parent of all orphans among this process's descendants.

        Linux's PR_SET_CHILD_SUBREAPER, see prctl(2); elsewhere nothing happens, here and in
        `sweep`.
        """
        if sys.platform == "linux":
            self._elder = _children()
            prctl = ctypes.CDLL(None, use_errno=True).prctl
            self._adopting = prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

    def sweep(self, own: Collection[int]) -> list[int]:
        """Kill all strays, reap those that are dead, and give the ids of those killed now.

        Does not wait for any to die: a later call reaps it. What a stray has started is this
        process's child once the stray is dead, so that falls to a later call, too.

        :param own: the children that this process has started and will reap itself; neither
            they nor the members of process groups that they lead are touched.
        """
        if not self._adopting:
            return []
        try:
            children = _children()
        except OSError:
            return []  # no descriptor was free for a look: a later call has one
        self._elder &= children  # the id of one that is gone may be given to a stray
        strays = children.difference(self._elder, own)
        self._dying = {pid for pid in self._dying & strays if not _reap(pid)}
        killed = []
        for pid in strays - self._dying:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if not _reap(pid) and os.getpgid(pid) not in own:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
        self._dying.update(pid for pid in killed if not _reap(pid))
        return killed

    async def sweep_out(self, clock: IReactorTime) -> list[int]:
        """Kill all children and what they have started, wait a moment for it, and name them.

        For when the process has no children of its own any more.
        """
        killed: list[int] = []
        for _ in range(_LAST_SWEEPS):
            now = self.sweep(())
            if not now and not self._dying:
                break
            killed += now
            await task.deferLater(clock, _LAST_INTERVAL)
        return killed


def _children() -> set[int]:
    """This process's children, zombies included; none if the kernel does not tell."""
    children: set[int] = set()
    with contextlib.suppress(FileNotFoundError):
        for thread in os.listdir(_THREADS):
            with (
                contextlib.suppress(FileNotFoundError, ProcessLookupError),  # the thread has ended
                open(f"{_THREADS}/{thread}/children") as file,
            ):
                children.update(map(int, file.read().split()))
    return children


def _reap(pid: int) -> bool:
    """Whether the child is dead; then it is no zombie any more."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True
