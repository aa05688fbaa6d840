"""A worker's life: its states, the supervisor's record of it, and the limits of its life.

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
    """Where a worker is in its life, as far as what it wrote has been read."""

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

A worker that was killed may be given a job by somebody who does not know yet. And what it wrote
before its death counts, so that one that is stopping may answer.
"""


@dataclass(frozen=True)
class RecycleLimits:
    """After what a worker is replaced, or ended; 0 stands for never."""

    jobs: int = 0
    """How many jobs it does before it is replaced."""
    memory: int = 0
    """With how many bytes in RAM it is replaced."""
    age: float = 0.0
    """How many seconds after its Hello it is replaced."""
    max_memory: int = 0
    """With how many bytes in RAM it is killed at once."""


class WorkerRecord:
    """What the supervisor knows of one living worker.

    Its place in the pool is free as soon as it is released. A worker that was only killed keeps
    its place until it is gone: before, nobody else may start in its stead.
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
        #: The reload since which its code is.
        self.generation = generation
        #: When its process was started.
        self.started_at = now
        #: The end of the time in which it must say Hello; None after its Hello.
        self.boot_alarm: IDelayedCall | None = None
        #: When it said Hello; None before.
        self.booted_at: float | None = None
        #: Why it is to be replaced; None if it is not.
        self.recycling: str | None = None
        #: Whether the supervisor has let it go, so that its death is no failure.
        self.released = False
        #: Whether it exits soon, since its job is being stopped: another takes its place already.
        self.doomed = False
        #: When it was last asked for a sign of life.
        self.asked_at = now
        #: Whether it has not given the sign of life that it was asked for.
        self.silent = False
        #: When it was first seen not to have read what it was sent; None if it has.
        self.unread_since: float | None = None

    def recycle(self, why: str) -> None:
        """Have the worker replaced, for the first reason that is given."""
        if self.recycling is None:
            self.recycling = why
            log.info("worker {pid} is to be replaced: {why}", pid=self.process.pid, why=why)

    def show_stack(self) -> Deferred[str]:
        """See :meth:`IProcess.show_stack`."""
        shown: Deferred[str] = self.process.show_stack()
        return shown

    @property
    def state(self) -> WorkerState:
        """Where it is in its life, for people; one that was released is stopping at least."""
        return WorkerState.STOPPING if self.released else self.process.state

    @property
    def serves(self) -> bool:
        """Whether it has booted, and was neither released nor is about to exit."""
        return self.booted_at is not None and not (self.released or self.doomed)

    @property
    def starting(self) -> bool:
        """Whether it is still to boot."""
        return self.booted_at is None and not self.released
