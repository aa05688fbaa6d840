"""How much CPU time and memory a child process has used, as the system tells when it is reaped.

Used by :mod:`dangad.pool.processes`, for workers. The system also keeps a sum over all reaped
children. The sum does not tell a worker's share from that of an orphan that died at the same
moment. Only wait4(2) gives the numbers of a single child, once, to the process that reaps it.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Taken:
    """What one process used from its start to its end, including children for which it waited."""

    cpu: int
    """Microseconds of CPU time."""
    peak_memory: int
    """The most bytes in RAM of the process, or of one of these children; 0 if not known."""


def reap(pid: int, *, forked: bool = False) -> tuple[int, Taken] | None:
    """Reap the child `pid`: its status as of wait(2), and what it used; None if it lives.

    :param forked: whether another child has forked it. Otherwise this process has started it.
    :raises ChildProcessError: there is no such child.
    """
    reaped, status, usage = os.wait4(pid, os.WNOHANG)
    if not reaped:
        return None
    cpu = round(1e6 * (usage.ru_utime + usage.ru_stime))
    # What this process starts begins as its copy, so the peak is at least the size of this process.
    own = 0 if forked else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return status, Taken(cpu, usage.ru_maxrss * 1024 if usage.ru_maxrss > own else 0)
