"""How many jobs are prefetched, and which: the jobs in the pipe of a busy worker.

Kept by :mod:`dangad.scheduler.matching`; the jobs themselves are in
:mod:`dangad.scheduler.assignments`. A worker sleeps while its answer goes to the parent and the
next job comes. Putting a process to sleep and waking it costs more than a small job. So while short
jobs wait, a busy worker already has the next few in its pipe. Message brokers prefetch in the same
way, but here a prefetched job still waits like any other. The parent reclaims it from the pipe when
another worker could begin it sooner, when a job comes whose turn is earlier, and when its client
cancels it or is gone.

The pipe decides, once, whether the worker or the parent gets a prefetched job. A job that could not
be reclaimed has been begun, and the answers to the jobs before it are written. So after a reclaim
only the last job of a worker can be running. Each job before it has been answered, and ends when
its answer is read. Hence the law: reclaim before you interrupt.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from dangad.scheduler.record import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dangad.scheduler.assignments import Assignments
    from dangad.scheduler.fairqueue import JobQueue
    from dangad.scheduler.interfaces import IClient, IWorker
    from dangad.scheduler.record import Job

MOST = 8
"""The most jobs that a worker has prefetched; a pipe of Linux holds 16."""
MOST_BYTES = 4000
"""Bytes of the largest request that is prefetched: with its head, one page of a pipe."""
SOON = 0.004
"""Seconds in which a worker should begin all its prefetched jobs, at the present pace."""
SLOW = 0.02
"""Seconds of a job's run above which prefetching gains nothing. The jobs prefetched behind a job
that has run for longer are reclaimed, for the next worker that could begin them."""
SMOOTHING = 0.25
"""The weight of the last job in the average run time, from 0 to 1."""
CROWDED = 100
"""How many jobs must end, after prefetched ones were reclaimed for a job with an earlier turn,
before a worker may prefetch more than one job again. Otherwise the jobs of a client that floods
would be reclaimed for each single job of a client that waits for its answers."""
QUIET_TIME = 10.0
"""Seconds after a job has printed in which no job of its type is prefetched, nor any job behind one
of its type. A worker's output does not say whose it is: the parent ascribes it to the job whose
answer it has yet to read."""
LONG = 0.2
"""Seconds of one run, ended or not, above which its command does not count as short for a time. Ten
times :data:`SLOW`: a garbage collection or a busy machine rarely takes so long."""
CAUTION = 20
"""After a run of more than :data:`LONG` seconds, its command does not count as short for this many
times its length. So a job that turns out to be long keeps a worker from others for a twentieth of
the time at most."""
MOST_CAUTION = 600.0
"""The most seconds for which a command does not count as short after a long run: a machine may halt
for hours."""
LOOK_INTERVAL = 0.1
"""The fewest seconds between two checks for running jobs that have become long."""


class Prefetch:
    """The pace of the jobs, and the prefetching and reclaiming that follow from it.

    A worker that raises when it is given a job, or when jobs are reclaimed from it, counts as
    having begun all its jobs. It is killed. Jobs that it had not begun are reclaimed when it is
    gone.
    """

    __slots__ = (
        "_assignments",
        "_crowded",
        "_failed",
        "_long",
        "_pace",
        "_paces",
        "_put_back",
        "_queue",
        "_short",
        "next_look",
        "printed",
    )

    def __init__(
        self,
        assignments: Assignments,
        queue: JobQueue,
        put_back: Callable[[Job], object],
        failed: Callable[[IWorker, Job], object],
    ) -> None:
        """Begin by taking all jobs for long ones.

        :param put_back: called with each job that is reclaimed, the last one first.
        :param failed: called with a worker that raised and the job concerned, while the exception
            is handled.
        """
        #: When `look` is to be called again.
        self.next_look = 0.0
        self._assignments = assignments
        self._queue = queue
        self._put_back = put_back
        self._failed = failed
        #: How many more jobs must end before a worker may prefetch more than one.
        self._crowded = 0
        #: The average seconds of recent runs.
        self._pace = 5 * SLOW
        #: The types whose jobs are known to be short.
        self._short: set[bytes] = set()
        #: The average seconds of a run of each type; quick runs of a short type are left out.
        self._paces: dict[bytes, float] = {}
        #: Until when a type does not count as short, because one of its jobs was long.
        self._long: dict[bytes, float] = {}
        #: When a job of each type last printed.
        self.printed: dict[bytes, float] = {}

    # What is learned.

    def note(self, job: Job, printed: bool) -> None:
        """Note that `job` has ended, and whether it has printed anything."""
        ran = job.ended_at - job.started_at
        if ran > SLOW or job.command not in self._short:
            self._judge(job.command, ran, job.ended_at)
        self._pace += SMOOTHING * (min(ran, 5 * SLOW) - self._pace)
        if self._crowded:
            self._crowded -= 1
        if printed:
            self.printed[job.command] = job.ended_at

    def look(self, running: Iterable[Job], now: float) -> None:
        """Check which running jobs have become long; to be called at `next_look` or later."""
        self.next_look = now + LOOK_INTERVAL
        for job in running:
            if now - job.started_at > LONG:
                self._judge(job.command, now - job.started_at, now)

    def _judge(self, command: bytes, ran: float, now: float) -> None:
        """Note how long a job of this type has run, and whether the type counts as short now."""
        if ran > LONG:
            until = now + min(CAUTION * ran, MOST_CAUTION)
            self._long[command] = max(until, self._long.get(command, 0.0))
        pace = self._paces.get(command, 5 * SLOW)
        pace += SMOOTHING * (min(ran, 5 * SLOW) - pace)
        self._paces[command] = pace
        if pace > SLOW or self._long.get(command, 0.0) > now:
            self._short.discard(command)
        elif pace < SLOW / 2:
            self._short.add(command)

    # What follows from it.

    def room(self, worker: IWorker, waiting: int, busy: int) -> int:
        """How many more jobs `worker` may prefetch.

        :param waiting: how many jobs wait, including the prefetched ones.
        :param busy: how many workers are busy; the waiting jobs are divided among these.
        """
        if self._pace > SLOW:
            return 0
        most = MOST if self._pace * MOST <= SOON else max(1, int(SOON / self._pace))
        if self._crowded:
            most = 1
        return min(most, waiting // busy) - len(self._assignments.jobs[worker]) + 1

    def may_follow(self, worker: IWorker, job: Job) -> bool:
        """Whether `worker` may prefetch `job` behind the jobs that it has.

        It may if the job's type is known to be short. It also may if all jobs of the worker are the
        same client's: this client has the worker anyway.
        """
        if job.command in self._short:
            return True
        return all(other.client is job.client for other in self._assignments.jobs[worker])

    def is_quiet(self, job: Job, now: float) -> bool:
        """Whether no job of this type has printed recently."""
        printed = self.printed.get(job.command)
        if printed is None:
            return True
        if now - printed < QUIET_TIME:
            return False
        del self.printed[job.command]
        return True

    # Giving and reclaiming.

    def give(self, worker: IWorker, job: Job) -> bool:
        """Give `job` from the queue to `worker`, which is busy, or put the job back.

        True if the worker took it and may be given another job.
        """
        more = True
        try:
            if not worker.give(job):
                self._put_back(job)
                return False
        except Exception:  # noqa: BLE001 - whatever it was, the worker may have the job
            self._failed(worker, job)
            more = False
        job.live(Event.PREFETCH)
        job.worker = worker
        self._assignments.prefetched += 1
        self._assignments.size += job.size
        self._assignments.jobs[worker].append(job)
        return more

    def reclaim(self, worker: IWorker | None) -> bool:
        """Let the prefetched jobs that `worker` has not begun wait again; whether there were any.

        Must be called before a job of the worker is interrupted.
        """
        row = None if worker is None else self._assignments.jobs.get(worker)
        if worker is None or row is None or len(row) < 2:
            return False
        try:
            ids = worker.reclaim()
        except Exception:  # noqa: BLE001 - whatever it was, the worker may have begun them
            self._failed(worker, row[1])
            return False
        back = [job for job in islice(row, 1, None) if job.id in ids]
        if not back:
            return False
        row[:] = [job for job in row if job not in back]
        if len(row) > 1:  # it has begun another job: it goes behind the other workers
            self._assignments.jobs[worker] = self._assignments.jobs.pop(worker)
        for job in reversed(back):
            job.live(Event.RECLAIM)
            job.worker = None
            self._assignments.prefetched -= 1
            self._assignments.size -= job.size
            self._put_back(job)
        self.reclaim_outranked()
        return True

    def reclaim_all(self) -> None:
        """Reclaim the prefetched jobs of all workers."""
        if self._assignments.prefetched:
            for worker in list(self._assignments.jobs):
                self.reclaim(worker)

    def reclaim_of(self, client: IClient) -> list[Job]:
        """Reclaim the prefetched jobs of `client`; returns its jobs that workers have begun."""
        for job in self._assignments.jobs_of(client):
            self.reclaim(job.worker)
        return self._assignments.jobs_of(client)

    def reclaim_some(self) -> bool:
        """Reclaim the prefetched jobs of one worker, for an idle one; whether there were any."""
        return self._assignments.prefetched > 0 and any(
            self.reclaim(worker) for worker in list(self._assignments.jobs)
        )

    def reclaim_outranked(self) -> None:
        """Reclaim prefetched jobs if a job with an earlier turn has come."""
        assignments, news = self._assignments, self._queue.news
        if not assignments.prefetched or news is None:
            return
        client, priority = news
        self._queue.news = None
        for worker, row in list(assignments.jobs.items()):
            if len(row) < 2:
                continue
            prefetched = row[1:]
            if any(job.client is client and job.priority > priority for job in prefetched):
                self.reclaim(worker)
                continue
            suspects = prefetched if client is None else prefetched[-1:]
            if any(map(self._queue.is_before, suspects)) and self.reclaim(worker):
                self._crowded = CROWDED
