"""The numbers that bound a server, and their defaults: the one place that has these.

Options of ``twistd dangad`` have the same names, see :mod:`dangad.commandline`;
:mod:`dangad.service` gives each number to the part that it bounds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """The numbers that bound the server; the options of ``twistd dangad`` of the same names."""

    min_workers: int = 1
    max_workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    max_queued: int = 10_000
    max_queued_bytes: int = 2**30
    max_in_flight: int = 1000
    max_connections: int = 10_000
    max_payload: int = 64 * 2**20
    max_buffered: int = 0
    drain: float = 30.0
    quarantine_after: int = 5
    quarantine_time: float = 30.0
    spare_workers: int = 0
    recycle_jobs: int = 0
    recycle_memory: int = 0
    recycle_age: float = 0.0
    max_memory: int = 0
    start_timeout: float = 60.0
    relief_after: float = 5.0


DEFAULTS = Limits()
"""The numbers of a server of which nobody has said otherwise."""
