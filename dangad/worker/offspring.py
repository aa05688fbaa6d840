"""The processes that jobs start in a worker; none of them outlives its job.

Used by :mod:`dangad.worker.child` after each job, and at the worker's end. A process that a job
leaves running is killed, even if it has detached itself, because a worker adopts the orphans among
its descendants. Dead processes are reaped, so that no later job waits for them by mistake.

Processes that the job modules started on import, or that the modules' threads start, belong to the
modules and live as long as the worker. :mod:`multiprocessing` has two helpers of its own, a
resource tracker and a fork server. They are ended as :mod:`multiprocessing` itself would end them.
So it starts new ones for the next job, and the tracker removes the shared memory that the job has
left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from _thread import _count as thread_count  # also counts threads that threading does not know
from typing import TYPE_CHECKING, Any

from dangad.host.descent import PROC, children, children_by_thread, is_tracker, program, threads
from dangad.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

LINGER = 0.1
"""Seconds in which a process that a job left may end by itself, as the end of a pipeline does."""
PATIENCE = 1.0
"""Seconds for which the worker waits for killed processes to end, or for a helper to tidy up."""
_PAUSE = 0.001
_SIZE = 2**12
_TRACKER = "multiprocessing.resource_tracker"
_FORK_SERVER = "multiprocessing.forkserver"
_REACTOR = "twisted.internet.process"
"""Modules that know which processes they have started, once they are imported."""


class Offspring:
    """The children of this process that belong to a job, including adopted ones."""

    def __init__(self, put_out_of_reach: Callable[[int], int]) -> None:
        """Begin: all present children belong to the modules.

        :param put_out_of_reach: moves a descriptor to a number that jobs do not close by accident.
        """
        #: The children that belong to the modules.
        self._kept = children()
        self._threads = threads() - {os.getpid()}
        self._count = thread_count()
        self._list = -1
        with contextlib.suppress(OSError), open(f"{PROC}/self/task/{os.getpid()}/children") as file:
            self._list = put_out_of_reach(file.fileno())
        #: The main thread's children when `_list`, a file of /proc, was last read; None if there is
        #: no such file.
        self._usual = self._look()

    def end(self) -> list[str]:
        """Kill and reap the processes of a job. Returns the ones that the job should have ended.

        Each is named by its id and its program. Takes next to no time if there are none.
        """
        look = self._look()
        if look is not None and look == self._usual and thread_count() <= self._count:
            return []
        if not _has_children():
            return []
        #: The programs of the processes that were killed, by id.
        left: dict[int, str] = {}
        kill_from = time.monotonic() + LINGER
        while True:
            of_jobs = self._of_jobs()
            dead = {pid for pid in of_jobs if _has_ended(pid)}
            _let_owners_reap()  # before the other processes end
            running = of_jobs - {pid for pid in dead if _reap(pid)}
            now = time.monotonic()
            if not running or now > kill_from + PATIENCE:
                break
            if now >= kill_from:
                for pid in running - left.keys():
                    if now > kill_from + PATIENCE / 2 or not is_tracker(pid):
                        left[pid] = program(pid)
                        _kill(pid)
            time.sleep(_PAUSE)
        if (server := _fork_server()) is not None and server not in self._kept:
            _end_fork_server(server)
        if (tracker := _tracker()) is not None and tracker not in self._kept:
            _end_tracker(tracker)
        self._usual = self._look()
        reactor: Any = sys.modules.get(_REACTOR)
        if reactor is not None:
            for pid in reactor.reapProcessHandlers.keys() - self._kept - left.keys():
                left[pid] = program(pid)
        named = sorted(left.items())
        return [f"{pid} ({printable(name)})" if name else str(pid) for pid, name in named]

    def _look(self) -> bytes | None:
        try:
            return os.pread(self._list, _SIZE, 0)
        except OSError:  # there is no such file, or the job has closed all descriptors
            return None

    def _of_jobs(self) -> set[int]:
        """The processes that belong to a job, dead or alive, as far as they are children now.

        Their own children become children of this process only when they are dead.
        """
        found = set(children_by_thread())
        self._kept &= {
            child for _, child in found
        }  # another process may get the id of one that is gone
        helpers = {pid for pid in (_tracker(), _fork_server()) if pid is not None}
        grandchildren = set().union(*(children(helper) for helper in helpers)) - self._kept
        return grandchildren | {
            child
            for thread, child in found
            if child not in self._kept | helpers and thread not in self._threads
        }


def end_all() -> None:
    """At the worker's end, kill its children, and let the tracker remove their shared memory.

    Each of these two steps takes `PATIENCE` at most.
    """
    tracker = _tracker()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        running = {pid for pid in children() if pid != tracker and not _reap(pid)}
        if not running:
            break
        for pid in running:
            _kill(pid)
        time.sleep(_PAUSE)
    if tracker is not None:
        _end_tracker(tracker)


def _end_tracker(pid: int) -> None:
    """Let the resource tracker, which nobody else can use any more, finish its work and end."""
    tracker = sys.modules[_TRACKER]._resource_tracker  # noqa: SLF001 - its _stop() may never return
    with contextlib.suppress(OSError):
        os.close(tracker._fd)  # noqa: SLF001
    tracker._fd = tracker._pid = None  # noqa: SLF001
    end = time.monotonic() + PATIENCE
    while not _reap(pid) and (now := time.monotonic()) < end:
        if now > end - PATIENCE / 2:
            _kill(pid)
        time.sleep(_PAUSE)


def _end_fork_server(pid: int) -> None:
    """Kill the fork server, which has no children any more, and tell multiprocessing so."""
    _kill(pid)
    sys.modules[_FORK_SERVER]._forkserver._stop()  # noqa: SLF001 - it waits for the dead


def _tracker() -> int | None:
    """The id of :mod:`multiprocessing`'s resource tracker; there is no public name for it."""
    return getattr(getattr(sys.modules.get(_TRACKER), "_resource_tracker", None), "_pid", None)


def _fork_server() -> int | None:
    """The id of :mod:`multiprocessing`'s fork server; there is no public name for it."""
    module = sys.modules.get(_FORK_SERVER)
    return getattr(getattr(module, "_forkserver", None), "_forkserver_pid", None)


def _let_owners_reap() -> None:
    """Let objects in this process, such as a Popen, learn that their processes have ended.

    Otherwise such an object could mistake a later process with the same id for its own, and end it.
    """
    module: Any = sys.modules.get("multiprocessing.process")
    if module is not None:
        module.active_children()


def _has_ended(pid: int) -> bool:
    """Whether the process is gone, or a zombie."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # it is a child's child, perhaps
        return not os.path.exists(f"{PROC}/{pid}")


def _reap(pid: int) -> bool:
    """Whether the process is gone, and no zombie any more."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:  # somebody has reaped it, or it is a child's child
        return not os.path.exists(f"{PROC}/{pid}")


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
