"""Who descends from whom, and what some processes are for, as Linux's /proc tells.

Used by those that end what jobs have started: :mod:`dangad.worker.offspring` in a worker,
:mod:`dangad.pool.orphans` in the parent. Where the kernel does not tell, nobody
has children.
"""

from __future__ import annotations

import contextlib
import os
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = "/proc"
"""Where the kernel tells."""
_GONE = (FileNotFoundError, ProcessLookupError)
_TRACKER = b"resource_tracker"
_MOST_LOOKS = 1000
"""Threads of a process, or ancestors, that are looked at, which takes some 20 ms."""

MARK_VARIABLE = "DANGAD_WORKER_OF"
"""The environment variable by which a worker, and what descends from it, tells its server."""
WORKER_OOM_SCORE = 500
"""How readily the kernel kills a worker for want of memory, from -1000 to 1000; usual is 0.

What descends from a worker inherits it.
"""


def threads(process: int | str = "self") -> set[int]:
    """The ids of a process's threads; none if it is gone, or the kernel does not tell.

    :raises OSError: it could not be looked, for want of a free descriptor perhaps.
    """
    with contextlib.suppress(*_GONE):
        return set(map(int, os.listdir(f"{PROC}/{process}/task")))
    return set()


def children(process: int | str = "self") -> set[int]:
    """The children of a process, zombies included.

    :raises OSError: as above.
    """
    return {child for _, child in children_by_thread(process)}


def children_by_thread(process: int | str = "self") -> Iterator[tuple[int, int]]:
    """Each child of a process, behind the id of the thread that has started it, or adopted it.

    :raises OSError: as above.
    """
    for thread in threads(process):
        with (
            contextlib.suppress(*_GONE),  # it has ended
            open(f"{PROC}/{process}/task/{thread}/children") as file,
        ):
            for child in file.read().split():
                yield thread, int(child)


def tracers(process: int) -> set[int]:
    """The processes that trace a thread of `process`, see ptrace(2).

    Of a process with very many threads, some are looked at.
    """
    found = set()
    with contextlib.suppress(OSError):  # no descriptor is free for a look, perhaps
        for thread in islice(threads(process), _MOST_LOOKS):
            found.add(_status(thread, "TracerPid"))
    return found - {0}


def is_descendant(process: int) -> bool:
    """Whether a process was started by this one, or by one that was, or was adopted so."""
    for _ in range(_MOST_LOOKS):
        if process == os.getpid():
            return True
        if process <= 1:
            return False
        process = _status(process, "PPid")
    return False


def _status(process: int, field: str) -> int:
    """A number that the kernel tells of a process or a thread; 0 if it is gone."""
    with contextlib.suppress(OSError), open(f"{PROC}/{process}/status") as file:
        for line in file:
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    return 0


def is_tracker(process: int) -> bool:
    """Whether a process is a resource tracker of :mod:`multiprocessing`, or of those that copy it.

    It removes the shared memory and the semaphores that others have left, once all who could use
    them are gone, and ends then. It ignores what it can, but not SIGKILL.
    """
    return _TRACKER in _command_line(process)


def is_beginning(process: int) -> bool:
    """Whether a process has no command line: it is about to begin another program, or dead."""
    return not _command_line(process)


def _command_line(process: int) -> bytes:
    with contextlib.suppress(OSError), open(f"{PROC}/{process}/cmdline", "rb") as file:
        return file.read(2000)
    return b""


def descends_from_worker(process: int, mark: str) -> bool:
    """Whether a process has been a worker of the server that has that mark, or was started by one.

    Its first environment has the mark. A program that was given another still has what the kernel
    hands down to all: the worker's score, if it is not the server's own, too.
    """
    with contextlib.suppress(OSError), open(f"{PROC}/{process}/environ", "rb") as file:
        if f"{MARK_VARIABLE}={mark}".encode() in file.read().split(b"\0"):
            return True
    return _oom_score(process) == WORKER_OOM_SCORE != _oom_score("self")


def _oom_score(process: int | str) -> int:
    try:
        with open(f"{PROC}/{process}/oom_score_adj") as file:
            return int(file.read())
    except OSError:
        return 0
