"""Which worker has which jobs, and which workers are idle.

Kept by :mod:`dangad.scheduler.dispatcher` and its parts. A busy worker has a row of jobs: it runs
the first, and the others are prefetched (:mod:`dangad.scheduler.prefetch`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from dangad.scheduler.interfaces import IClient, IWorker
    from dangad.scheduler.record import Job
    from dangad.scheduler.registry import Registry


class Assignments:
    """Workers and their jobs. Always true: an idle worker has no row of jobs."""

    __slots__ = (
        "_registry",
        "called_back",
        "doomed",
        "idle",
        "jobs",
        "prefetched",
        "size",
        "unused",
    )

    def __init__(self, registry: Registry) -> None:
        """Begin with no workers.

        :param registry: which commands each worker performs.
        """
        #: The idle workers, each with the time since which it is idle; the last used is the last.
        self.idle: dict[IWorker, float] = {}
        #: The workers that have not had a job yet.
        self.unused: set[IWorker] = set()
        #: The row of jobs of each busy worker. First is the worker that has begun no job for
        #: longest.
        self.jobs: dict[IWorker, list[Job]] = {}
        #: How many jobs are prefetched.
        self.prefetched = 0
        #: The bytes of the requests of prefetched jobs.
        self.size = 0
        #: Workers that are being killed, and why.
        self.doomed: dict[IWorker, str] = {}
        #: Workers of which the supervisor wants one: the first to end its job gets no other job.
        self.called_back: Collection[IWorker] = ()
        self._registry = registry

    # Who is idle.

    def take_idle(self, command: bytes) -> IWorker:
        """Take out the idle worker that can start `command` and was used last.

        A worker that has not had a job yet is taken only if `command` needs one, or none else is
        there.

        :raises LookupError: no idle worker can start `command`.
        """
        registry = self._registry
        if command not in registry.choosy and not (registry.isolated and self.unused):
            return self.idle.popitem()[0]
        able = [worker for worker in self.idle if self._is_able(worker, command)]
        used = [worker for worker in able if worker not in self.unused]
        for worker in reversed(used or able):
            del self.idle[worker]
            return worker
        raise LookupError(command)

    def _is_able(self, worker: IWorker, command: bytes) -> bool:
        """Whether `worker`, which is idle, can start `command`."""
        registry = self._registry
        return (command not in registry.isolated or worker in self.unused) and (
            command not in registry.partial or registry.performs(worker, command)
        )

    def remove_idle(self, worker: IWorker) -> bool:
        """Take `worker` out of the idle ones; whether it was idle."""
        return self.idle.pop(worker, None) is not None

    def idle_since(self, before: float) -> IWorker | None:
        """The worker that has been idle for longest, if since `before`; it is not taken out."""
        for worker, since in self.idle.items():
            return worker if since <= before else None
        return None

    def can_start(self, command: bytes) -> bool:
        """Whether any idle worker can start `command`."""
        return any(self._is_able(worker, command) for worker in self.idle)

    # Who runs what.

    def running(self) -> Iterator[Job]:
        """The jobs that run, judged by the answers that the parent has read."""
        return (row[0] for row in self.jobs.values())

    def waiting(self) -> Iterator[Job]:
        """The jobs that are prefetched, judged likewise."""
        return (job for row in self.jobs.values() for job in row[1:])

    def jobs_of(self, client: IClient) -> list[Job]:
        """All jobs of `client` that workers have."""
        return [job for row in self.jobs.values() for job in row if job.client is client]

    def worker_of(self, job: Job) -> IWorker | None:
        """The worker that has `job`, whatever `job.worker` says."""
        return next((worker for worker, row in self.jobs.items() if job in row), None)

    def last(self, worker: IWorker) -> Job | None:
        """After a `reclaim`: the last job that `worker` has begun; None if it is idle."""
        row = self.jobs.get(worker)
        return row[-1] if row else None

    def first_with_prefetched(self) -> IWorker | None:
        """The worker that has prefetched jobs and has begun none for longest, if any has."""
        if not self.prefetched:
            return None
        for worker, row in self.jobs.items():
            if len(row) > 1:
                return worker
        return None

    def next_of(self, worker: IWorker) -> Job | None:
        """Drop the job that `worker` ran. Returns the next in its row: the worker has begun it.

        None if there is no next job: then the worker has no row any more, and is not idle yet.
        """
        row = self.jobs.pop(worker)
        del row[0]
        if not row:
            return None
        self.jobs[worker] = row  # as the last of them
        job = row[0]
        self.prefetched -= 1
        self.size -= job.size
        return job
