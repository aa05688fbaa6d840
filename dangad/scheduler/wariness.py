"""Which job starts next while some clients do not read the parts of their results.

Kept by :mod:`dangad.scheduler.matching`; whose turn it is stays
:mod:`dangad.scheduler.fairqueue`'s to say. A job that sends parts may be paused for long, and
keep its worker from others meanwhile: :mod:`dangad.scheduler.pauses` bounds this for one job.
Here it is bounded for any number of them: one worker is left to jobs that send no parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.chores import PART
from dangad.scheduler.pauses import ASIDE, HURRY, KEEP, WARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.scheduler.record import Job
    from dangad.scheduler.state import State


class Wariness:
    """For a time after a job was paused while others waited, jobs that send parts stand back.

    A job is set aside that would take the last worker that makes progress. It may have this worker
    once no other job has come for :data:`~dangad.scheduler.pauses.KEEP` seconds, and one of them
    may in any case every :data:`~dangad.scheduler.pauses.ASIDE` seconds.
    """

    def __init__(self, state: State, come_back: Callable[[float], object]) -> None:
        """Begin with no need for it.

        :param come_back: called with the seconds after which `pop` may have another answer.
        """
        #: Whether `pop` is to be asked, and not the queue.
        self.active = False
        self._state = state
        self._come_back = come_back
        #: Until when jobs that send parts stand back.
        self._until = 0.0
        #: Until when the last worker is kept for others, though none of theirs waits now.
        self._kept_until: float | None = None
        #: Since when none of the jobs has started that are set aside.
        self._aside_since = 0.0

    def begin(self) -> None:
        """A job is paused: begin, or go on, if others wait who were not set aside."""
        state = self._state
        if state.queue.has_turn() or state.assignments.prefetched:
            self._until = state.clock.seconds() + WARY
            self.active = True

    def lasts(self, now: float) -> bool:
        """Whether a job that sends parts must not start just because a worker is idle."""
        return now < self._until

    def pop(self, now: float) -> Job | None:
        """Take the job that starts next out of the queue; None if none may start now."""
        queue = self._state.queue
        over = now >= self._until
        if over and not queue.aside:
            self.active = False
        late = bool(queue.aside) and now - self._aside_since >= ASIDE
        all_may = late or over or self._others_move(now)
        if all_may:
            queue.call_one()
        for _ in range(PART):
            job = queue.pop(now)
            if job is None:
                if not queue.aside or self._is_kept(now):
                    return None
                all_may = queue.call_one()
            elif all_may or not job.wants_chunks:
                self._kept_until = None
                if job.wants_chunks:
                    self._aside_since = now
                return job
            else:
                if not queue.aside:
                    self._aside_since = now
                queue.set_aside(job)
        self._come_back(0)
        return None

    def _is_kept(self, now: float) -> bool:
        """Whether the last worker is kept for jobs without parts, of which none waits now.

        A client that has one short job done after the other would else find it taken each time.
        """
        if self._kept_until is None:
            self._kept_until = now + KEEP
        if now >= self._kept_until:
            return False
        self._come_back(self._kept_until - now)
        return True

    def _others_move(self, now: float) -> bool:
        """Whether a second worker is idle, or one has only just begun a job without parts."""
        assignments = self._state.assignments
        return len(assignments.idle) > 1 or any(
            not job.wants_chunks and now - job.started_at < HURRY for job in assignments.running()
        )
