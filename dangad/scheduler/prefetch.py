"""Jobs that busy workers were given ahead, to begin as soon as they have answered the last.

Kept by :mod:`dangad.scheduler.dispatcher`. A worker that has to wait for its next job sleeps for as
long as its answer takes to the parent and the job takes back, and to put it to sleep and to wake it
costs more than a small job does. So while jobs wait and are short, a busy worker has the next few
in its pipe already, as message brokers prefetch. Unlike theirs, these jobs still wait as all others
do: the parent takes them back out of the pipe whenever another worker could begin them sooner,
somebody has come whose turn is before theirs, or their client has changed its mind. Whether the
worker or the parent gets a job is decided by the pipe, once.

A job that has gone ahead takes its worker without a look at who has the others. So it goes behind
another client's only if its command is known to be short: else a client's long jobs would have
all workers, one of them behind each other's job, though the last is for the others.

What is not taken back has been begun, and the answers to the jobs before it are written. So
after that, of all the jobs that a worker has, only the last can be running: each one before it
has answered, and is told of when its answer is read.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dangad.scheduler.fairqueue import JobQueue
    from dangad.scheduler.interfaces import IClient, IWorker
    from dangad.scheduler.record import Job

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
CROWDED = 100
"""Jobs that end, after somebody came whose turn was before those ahead, until a worker may have
more than one ahead again: else those of a client that floods would be taken back for each job
of one that waits for its answers."""
QUIET_TIME = 10.0
"""Seconds after a job has printed in which none of its type, nor any behind one, goes ahead.

