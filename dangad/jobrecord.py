"""One job as the parent sees it: its record, and the states of its life.

Made by :mod:`dangad.server` for each request, driven through its states by
:mod:`dangad.dispatcher`, read by whoever reports on jobs. The box inside is opaque here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dangad.errors import DangadError
    from dangad.interfaces import IClient, IWorker


class JobState(enum.Enum):
    """Where a job is in its life; the last five are ends, and a job has exactly one end."""

    QUEUED = "queued"
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


class Priority(enum.IntEnum):
    """How urgent a job is; a smaller number goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class Policy:
    """What a job type asks of the dispatcher, announced by the workers that perform it."""

    time_limit: float | None = None
    """Seconds that one attempt may run; None for no limit."""
    retries: int = 0
    """How often a job may run again after its worker died."""
    max_running: int | None = None
    """How many jobs of the type may run at once; None for no limit."""
    on_disconnect: Literal["cancel", "finish"] = "cancel"
    """What becomes of a running job whose client disconnects."""


class Job:
    """A request that was received, from then until its one end.

    All mutable state: `client` becomes None when nobody is left to be told; `state`,
    `attempt`, `worker`, `accepted_at`, `started_at` and `stopped_for` belong to the
    dispatcher. Times are seconds of the dispatcher's clock.

    :ivar id: a number, unique while the server lives.
    :ivar client: who gets the outcome.
    :ivar tag: the client's own name for the request (its ``_ask``), None if it wants no answer.
    :ivar command: the AMP command's name.
    :ivar box: the request, byte for byte as it came.
    :ivar priority: how urgent the client says it is.
    :ivar deadline: seconds from acceptance until an answer is useless; None for ever.
    :ivar attempt: 0 while it waits for its first start, then 1, 2, ...
    :ivar worker: who runs it, None while it does not run.
    :ivar stopped_for: why a running job is being stopped, None while it is not.
    """

    __slots__ = (
        "accepted_at",
        "attempt",
        "box",
        "client",
        "command",
        "deadline",
        "id",
        "priority",
        "started_at",
        "state",
        "stopped_for",
        "tag",
        "worker",
    )

    def __init__(
        self,
        id: int,
        client: IClient | None,
        tag: bytes | None,
        command: bytes,
        box: bytes,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
    ) -> None:
        self.id = id
        self.client = client
        self.tag = tag
        self.command = command
        self.box = box
        self.priority = priority
        self.deadline = deadline
        self.state = JobState.QUEUED
        self.attempt = 0
        self.worker: IWorker | None = None
        self.stopped_for: DangadError | None = None
        self.accepted_at = 0.0
        self.started_at = 0.0

    @property
    def name(self) -> str:
        """The command's name as text fit for a log line or an error, whatever its bytes."""
        return self.command[:100].decode("ascii", "backslashreplace")

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name} {self.state.value}>"
