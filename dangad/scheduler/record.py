"""One job as the parent sees it: its record, and the states of its life.

Made by :mod:`dangad.server.connection` for each request, led through its states by
:mod:`dangad.scheduler.dispatcher`, read by the parts that report on jobs. Its box is opaque here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from dangad.wire.catalogue import NO_POLICY
from dangad.wire.values import Priority

if TYPE_CHECKING:
    from dangad.errors import DangadError
    from dangad.scheduler.alarms import Alarm
    from dangad.scheduler.interfaces import IClient, IWorker


class JobState(enum.Enum):
    """Where a job is in its life. The last five states are ends; a job has exactly one end."""

    __hash__ = object.__hash__  # each member is unique, and enum's own hash is slow

    QUEUED = "queued"
    PREFETCHED = "prefetched"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"
    LOST = "lost"


END_STATES = (
    JobState.DONE,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.TIMED_OUT,
    JobState.LOST,
)
"""The states in which a job has ended."""
FAILURES = (JobState.FAILED, JobState.TIMED_OUT, JobState.LOST)
"""The states of jobs that have failed: through an error of their own, of a worker or of the server,
or for lack of time. A cancelled job has not failed."""


class Event(enum.Enum):
    """What can happen to an accepted job."""

    __hash__ = object.__hash__  # as in JobState

    PREFETCH = "given to a busy worker"
    RECLAIM = "reclaimed unread"
    START = "begun by a worker"
    ANSWER = "answered with a result"
    FAIL = "answered with an error"
    CANCEL = "cancelled, or its client gone"
    TIME_OUT = "out of time"
    LOSE = "its worker died"
    RETRY = "its worker died, attempts left"
    RETURN = "its worker died, job unread"
    GIVE_UP = "the server cannot run it"


TRANSITIONS: dict[tuple[JobState, Event], JobState] = {
    (JobState.QUEUED, Event.PREFETCH): JobState.PREFETCHED,
    (JobState.PREFETCHED, Event.RECLAIM): JobState.QUEUED,
    (JobState.PREFETCHED, Event.START): JobState.RUNNING,
    (JobState.QUEUED, Event.START): JobState.RUNNING,
    (JobState.QUEUED, Event.CANCEL): JobState.CANCELLED,
    (JobState.QUEUED, Event.TIME_OUT): JobState.TIMED_OUT,
    (JobState.QUEUED, Event.LOSE): JobState.LOST,
    (JobState.QUEUED, Event.GIVE_UP): JobState.FAILED,
    (JobState.RUNNING, Event.ANSWER): JobState.DONE,
    (JobState.RUNNING, Event.FAIL): JobState.FAILED,
    (JobState.RUNNING, Event.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, Event.TIME_OUT): JobState.TIMED_OUT,
    (JobState.RUNNING, Event.LOSE): JobState.LOST,
    (JobState.RUNNING, Event.RETRY): JobState.QUEUED,
    (JobState.RUNNING, Event.RETURN): JobState.QUEUED,
    (JobState.RUNNING, Event.GIVE_UP): JobState.FAILED,
}
"""A job's life: the state to which each event leads from each state. Nothing else can happen."""


class Cause(enum.Enum):
    """What a worker died of."""

    CRASHED = "crashed"
    """A signal that the server did not send."""
    KILLED = "killed"
    """The server killed it, for a reason that it gives."""
    MEMORY = "memory"
    """It ran out of memory: the system killed it, or refused it more than its limit."""
    EXITED = "exited"
    """It ended by itself, though nobody had asked for it."""
    RELEASED = "released"
    """It was not needed any more, or has been replaced, perhaps because its job was stopped."""
    FAILED_START = "failed start"
    """It had not become ready."""


@dataclass(frozen=True, slots=True)
class Death:
    """What ended a worker, in words for the client of the job that it ran."""

    how: str
    """The words after "worker 4711", as in "was killed by SIGSEGV"."""
    details: str = ""
    """What else is known of the death, beginning with "; ", or nothing."""
    usage: bytes = b""
    """What the job used, in the form of ``Job.usage``."""
    cause: Cause = Cause.EXITED
    """What it died of, as far as its process tells."""
    unread: bytes | memoryview = b""
    """The request of the job that the worker was to run, if the worker had read nothing of it."""


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """What the last attempt at a job used of its worker."""

    cpu: float
    """Seconds of CPU time, of the worker and of the processes for which the job waited."""
    peak_memory: int
    """The most bytes that the worker has had in RAM since it started, without what it shares with
    other workers; 0 if this is not known."""


class Attempt(NamedTuple):
    """An attempt at a job that was lost and followed by another."""

    started_at: float
    """When it started."""
    pid: int
    """The process id of its worker."""
    ended_for: str
    """Why it ended, in words."""


