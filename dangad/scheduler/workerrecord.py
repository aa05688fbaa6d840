"""A worker's life: its states, its limits, and the supervisor's record of it.

The link of a worker (:mod:`dangad.pool.link`) goes through the states. A record is kept by
:mod:`dangad.scheduler.supervisor` for each process that is not known to be dead.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall

    from dangad.scheduler.interfaces import IProcess

log = Logger()


class WorkerState(enum.Enum):
    """Where a worker is in its life, judged by the messages of it that were read."""

    __hash__ = object.__hash__  # each member exists once; enum's own is slow, and called per job

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"
    DEAD = "dead"


class WorkerEvent(enum.Enum):
    """What can happen to a worker."""

    __hash__ = object.__hash__  # see WorkerState

    HELLO = "says Hello"
    GIVE = "is given a job"
    ANSWER = "answers its last job"
    STOP = "is asked to exit"
    KILL = "is killed"
    EXIT = "is gone"


TRANSITIONS: dict[tuple[WorkerState, WorkerEvent], WorkerState] = {
    (WorkerState.STARTING, WorkerEvent.HELLO): WorkerState.IDLE,
    (WorkerState.STARTING, WorkerEvent.KILL): WorkerState.STOPPING,
    (WorkerState.STARTING, WorkerEvent.EXIT): WorkerState.DEAD,
    (WorkerState.IDLE, WorkerEvent.GIVE): WorkerState.BUSY,
    (WorkerState.IDLE, WorkerEvent.STOP): WorkerState.STOPPING,
    (WorkerState.IDLE, WorkerEvent.KILL): WorkerState.STOPPING,
    (WorkerState.IDLE, WorkerEvent.EXIT): WorkerState.DEAD,
    (WorkerState.BUSY, WorkerEvent.ANSWER): WorkerState.IDLE,
    (WorkerState.BUSY, WorkerEvent.STOP): WorkerState.STOPPING,
    (WorkerState.BUSY, WorkerEvent.KILL): WorkerState.STOPPING,
    (WorkerState.BUSY, WorkerEvent.EXIT): WorkerState.DEAD,
    (WorkerState.STOPPING, WorkerEvent.GIVE): WorkerState.STOPPING,
    (WorkerState.STOPPING, WorkerEvent.ANSWER): WorkerState.STOPPING,
    (WorkerState.STOPPING, WorkerEvent.KILL): WorkerState.STOPPING,
    (WorkerState.STOPPING, WorkerEvent.EXIT): WorkerState.DEAD,
}
"""A worker's life: the state to which each event leads from each state. Nothing else can happen.

A worker that was killed may still be given a job, by a caller that does not know yet. A stopping
worker may still answer: everything that it wrote before its death counts.
"""


@dataclass(frozen=True)
class RecycleLimits:
    """The limits at which a worker is replaced or killed; 0 stands for no limit."""

    jobs: int = 0
    """The number of jobs after which a worker is replaced."""
    memory: int = 0
    """The bytes in RAM at which a worker is replaced."""
    age: float = 0.0
    """The seconds after its Hello at which a worker is replaced."""
    max_memory: int = 0
    """The bytes in RAM at which a worker is killed at once."""


class WorkerRecord:
    """The supervisor's record of one living worker.

    A worker's place in the pool is free as soon as the worker is released. A worker that was only
    killed keeps its place until it is gone: until then no replacement may start.
    """

    __slots__ = (
        "asked_at",
        "boot_alarm",
        "booted_at",
        "doomed",
        "generation",
        "process",
        "recycling",
        "released",
        "silent",
        "started_at",
        "unread_since",
    )

    def __init__(self, process: IProcess, generation: int, now: float) -> None:
        self.process = process
        #: The generation that it belongs to.
        self.generation = generation
        #: When its process was started.
        self.started_at = now
        #: The alarm at the end of the time in which it must say Hello; None after its Hello.
        self.boot_alarm: IDelayedCall | None = None
        #: When it said Hello; None before.
        self.booted_at: float | None = None
        #: Why it is to be replaced; None if it is not.
        self.recycling: str | None = None
        #: Whether the supervisor has let it go, so that its death is no failure.
        self.released = False
        #: Whether it exits soon because its job is being stopped; a replacement may start already.
        self.doomed = False
        #: When it was last asked for a sign of life.
        self.asked_at = now
        #: Whether it has not given the sign of life that it was asked for.
        self.silent = False
        #: When it was first seen not to have read what it was sent; None if it has.
        self.unread_since: float | None = None

    def recycle(self, why: str) -> None:
        """Let the worker be replaced; only the first reason counts."""
        if self.recycling is None:
            self.recycling = why
            log.info("worker {worker} is to be replaced: {why}", worker=self.process.pid, why=why)

    def show_stack(self) -> Deferred[str]:
        """See :meth:`IProcess.show_stack`."""
        shown: Deferred[str] = self.process.show_stack()
        return shown

    @property
    def state(self) -> WorkerState:
        """Where the worker is in its life, for people; a released worker counts as stopping."""
        return WorkerState.STOPPING if self.released else self.process.state

    @property
    def serves(self) -> bool:
        """Whether the worker has booted, was not released, and is not about to exit."""
        return self.booted_at is not None and not (self.released or self.doomed)

    @property
    def starting(self) -> bool:
        """Whether the worker has not booted yet."""
        return self.booted_at is None and not self.released
