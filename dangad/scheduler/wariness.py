"""Which job starts next while some clients are dear: they do not read, or have cost a worker.

Kept by :mod:`dangad.scheduler.matching`; whose turn it is stays
:mod:`dangad.scheduler.fairqueue`'s to say. A job that sends parts may be paused for long, and keep
its worker from others meanwhile: :mod:`dangad.scheduler.pauses` bounds this for one job. And a job
that is stopped, or kills its worker, takes that worker from all, until another has started. Here
both are bounded for any number of jobs: one worker is left to others.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from dangad.scheduler.chores import PART
from dangad.scheduler.pauses import HURRY

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.record import Job
    from dangad.scheduler.state import State

WARY = 10.0
"""Seconds for which jobs that send parts leave the last worker to others, after one of them was
paused while others waited."""
KEEP = 0.25
"""Seconds for which the last worker is kept for jobs that do not stand back, once it is idle: so long may a
client take to ask for its next job."""
ASIDE = 5.0
"""Seconds after which one of the jobs that leave the last worker to others gets it all the same."""
DEBT = 5.0
"""Seconds after which a worker that a client has cost counts as replaced in any case."""


class Wariness:
    """Some jobs stand back, and leave the last worker that makes progress to others.

    These are jobs that send parts, for a time after one was paused while others waited; and the
    jobs of a client whose job has cost a worker, until another worker has started. A job that would
    take that worker is set aside. It may have the worker if no other job runs, nor has done so for
    :data:`KEEP` seconds; and one of them may in any case every
    :data:`ASIDE` seconds.
    """

    def __init__(self, state: State, come_back: Callable[[float], object]) -> None:
        """Begin with no need for it.

        :param come_back: called with the seconds after which `pop` may have another answer.
        """
        #: Whether any job stands back, so that `pop` is to be asked, and not the queue.
        self.active = False
        self._state = state
        self._come_back = come_back
        #: Until when jobs that send parts stand back.
        self._until = 0.0
        #: The workers that are not replaced: whose job has cost each, and until when it counts.
        self._debts: deque[tuple[IClient, float]] = deque()
        #: How many of them each client has cost.
        self._owing: Counter[IClient] = Counter()
        #: When a job ended last that did not stand back.
        self._other_ended = -KEEP
        #: Since when none of the jobs has started that are set aside.
        self._aside_since = 0.0

    def begin(self) -> None:
        """A job is paused: begin, or go on, if others wait who were not set aside."""
        state = self._state
        if state.queue.has_turn() or state.assignments.prefetched:
            self._until = state.clock.seconds() + WARY
            self.active = True

    def charge(self, client: IClient) -> None:
        """A job of `client` has cost a worker."""
        self._debts.append((client, self._state.clock.seconds() + DEBT))
        self._owing[client] += 1
        self.active = True

    def replaced(self) -> None:
        """A worker has started, in place of the one that was lost first."""
        if self._debts:
            client, _ = self._debts.popleft()
            self._owing[client] -= 1
            if not self._owing[client]:
                del self._owing[client]

    def _forget_old(self, now: float) -> None:
        """Count those workers as replaced that were lost long ago."""
        while self._debts and self._debts[0][1] <= now:
            self.replaced()

    def ended(self, job: Job) -> None:
        """`job` has ended: if it did not stand back, another of its client may come at once."""
        now = self._state.clock.seconds()
        if not self.stands_back(job, now):
            self._other_ended = now

    def stands_back(self, job: Job, now: float) -> bool:
        """Whether `job` must not take the last worker just because that is idle."""
        return job.client is not None and (
            (job.wants_chunks and now < self._until) or job.client in self._owing
        )

    def may_wait(self, job: Job, now: float) -> bool:
        """Whether `job`, which comes now, may have to wait although a worker is idle."""
        self._forget_old(now)
        return self.stands_back(job, now) and not self._others_move(now)

    def pop(self, now: float) -> Job | None:
        """Take the job that starts next out of the queue; None if none may start now."""
        queue = self._state.queue
        self.check(now)
        called: list[Job] = []
        job = self._choose(now, called)
        for other in reversed(called):  # which could not start: they stay before the others
            if other is not job and queue.remove(other):
                queue.set_aside(other, first=True)
        return job

    def check(self, now: float) -> None:
        """End if it is time, client by client: all its jobs that stand back have turns again."""
        self._forget_old(now)
        if now >= self._until and not self._debts:
            self._state.queue.call_some()
            if self._state.queue.aside:
                self._come_back(0)
            else:
                self.active = False

    def _choose(self, now: float, called: list[Job]) -> Job | None:
        """Take out the job that starts next; `called` gets those that were set aside before."""
        queue = self._state.queue
        late = bool(queue.aside) and now - self._aside_since >= ASIDE
        all_may = late or self._others_move(now)
        if all_may:
            self._call_one(called)
        for _ in range(PART):
            job = queue.pop(now)
            if job is None:
                if not queue.aside or self._is_kept(now):
                    return None
                if not self._call_one(called):
                    self._come_back(KEEP)
                    return None
                all_may = True
            elif all_may or not self.stands_back(job, now):
                if all_may:
                    self._aside_since = now
                return job
            else:
                if not queue.aside:
                    self._aside_since = now
                queue.set_aside(job)
        self._come_back(0)
        return None

    def _call_one(self, called: list[Job]) -> bool:
        """Let a job be the next that was set aside, of another client than those before."""
        job = self._state.queue.call_one({each.client for each in called if each.client})
        if job is not None:
            called.append(job)
        return job is not None

    def _is_kept(self, now: float) -> bool:
        """Whether the last worker is kept for others, none of whose jobs waits now.

        A client that has one short job done after the other would else find it taken each time.
        """
        left = self._other_ended + KEEP - now
        if left <= 0:
            return False
        self._come_back(left)
        return True

    def _others_move(self, now: float) -> bool:
        """Whether a second worker is idle, or has just begun a job that does not stand back."""
        assignments = self._state.assignments
        return len(assignments.idle) > 1 or any(
            now - job.started_at < HURRY and not self.stands_back(job, now)
            for job in assignments.running()
        )
