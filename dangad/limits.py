"""The limits of a server and their defaults, all in this one place.

The options of ``twistd dangad`` have the same names, see :mod:`dangad.options.commandline`.
:mod:`dangad.service` passes each limit to the part that it bounds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """The limits of one server. Sizes are in bytes, times in seconds."""

    min_workers: int = 1
    """Worker processes that are always kept."""
    max_workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """The most worker processes."""
    max_queued: int = 10_000
    """The most waiting jobs, of all clients."""
    max_queued_bytes: int = 2**30
    """The most bytes of all waiting jobs' requests."""
    max_in_flight: int = 1000
    """Unanswered requests of one connection from which on the connection is not read."""
    max_connections: int = 10_000
    """The most connections of clients."""
    max_payload: int = 64 * 2**20
    """Bytes of the largest request, and of the largest answer."""
    max_buffered: int = 0
    """The most bytes that are held for all clients; 0 for a default, see
    :mod:`dangad.server.memorybudget`."""
    drain: float = 30.0
    """Seconds for accepted jobs to end when the server stops."""
    quarantine_after: int = 5
    """Workers in a row that a command may kill before it is refused; 0 for any number."""
    quarantine_time: float = 30.0
    """Seconds for which a command that kills workers is refused."""
    spare_workers: int = 0
    """Idle workers that are kept in addition to the busy ones."""
    recycle_jobs: int = 0
    """Jobs after which a worker is replaced; 0 for any number."""
    recycle_memory: int = 0
    """Bytes of memory beyond which a worker is replaced; 0 for any number."""
    recycle_age: float = 0.0
    """Seconds of age at which a worker is replaced; 0 for any age."""
    max_memory: int = 0
    """The most bytes of private memory of a worker; 0 for no limit."""
    start_timeout: float = 60.0
    """Seconds for a worker to start and to import the job modules."""
    relief_after: float = 5.0
    """Seconds for which one client's jobs may have all workers before others get one more; 0 for
    never."""


def check_numbers(min_workers: int, max_workers: int) -> None:
    """Check numbers of workers.

    :raises ValueError: the numbers are not valid; the text says why.
    """
    if min_workers < 0 or max_workers < 1 or min_workers > max_workers:
        raise ValueError(
            f"{min_workers} to {max_workers} workers: the first is at least 0, the second at least "
            "1, and not less than the first"
        )


DEFAULTS = Limits()
"""The limits of a server that is started without options."""

FRESH = "fresh"
LEAN = "lean"
PRELOADED = "preloaded"
STARTS = (FRESH, LEAN, PRELOADED)
"""How a worker's process can begin: as a new interpreter; as a fork of a template without the job
modules, which has imported everything else that a worker needs; or as a fork of a template that has
imported the job modules, too."""

LOG_NONE = "none"
LOG_FAILED = "failed"
LOG_ALL = "all"
LOG_JOBS = (LOG_NONE, LOG_FAILED, LOG_ALL)
"""Which jobs get lines of their own in the log: none; those that end with an error of the server's;
or all."""
