"""Whether a job may come in, may wait, and may start; and if not, why.

:mod:`dangad.scheduler.dispatcher` asks this when a job is submitted, and
:mod:`dangad.scheduler.matching` when a job's turn has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler import reasons

if TYPE_CHECKING:
    from dangad.errors import DangadError
    from dangad.scheduler.record import Job
    from dangad.scheduler.state import State
    from dangad.scheduler.wariness import Wariness


class Admission:
    """The bounds of the queue, and the conditions for a start."""

    #: Which jobs may have to wait although a worker is idle.
    wariness: Wariness

    def __init__(self, state: State, max_queued: int, max_queued_bytes: int) -> None:
        """Begin with these bounds.

        :param max_queued: how many jobs may wait, of all clients together.
        :param max_queued_bytes: how many bytes the requests of waiting jobs may have together.
        """
        self.max_queued = max_queued
        self.max_queued_bytes = max_queued_bytes
        self._state = state

    def refusal(self, job: Job, now: float, may_start: bool) -> DangadError | None:
        """Why `job`, which is submitted, is refused; None if it is accepted.

        :param may_start: whether the job need not wait.
        """
        state = self._state
        if state.draining:
            return reasons.stopping()
        if state.registry.known and job.command not in state.registry.policies:
            return reasons.unhandled(job)
        if state.no_workers is not None:
            return reasons.no_workers(state.no_workers)
        if state.quarantine.suspects and (
            seconds := state.quarantine.seconds_left(job.command, now)
        ):
            return reasons.quarantined(job, seconds)
        if job.deadline is not None:
            if job.deadline <= 0:
                return reasons.came_late(job)
            if (hopeless := self._hopeless(job, job.deadline, now)) is not None:
                return hopeless
        if may_start and not (self.wariness.active and self.wariness.may_wait(job, now)):
            return None
        if state.queue.count + state.assignments.prefetched >= self.max_queued:
            return reasons.too_many_wait(self.max_queued)
        size = state.queue.size + state.assignments.size
        if size + job.size > self.max_queued_bytes:
            return reasons.too_much_waits(size, self.max_queued_bytes)
        return None

    def refusal_to_describe(self, by_server: bool) -> DangadError | None:
        """Why a client, or the server itself, may not wait for the catalogue; None if it may."""
        state = self._state
        if state.draining:
            return reasons.stopping()
        if state.no_workers is not None:
            return reasons.no_workers(state.no_workers)
        if not by_server and state.registry.waiting >= self.max_queued:
            return reasons.too_many_wait(self.max_queued)
        return None

    def obstacle(self, job: Job, now: float) -> DangadError | None:
        """Why `job`, whose turn it is, must not start; None if it may. Its alarms may be late."""
        state = self._state
        if job.deadline is not None:
            left = job.accepted_at + job.deadline - now
            if left <= 0:
                return reasons.waited_too_long(job)
            if (hopeless := self._hopeless(job, left, now)) is not None:
                return hopeless
        if state.quarantine.suspects and (
            seconds := state.quarantine.seconds_left(job.command, now)
        ):
            return reasons.quarantined(job, seconds)
        if state.to_review is not None and state.registry.lacks(job.command):
            return reasons.unhandled(job)
        return state.given_up

    def _hopeless(self, job: Job, left: float, now: float) -> DangadError | None:
        """Why `job` is not worth starting with `left` seconds to its deadline; None if it is.

        A worker that no other job waits for has nothing better to do.
        """
        state = self._state
        if not (state.queue.count - state.queue.paused or state.assignments.prefetched):
            return None
        takes = state.run_times.too_short(job.command, left, now)
        return reasons.cannot_be_done(job, left, takes) if takes else None
