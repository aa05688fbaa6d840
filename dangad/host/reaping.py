"""What a child process took while it lived, as the system tells when the child is reaped.

Used by :mod:`dangad.pool.processes`, for workers. The system adds what all reaped children took to
one sum, in which a worker's share cannot be told from that of an orphan that died in the same
moment. For one child alone it is told once: by wait4(2), to whoever reaps it.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Taken:
    """What one process took from its start to its end, with the children for which it waited."""

    cpu: int
    """Microseconds of CPU time."""
    peak_memory: int
    """The most bytes that it had in RAM, or one of these children; 0 if that is not known."""


def reap(pid: int) -> tuple[int, Taken] | None:
    """Reap the child `pid`: its status, as wait(2) gives it, and what it took; None if it lives.

    :raises ChildProcessError: there is no such child.
    """
    reaped, status, usage = os.wait4(pid, os.WNOHANG)
    if not reaped:
        return None
    cpu = round(1e6 * (usage.ru_utime + usage.ru_stime))
    # A child begins as a copy of this process, and its peak with the size of that.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return status, Taken(cpu, usage.ru_maxrss * 1024 if usage.ru_maxrss > own else 0)