class Job:
    """A request that was received, from then until its one end.

    The attributes from `state` on belong to the dispatcher. Times are seconds of its clock.

    :ivar id: a number, unique while the server lives: see ``Dispatcher.next_id``.
    :ivar client: who gets the outcome; None when nobody is left to be told.
    :ivar tag: the client's own name for the request (its ``_ask``), None if it wants no answer.
    :ivar command: the AMP command's name.
    :ivar box: the request, byte for byte as it came, a view of the bytes if it is large; empty once
        it is not needed any more.
    :ivar priority: how urgent the client says it is.
    :ivar deadline: seconds from acceptance until an answer is useless; None for ever.
    :ivar size: the request's size in bytes.
    :ivar wants_chunks: whether its client asked for partial results.
    :ivar wants_progress: whether it asked for progress.
    :ivar traceparent: the trace that its client counts it to; None if there is none.
    :ivar state: where it is in its life.
    :ivar policy: what its type asks for.
    :ivar may_retry: whether its request is kept for another attempt.
    :ivar lane: the lane of the queue that it waits in.
    :ivar turn: the turn in which the queue gave it out; for the queue alone, -1 if none.
    :ivar runner: the client whose turn started it, gone or not; None while it does not run.
    :ivar attempt: 0 while it waits for its first start, then 1, 2, ...
    :ivar attempts: the attempts before this one, in order; no more than the retries of its type.
    :ivar worker: who runs it, or has it prefetched; None while nobody does.
    :ivar pid: the process id of the worker that ran it last, 0 if none did.
    :ivar seconds: how long this attempt may run, None for ever.
    :ivar limit_alarm: the end of its time limit.
    :ivar grace_alarm: the end of the time in which it may clean up, once it is being stopped.
    :ivar rest_alarm: the end of its rest between two attempts.
    :ivar deadline_alarm: its deadline.
    :ivar lost_for: why its last attempt failed, if its worker died.
    :ivar stopped_for: why a running job is being stopped, None while it is not.
    :ivar ended_for: why it ended without a result, as an error's code and text; None if it did not.
    :ivar asker: who submitted it, in words; empty until it ends or its client is gone.
    :ivar usage: what its last attempt used, as the worker wrote it; see `took`.
    """

    __slots__ = (
        "accepted_at",
        "asker",
        "attempt",
        "attempts",
        "box",
        "client",
        "command",
        "deadline",
        "deadline_alarm",
        "ended_at",
        "ended_for",
        "grace_alarm",
        "id",
        "lane",
        "limit_alarm",
        "lost_for",
        "may_retry",
        "pid",
        "policy",
        "priority",
        "rest_alarm",
        "runner",
        "seconds",
        "size",
        "started_at",
        "state",
        "stopped_for",
        "tag",
        "traceparent",
        "turn",
        "usage",
        "wants_chunks",
        "wants_progress",
        "worker",
    )

    def __init__(
        self,
        id: int,
        client: IClient | None,
        tag: bytes | None,
        command: bytes,
        box: bytes | memoryview,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        wants_chunks: bool = False,
    ) -> None:
        self.id = id
        self.client = client
        self.tag = tag
        self.command = command
        self.box = box
        self.size = len(box)
        self.priority = priority
        self.deadline = deadline
        self.wants_chunks = wants_chunks
        self.wants_progress = False
        self.traceparent: str | None = None
        self.state = JobState.QUEUED
        self.policy = NO_POLICY
        self.may_retry = True
        self.lane: bytes | None = None
        self.turn = -1
        self.runner: IClient | None = None
        self.attempt = 0
        self.attempts: tuple[Attempt, ...] = ()
        self.worker: IWorker | None = None
        self.seconds: float | None = None
        self.limit_alarm: Alarm | None = None
        self.grace_alarm: Alarm | None = None
        self.rest_alarm: Alarm | None = None
        self.deadline_alarm: Alarm | None = None
        self.stopped_for: DangadError | None = None
        self.lost_for: DangadError | None = None
        self.ended_for: tuple[str, str] | None = None
        self.asker = ""
        self.pid = 0
        self.usage = b""
        self.accepted_at = 0.0
        self.started_at = 0.0
        self.ended_at = 0.0

    def live(self, event: Event) -> JobState:
        """Go on to the state to which `event` leads; that state.

        :raises KeyError: the event cannot happen in the job's state.
        """
        self.state = TRANSITIONS[self.state, event]
        return self.state

    def forget_request(self) -> None:
        """Its request is not needed any more: there will be no other attempt."""
        self.box = b""
        self.may_retry = False

    @property
    def took(self) -> ResourceUsage | None:
        """What its last attempt used; None if no worker has said so."""
        if not self.usage:
            return None
        microseconds, kibibytes = self.usage.split()[:2]
        return ResourceUsage(int(microseconds) / 1e6, int(kibibytes) * 1024)

    @property
    def wait(self) -> float:
        """Seconds from its acceptance to the start of its last attempt, or to its end."""
        return (self.started_at if self.attempt else self.ended_at) - self.accepted_at

    @property
    def runtime(self) -> float:
        """Seconds from the start of its last attempt to its end; 0 if it never ran."""
        return self.ended_at - self.started_at if self.attempt else 0.0

    @property
    def name(self) -> str:
        """The command's name as printable text for the log and for errors, whatever its bytes."""
        return self.command[:100].decode("latin-1").encode("unicode_escape").decode("ascii")

    @property
    def past(self) -> str:
        """What became of its attempts so far, in words for its client."""
        if not self.attempt:
            return "it never ran"
        return f"it had run {self.attempt} times" if self.attempt > 1 else "it had run once"

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name} {self.state.value}>"
