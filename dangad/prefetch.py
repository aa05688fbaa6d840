"""Jobs that busy workers were given ahead, to begin as soon as they have answered the last.

Kept by :mod:`dangad.dispatcher`. A worker that has to wait for its next job sleeps for as long as
its answer takes to the parent and the job takes back, and to put it to sleep and to wake it
costs more than a small job does. So while jobs wait and are short, a busy worker has the next
few in its pipe already, as message brokers prefetch. Unlike theirs, these jobs still wait as all
others do: the parent takes them back out of the pipe whenever another worker could begin them
sooner, a more urgent job has come, or their client has changed its mind. Whether the worker or
the parent gets a job is decided by the pipe, once.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from dangad.jobrecord import Priority

if TYPE_CHECKING:
    from collections.abc import Collection

    from dangad.interfaces import IClient, IWorker
    from dangad.jobrecord import Job

MOST = 8
"""Jobs that a worker has ahead at most; a pipe of Linux holds 16."""
MOST_BYTES = 4000
"""Bytes of the largest request that is given ahead: with what is added, one page of a pipe."""
SOON = 0.004
"""Seconds in which a worker should begin all that it has ahead, at the present pace."""
SLOW = 0.02
"""Seconds a job above which nothing is gained, and after which a job that waits behind one that
has not ended is taken back for the next worker that could begin it."""
SMOOTHING = 0.25
"""How much the last job counts for the pace; the rest is what went before."""
QUIET_TIME = 10.0
"""Seconds after a job has printed in which none of its type, nor any behind one, goes ahead.

What a worker prints is known for that of the job that runs as far as the parent knows."""


class Prefetch:
    """The jobs that workers have ahead, and how many they may.

    All mutable state: `_decks`, the jobs that each worker has ahead, of those that have any;
    the worker first that has begun none for longest; `_counts`, how many they are of each
    priority; `_pace`, how many seconds a job took of late; `_printed`, when a job of each type
    printed last.
    """

    def __init__(self) -> None:
        self._decks: OrderedDict[IWorker, deque[Job]] = OrderedDict()
        self._counts = [0 for _ in Priority]
        self._pace = 5 * SLOW
        self._printed: dict[bytes, float] = {}

    def __bool__(self) -> bool:
        """Whether any worker has jobs ahead."""
        return bool(self._decks)

    def workers(self) -> list[IWorker]:
        """Those that have jobs ahead, the one first that has begun none for longest."""
        return list(self._decks)

    def has(self, worker: IWorker) -> bool:
        """Whether `worker` has jobs ahead."""
        return worker in self._decks

    def jobs_of(self, client: IClient) -> list[Job]:
        """The jobs of `client` that workers have ahead."""
        return [job for deck in self._decks.values() for job in deck if job.client is client]

    def lowest(self) -> Priority:
        """The least urgent priority of all jobs ahead."""
        low = Priority.LOW if self._counts[Priority.LOW] else Priority.NORMAL
        return low if self._counts[low] else Priority.HIGH

    def lowest_of(self, worker: IWorker) -> Priority:
        """The least urgent priority of the jobs that `worker` has ahead; the highest if none."""
        return max((job.priority for job in self._decks.get(worker, ())), default=Priority.HIGH)

    def longest_waiting(self) -> IWorker | None:
        """The worker that has jobs ahead and has begun none for longest; None if none has any."""
        return next(iter(self._decks), None)

    # How many.

    def note(self, job: Job, printed: bool) -> None:
        """`job` has ended; `printed` is whether it has printed anything."""
        ran = min(job.ended_at - job.started_at, 5 * SLOW)
        self._pace += SMOOTHING * (ran - self._pace)
        if printed:
            self._printed[job.command] = job.ended_at

    def room(self, worker: IWorker, waiting: int, busy: int) -> int:
        """How many more jobs `worker` may have ahead.

        :param waiting: how many jobs wait, those ahead included.
        :param busy: how many workers run one, between whom they are shared.
        """
        if self._pace > SLOW:
            return 0
        most = MOST if self._pace * MOST <= SOON else max(1, int(SOON / self._pace))
        return min(most, waiting // busy) - len(self._decks.get(worker, ()))

    def is_quiet(self, job: Job, now: float) -> bool:
        """Whether no job of this type has printed of late."""
        if not self._printed or (printed := self._printed.get(job.command)) is None:
            return True
        if now - printed < QUIET_TIME:
            return False
        del self._printed[job.command]
        return True

    # Which.

    def add(self, worker: IWorker, job: Job) -> None:
        """`worker` was given `job`, after those that it has ahead."""
        job.worker = worker
        self._counts[job.priority] += 1
        self._decks.setdefault(worker, deque()).append(job)

    def next(self, worker: IWorker) -> Job | None:
        """The job that `worker` begins now, taken out; None if it has none ahead."""
        deck = self._decks.get(worker)
        if deck is None:
            return None
        job = deck.popleft()
        self._counts[job.priority] -= 1
        if deck:
            self._decks.move_to_end(worker)
        else:
            del self._decks[worker]
        return job

    def remove(self, worker: IWorker, ids: Collection[int]) -> list[Job]:
        """Take out the jobs with these ids, which `worker` has not begun; in their order."""
        back = [job for job in self._decks.get(worker, ()) if job.id in ids]
        begun = deque(job for job in self._decks.pop(worker, ()) if job.id not in ids)
        for job in back:
            job.worker = None
            self._counts[job.priority] -= 1
        if begun:
            self._decks[worker] = begun
        return back
