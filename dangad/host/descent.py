"""Which process descends from which, and what some processes are for, according to /proc.

Used to end processes that jobs have started: by :mod:`dangad.worker.offspring` in a worker, and by
:mod:`dangad.pool.orphans` in the parent. Without /proc, no process seems to have children.
"""

from __future__ import annotations

import contextlib
import os
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = "/proc"
"""Where the kernel shows processes."""
_GONE = (FileNotFoundError, ProcessLookupError)
_TRACKER = b"resource_tracker"
_MOST_LOOKS = 1000
"""The most threads or ancestors of a process that are read; this takes some 20 ms."""

MARK_VARIABLE = "DANGAD_WORKER_OF"
"""The environment variable that marks a worker and its descendants with their server."""
WORKER_OOM_SCORE = 500
"""How readily the kernel kills a worker when memory runs out, from -1000 to 1000; 0 is usual.

Descendants of a worker inherit it.
"""


def threads(process: int | str = "self") -> set[int]:
    """The ids of a process's threads; none if it is gone, or there is no /proc.

    :raises OSError: /proc could not be read, perhaps because no descriptor is free.
    """
    with contextlib.suppress(*_GONE):
        return set(map(int, os.listdir(f"{PROC}/{process}/task")))
    return set()


def count_threads() -> int:
    """How many threads this process has; 1 if this is not known. Takes no descriptor."""
    try:
        return os.stat(f"{PROC}/self/task").st_nlink - 2
    except OSError:
        return 1


def children(process: int | str = "self") -> set[int]:
    """The children of a process, zombies included.

    :raises OSError: /proc could not be read.
    """
    return {child for _, child in children_by_thread(process)}


def children_by_thread(process: int | str = "self") -> Iterator[tuple[int, int]]:
    """Each child of a process, after the id of the thread that started or adopted it.

    :raises OSError: /proc could not be read.
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

    If the process has very many threads, only some of them are checked.
    """
    found = set()
    with contextlib.suppress(OSError):  # perhaps no descriptor is free
        for thread in islice(threads(process), _MOST_LOOKS):
            found.add(_status(thread, "TracerPid"))
    return found - {0}


def is_descendant(process: int) -> bool:
    """Whether a process descends from this one, by birth or by adoption."""
    for _ in range(_MOST_LOOKS):
        if process == os.getpid():
            return True
        if process <= 1:
            return False
        process = _status(process, "PPid")
    return False


def state(process: int) -> str:
    """The letter for the state of a process, see proc_pid_stat(5); empty if it is not known."""
    return _field(process, "State")


def cpu_time(process: int) -> float | None:
    """Seconds of CPU time of a process and of children that it has reaped; None if it is gone."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        with open(f"{PROC}/{process}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name may have spaces
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return None


def _status(process: int, field: str) -> int:
    """A number from the status of a process or a thread; 0 if it is gone."""
    return int(_field(process, field) or 0)


def _field(process: int, field: str) -> str:
    """The first word of a field of the status of a process or a thread; empty if it is gone."""
    with contextlib.suppress(OSError), open(f"{PROC}/{process}/status") as file:
        for line in file:
            if line.startswith(f"{field}:"):
                return line.split()[1]
    return ""


def program(process: int) -> str:
    """The name of a process's program, cut to 15 bytes; empty if it is gone."""
    with contextlib.suppress(OSError), open(f"{PROC}/{process}/comm", errors="replace") as file:
        return file.read().rstrip("\n")
    return ""


def is_tracker(process: int) -> bool:
    """Whether a process is a resource tracker of :mod:`multiprocessing`, or of a similar library.

    A tracker waits until no process can use the shared memory and the semaphores any more. Then it
    removes the ones that were left, and ends. It ignores all signals that can be ignored.
    """
    return _TRACKER in _command_line(process)


def is_beginning(process: int) -> bool:
    """Whether a process has no command line: it is about to begin another program, or is dead."""
    return not _command_line(process)


def is_like_this(process: int) -> bool:
    """Whether a process has this one's command line: a fork, perhaps about to begin a program."""
    return _command_line(process) == _command_line(os.getpid())


def _command_line(process: int) -> bytes:
    with contextlib.suppress(OSError), open(f"{PROC}/{process}/cmdline", "rb") as file:
        return file.read(2000)
    return b""


def descends_from_worker(process: int, mark: str) -> bool:
    """Whether a process is a worker of the server with this mark, or descends from one.

    The environment with which it started has the mark. A program that was given another environment
    still inherits the worker's score from the kernel. The score tells nothing if the server has the
    same one.
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
