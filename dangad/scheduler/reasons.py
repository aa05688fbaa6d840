"""Why a job was refused, or ended without an answer, in sentences for its client.

Used by :mod:`dangad.scheduler.dispatcher` and its parts: they decide, and this module has the
words. It also knows which event of a job's life each kind of error stands for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dangad.errors import (
    Cancelled,
    DangadError,
    DeadlinePassed,
    JobFailed,
    NoWorkers,
    QueueFull,
    ShuttingDown,
    TimedOut,
    UnhandledCommand,
    WorkerLost,
)
from dangad.scheduler.record import Event

if TYPE_CHECKING:
    from dangad.scheduler.record import Death, Job

_EVENTS: dict[type[DangadError], Event] = {
    Cancelled: Event.CANCEL,
    DeadlinePassed: Event.TIME_OUT,
    ShuttingDown: Event.CANCEL,
    TimedOut: Event.TIME_OUT,
    WorkerLost: Event.LOSE,
}


def event_of(error: DangadError) -> Event:
    """The event that ends a job with `error`."""
    return _EVENTS.get(type(error), Event.GIVE_UP)


def stopping() -> DangadError:
    """The server accepts no more jobs."""
    return ShuttingDown("the server is stopping and takes no new jobs")


def stopped(seconds: float) -> DangadError:
    """The drain has lasted for `seconds`, its limit, which may be 0."""
    if not seconds:
        return ShuttingDown("the server was stopped at once, before the job had ended")
    return ShuttingDown(f"the server stopped; the job had not ended after {seconds:g} s")


def pauses_nothing() -> DangadError:
    """A server that drains cannot pause jobs."""
    return ShuttingDown("the server is stopping, and finishes its jobs: none can be paused")


def unhandled(job: Job) -> DangadError:
    """No worker knows the command."""
    return UnhandledCommand(f"no worker performs {job.name}")


def no_workers(reason: str) -> DangadError:
    """No worker can be started."""
    return NoWorkers(f"no worker can be started: {reason}")


def quarantined(job: Job, seconds: float) -> DangadError:
    """The command is kept away from workers for `seconds` more."""
    return NoWorkers(
        f"{job.name} has killed too many workers in a row, and is refused for another "
        f"{math.ceil(seconds)} s"
    )


def too_many_wait(limit: int) -> DangadError:
    """As many jobs wait as are allowed."""
    return QueueFull(f"{limit} jobs wait already, which is --max-queued")


def too_much_waits(size: int, limit: int) -> DangadError:
    """The requests of waiting jobs have so many bytes that this one has no room."""
    return QueueFull(
        f"the jobs that wait have {size} bytes, and with this one would have more than "
        f"--max-queued-bytes {limit}"
    )


def came_late(job: Job) -> DangadError:
    """The deadline of the job leaves it no time at all."""
    return DeadlinePassed(f"{job.name} came with a deadline of 0 s")


def waited_too_long(job: Job) -> DangadError:
    """The deadline passed while the job waited."""
    text = f"{job.name} waited for its deadline, {job.deadline:g} s"
    return DeadlinePassed(f"{text}; {job.past}" if job.attempt else text)


def cannot_be_done(job: Job, left: float, takes: float) -> DangadError:
    """The deadline leaves less time than jobs of this type take."""
    return DeadlinePassed(
        f"{job.name} was not started: {left:.3g} s were left of its deadline, {job.deadline:g} s, "
        f"and it takes {takes:.3g} s or more; {job.past}"
    )


def reached_deadline(job: Job, ran: float) -> DangadError:
    """The deadline passed while the job ran."""
    return DeadlinePassed(
        f"{job.name} reached its deadline, {job.deadline:g} s, after {ran:.1f} s of its run"
    )


def ran_too_long(job: Job, ran: float) -> DangadError:
    """The job reached the time limit of its type."""
    waited = job.started_at - job.accepted_at
    return TimedOut(
        f"{job.name} ran for its time limit, {ran:.1f} s, after it had waited {waited:.1f} s"
    )


def cancelled_waiting(job: Job) -> DangadError:
    """The job was cancelled while it waited."""
    return Cancelled(f"{job.name} was cancelled while it waited; {job.past}")


def withdrawn_waiting(job: Job) -> DangadError:
    """An operator cancelled the job while it waited."""
    return Cancelled(f"{job.name} was cancelled by an operator while it waited; {job.past}")


def withdrawn_running(job: Job, ran: float) -> DangadError:
    """An operator cancelled the job while it ran."""
    return Cancelled(f"{job.name} was cancelled by an operator {ran:.1f} s into its run")


def not_read(job: Job, seconds: float) -> DangadError:
    """The job kept its worker from others while its client did not read."""
    return Cancelled(
        f"{job.name} was ended: its client did not read the parts of its result for "
        f"{seconds:.0f} s in all, while other jobs waited for its worker"
    )


def cancelled_running(job: Job, ran: float) -> DangadError:
    """The job was cancelled while it ran."""
    return Cancelled(f"{job.name} was cancelled {ran:.1f} s into its run")


def broken(job: Job) -> DangadError:
    """The server itself failed in the middle of an event of the job's life."""
    return JobFailed(
        f"the server failed while it dealt with job {job.id} {job.name}, and ended it; "
        f"{job.past}; the server's log says why"
    )


def client_left() -> DangadError:
    """The client of the job is gone."""
    return Cancelled("its client disconnected")


def lost(job: Job, pid: int, death: Death, ran: float) -> WorkerLost:
    """The worker of the job is dead."""
    return WorkerLost(f"worker {pid} {death.how} {ran:.1f} s into {job.name}{death.details}")


def as_one_that_ran(job: Job, error: DangadError) -> DangadError:
    """`error`, or for a job that has lost a worker an error which says that the job has run."""
    if job.lost_for is None or not isinstance(error, NoWorkers):
        return error
    return WorkerLost(f"{job.lost_for}; it is not tried again: {error}")