What a worker prints is known for that of the job that runs as far as the parent knows."""
LONG = 0.2
"""Seconds of one run, ended or not, for which its command is not known to be short for a time. Ten
times :data:`SLOW`: neither a collection of garbage nor a busy machine often takes as long."""
CAUTION = 20
"""So many times as long as that run was. So what turns out to be long takes a worker from others,
against the rule, for a twentieth of their time at most."""
MOST_CAUTION = 600.0
"""Seconds of caution at most: a whole machine may have been halted for hours."""
LOOK_INTERVAL = 0.1
"""Seconds, at least, between two looks at what runs for what has become long."""


class Prefetch:
    """The jobs that workers have ahead, and how many they may.

    They are not in the queue. A worker that raises when it is given one, or is to give some
    back, is taken to have begun them all: it has to be killed, and what it had not begun is
    taken back when it is gone.

    All mutable state: `_prefetched`, the jobs that each worker has ahead, of those that have any;
    the worker first that has begun none for longest; `count`, how many jobs they are together,
    and `size`, their requests' bytes, for others to look at only; `_crowded`, for how many jobs
    yet a worker has one at most; `_pace`, how many seconds a job took of late; `_short`, the types
    whose jobs are known to be short; `_paces`, how many seconds one of each type took, but for
    those that were as quick as is known; `_long`, until when a type of which one was long is not
    known to be short; `next_look`, when `look` is to be called again; `_printed`, when a job of
    each type printed last.
    """

    def __init__(
        self,
        queue: JobQueue,
        put_back: Callable[[Job], object],
        failed: Callable[[IWorker, Job], object],
    ) -> None:
        """Begin with none.

        :param queue: where all other jobs wait.
        :param put_back: called with each job that is taken back; the last of them first.
        :param failed: called with a worker that raised, and the job that it was about, while the
            exception is being handled.
        """
        self.count = 0
        self.size = 0
        self._queue = queue
        self._put_back = put_back
        self._failed = failed
        self._prefetched: OrderedDict[IWorker, deque[Job]] = OrderedDict()
        self._crowded = 0
        self._pace = 5 * SLOW
        self._short: set[bytes] = set()
        self._paces: dict[bytes, float] = {}
        self._long: dict[bytes, float] = {}
        self.next_look = 0.0
        self._printed: dict[bytes, float] = {}

    def __bool__(self) -> bool:
        """Whether any worker has jobs ahead."""
        return bool(self._prefetched)

    def jobs_of(self, client: IClient) -> list[Job]:
        """The jobs of `client` that workers have ahead."""
        return [job for deck in self._prefetched.values() for job in deck if job.client is client]

    def longest_waiting(self) -> IWorker | None:
        """The worker that has jobs ahead and has begun none for longest; None if none has any."""
        return next(iter(self._prefetched), None)

    # How many.

    def note(self, job: Job, printed: bool) -> None:
        """`job` has ended; `printed` is whether it has printed anything."""
        ran = job.ended_at - job.started_at
        if ran > SLOW or job.command not in self._short:
            self._judge(job.command, ran, job.ended_at)
        self._pace += SMOOTHING * (min(ran, 5 * SLOW) - self._pace)
        if self._crowded:
            self._crowded -= 1
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
        if self._crowded:
            most = 1
        return min(most, waiting // busy) - len(self._prefetched.get(worker, ()))

    def look(self, running: Iterable[Job], now: float) -> None:
        """See which of the jobs that run have become long; to be called when `next_look` is."""
        self.next_look = now + LOOK_INTERVAL
        for job in running:
            if now - job.started_at > LONG:
                self._judge(job.command, now - job.started_at, now)

    def _judge(self, command: bytes, ran: float, now: float) -> None:
        """Note for how long a job of this type has run, and whether it is known to be short."""
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

    def may_follow(self, worker: IWorker, running: Job, job: Job) -> bool:
        """Whether `job` may go behind what `worker` has, and take it without a look at others.

        It may if it is known to be short, or else if its client has the worker as it is.

        :param running: the job that `worker` runs.
        """
        if job.command in self._short:
            return True
        client = job.client
        deck = self._prefetched.get(worker, ())
        return running.client is client and all(other.client is client for other in deck)

    def is_quiet(self, job: Job, now: float) -> bool:
        """Whether no job of this type has printed of late."""
        if not self._printed or (printed := self._printed.get(job.command)) is None:
            return True
        if now - printed < QUIET_TIME:
            return False
        del self._printed[job.command]
        return True

    # Which.

    def give(self, worker: IWorker, job: Job) -> bool:
        """Give `worker` the job `job`, which was taken out of the queue, or put it back there.

        Whether the worker could be given it, and may be given another.
        """
        more = True
        try:
            if not worker.prefetch(job):
                self._put_back(job)
                return False
        except Exception:  # noqa: BLE001 - whatever it was, the worker may have the job
            self._failed(worker, job)
            more = False
        job.worker = worker
        self.count += 1
        self.size += job.size
        self._prefetched.setdefault(worker, deque()).append(job)
        return more

    def next(self, worker: IWorker) -> Job | None:
        """The job that `worker` has begun, which waits no more; None if it has none ahead."""
        deck = self._prefetched.get(worker)
        if deck is None:
            return None
        job = deck.popleft()
        if deck:
            self._prefetched.move_to_end(worker)
        else:
            del self._prefetched[worker]
        self.count -= 1
        self.size -= job.size
        return job

    def last(self, worker: IWorker, running: Job) -> Job:
        """The job that `worker` has begun last; to be asked after what it had was taken back.

        :param running: the one that it runs as far as is known.
        """
        deck = self._prefetched.get(worker)
        return deck[-1] if deck else running

    # What is taken back.

    def take_back(self, worker: IWorker | None) -> bool:
        """Let the jobs that `worker` has ahead wait in the queue; whether there were any.

        Those that it has begun by now stay with it.
        """
        if worker is None or worker not in self._prefetched:
            return False
        deck = self._prefetched[worker]
        try:
            ids = worker.recall()
        except Exception:  # noqa: BLE001 - whatever it was, it may have begun them
            self._failed(worker, deck[0])
            return False
        back = deque(job for job in deck if job.id in ids)
        if not back:
            return False
        if begun := deque(job for job in deck if job.id not in ids):
            self._prefetched[worker] = begun
            self._prefetched.move_to_end(worker)
        else:
            del self._prefetched[worker]
        for job in reversed(back):
            job.worker = None
            self.count -= 1
            self.size -= job.size
            self._put_back(job)
        self.reclaim_outranked()
        return True

    def reclaim_all(self) -> list[Job]:
        """Take back all that workers have ahead; what is left they have begun."""
        for worker in list(self._prefetched):
            self.take_back(worker)
        return [job for deck in self._prefetched.values() for job in deck]

    def reclaim_some(self) -> bool:
        """Take back what some worker has ahead, for one that is idle; whether there was any."""
        return any(self.take_back(worker) for worker in list(self._prefetched))

    def reclaim_outranked(self) -> None:
        """Take back what workers have ahead that ought to go after what has come of late."""
        if not self._prefetched or self._queue.news is None:
            return
        client, priority = self._queue.news
        self._queue.news = None
        for worker, deck in list(self._prefetched.items()):
            if any(job.client is client and job.priority > priority for job in deck):
                self.take_back(worker)
                continue
            suspects = deck if client is None else (deck[-1],)
            if any(map(self._queue.is_before, suspects)) and self.take_back(worker):
                self._crowded = CROWDED
