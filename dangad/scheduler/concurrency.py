"""Which waiting jobs are kept back although a worker is idle: by lanes of the queue.

Kept by :mod:`dangad.scheduler.dispatcher`. Most jobs wait in the queue's common lane. A job type
has a lane of its own if it has `max_running`, if not all workers perform it, or if its jobs need
workers that have not had a job yet. The lane is closed while none of its jobs may start. All jobs
that operators have paused wait in one lane, which is always closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dangad.scheduler.lines import PAUSED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dangad.scheduler.assignments import Assignments
    from dangad.scheduler.fairqueue import JobQueue
    from dangad.scheduler.record import Job
    from dangad.scheduler.registry import Registry


class Paused(NamedTuple):
    """Which jobs do not start until an operator resumes them."""

    all: bool = False
    """Whether all jobs are paused."""
    commands: frozenset[bytes] = frozenset()
    """The commands that are paused one by one. They stay so when all jobs are paused, too."""

    def holds(self, command: bytes) -> bool:
        """Whether the jobs of `command` are paused."""
        return self.all or command in self.commands


NOTHING = Paused()
"""Nothing is paused."""


class Lanes:
    """Opens and closes lanes."""

    def __init__(self, queue: JobQueue, registry: Registry, assignments: Assignments) -> None:
        self._queue = queue
        self._registry = registry
        self._assignments = assignments
        #: How many jobs of each lane run. Has each lane that was ever closed: new code may open it.
        #: The queue knows which lanes are closed.
        self._running: dict[bytes, int] = {}
        #: What is paused; None if nothing is.
        self.paused: Paused | None = None

    def lane_of(self, job: Job) -> bytes | None:
        """The lane in which `job` waits; None is the common one."""
        if self.paused is not None and self.paused.holds(job.command):
            return PAUSED
        return self.running_lane_of(job)

    def running_lane_of(self, job: Job) -> bytes | None:
        """The lane in which `job` counts as running; None is the common one."""
        command = job.command
        if job.policy.max_running is None:
            return command if command in self._registry.choosy else None
        return command

    def started(self, lane: bytes) -> None:
        """A job of `lane` runs from now on."""
        self._running[lane] = self._running.get(lane, 0) + 1
        self._set(lane)

    def ended(self, lane: bytes) -> None:
        """A job of `lane` has ended. It may not have counted as running, if its start failed."""
        self._running[lane] = max(0, self._running.get(lane, 0) - 1)
        self._set(lane)

    def idle_changed(self) -> None:
        """The set of idle workers has changed."""
        for lane in self._registry.choosy:
            self._set(lane)

    @property
    def lack_unused(self) -> bool:
        """Whether a job waits for nothing but a worker that has not had a job yet."""
        return any(
            self._queue.keeps_back(lane) and not self._is_full(lane)
            for lane in self._registry.isolated
        )

    def review(self, running: Iterable[Job]) -> None:
        """The catalogue has changed: count the `running` jobs of each lane anew."""
        self._running = dict.fromkeys(self._running, 0)
        for job in running:
            job.lane = self.running_lane_of(job)
            if job.lane is not None:
                self._running[job.lane] = self._running.get(job.lane, 0) + 1
        for lane in {*self._running, *self._registry.choosy}:
            self._set(lane)

    def _set(self, lane: bytes) -> None:
        """Close `lane` if none of its jobs may start, and open it if one may."""
        choosy = lane in self._registry.choosy
        if self._is_full(lane) or (choosy and not self._assignments.can_start(lane)):
            self._running.setdefault(lane, 0)
            self._queue.close_lane(lane)
        else:
            self._queue.open_lane(lane)

    def _is_full(self, lane: bytes) -> bool:
        """Whether as many jobs of `lane` run as its `max_running` allows."""
        limit = self._registry.policy(lane).max_running
        return limit is not None and self._running.get(lane, 0) >= limit
