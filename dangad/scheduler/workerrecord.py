"""One worker's record as the supervisor sees it, and what wears a worker out.

Kept by :mod:`dangad.scheduler.supervisor`, one for each process that is not known to be dead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall

    from dangad.scheduler.interfaces import IProcess


@dataclass(frozen=True)
class RecycleLimits:
    """After what a worker is replaced, or ended; 0 stands for never."""

    jobs: int = 0
    """How many jobs make it due."""
    memory: int = 0
    """How many bytes in RAM do."""
    age: float = 0.0
    """How many seconds since its Hello do."""
    max_memory: int = 0
    """How many bytes in RAM end it at once."""


class WorkerRecord:
    """What the supervisor knows of one living worker.

    :ivar generation: the reload since which its code is.
    :ivar started_at: when its process was started.
    :ivar boot_alarm: the end of the time in which it must say Hello; None after.
    :ivar booted_at: when it said Hello; None before.
    :ivar due: why it is to be replaced; None if it is not.
    :ivar stopping: whether it has left, and only its death is still to come.
    :ivar asked_at: when it was last asked for a sign of life.
    :ivar silent: whether it has not given it.
    :ivar unread_since: when it was first seen not to have read what it was sent; None if it has.
    """

    __slots__ = (
        "asked_at",
        "boot_alarm",
        "booted_at",
        "generation",
        "process",
        "recycling",
        "silent",
        "started_at",
        "stopping",
        "unread_since",
    )

    def __init__(self, process: IProcess, generation: int, now: float) -> None:
        self.process = process
        self.generation = generation
        self.started_at = now
        self.boot_alarm: IDelayedCall | None = None
        self.booted_at: float | None = None
        self.recycling: str | None = None
        self.stopping = False
        self.asked_at = now
        self.silent = False
        self.unread_since: float | None = None

    def show_stack(self) -> Deferred[str]:
        """See :meth:`IProcess.show_stack`."""
        shown: Deferred[str] = self.process.show_stack()
        return shown

    @property
    def serves(self) -> bool:
        """Whether it has booted and has not left."""
        return self.booted_at is not None and not self.stopping

    @property
    def starting(self) -> bool:
        """Whether it is still to boot."""
        return self.booted_at is None and not self.stopping
