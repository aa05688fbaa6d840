"""Which job starts next while some clients cost others dearly: one worker is left to the others.

Kept by :mod:`dangad.scheduler.matching`; :mod:`dangad.scheduler.fairqueue` still decides whose turn
it is. There are two such costs, and this module bounds both for any number of jobs:

- A job that sends parts may be paused for long, and keeps its worker from others during this time.
  :mod:`dangad.scheduler.pauses` bounds this for one job.
- A job that is stopped, or kills its worker, takes the worker from everybody until the process is
  gone and a replacement has started. The job's client *owes* the worker for this time, and for the
  same time once more: otherwise its next job could cost the replacement at once.

A debt outlives the connection of the client, which may simply connect again. The debt passes to the
client's peer. Each connection of this peer stands back until one of its jobs has been answered. So
connections that have been served before go on: all clients may be one peer, behind one address.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dangad.scheduler.chores import PART
from dangad.scheduler.pauses import HURRY

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from dangad.scheduler.interfaces import IClient, IWorker
    from dangad.scheduler.record import Job
    from dangad.scheduler.state import State

WARY = 10.0
"""Seconds for which jobs that send parts leave the last worker to others, after one of them was
paused while others waited."""
KEEP = 0.25
"""Seconds for which the last worker, once idle, is kept for jobs that do not stand back. A client
that sends one job after the other has this time to send the next."""
ASIDE = 5.0
"""Seconds after which a job that was set aside gets the last worker in any case."""
DEBT = 5.0
"""The most seconds for which a client owes a worker that is gone, whether it was replaced or
not."""
NEVER = float("inf")
"""The earliest end of a debt while no debt has an end."""


@dataclass(eq=False, slots=True)
class _Debt:
    """A debt for one worker. It keeps no reference to the worker."""

    who: Hashable
    """The client that owes, or its peer if the client is gone."""
    since: float
    """When the worker was lost, or was about to be lost."""


class Wariness:
    """Some jobs stand back: they leave the last worker that makes progress to others.

    These are the jobs of clients that owe a worker and, for :data:`WARY` seconds after a pause
    while others waited, jobs that send parts. If such a job would take the last worker, it is set
    aside. It gets the worker once no other job has run for :data:`KEEP` seconds. In any case, one
    of the jobs set aside gets it every :data:`ASIDE` seconds.
    """

    def __init__(self, state: State, come_back: Callable[[float], object]) -> None:
        """Begin with no job that stands back.

        :param come_back: called with the seconds after which `pop` may return another job.
        """
        #: Whether jobs may stand back. Then the next job comes from `pop`, not from the queue.
        self.active = False
        self._state = state
        self._come_back = come_back
        #: Until when jobs that send parts stand back.
        self._until = 0.0
        #: The debts for workers that are not gone yet.
        self._debts: dict[IWorker, _Debt] = {}
        #: The debts for workers that are not replaced, in the order of their loss.
        self._missing: OrderedDict[_Debt, None] = OrderedDict()
        #: The debts for workers that are gone, each with the time of its end.
        self._ends: dict[_Debt, float] = {}
        #: The earliest end of a debt.
        self._next_end = NEVER
        #: How many workers each client, or peer, owes.
        self._owing: Counter[Hashable] = Counter()
        #: When a job that did not stand back last ended.
        self._other_ended = -KEEP
        #: Since when no job that was set aside has started.
        self._aside_since = 0.0

    def begin(self) -> None:
        """A job is paused: jobs that send parts stand back if others wait that do not."""
        state = self._state
        if state.queue.has_turn() or state.assignments.prefetched:
            self._until = state.clock.seconds() + WARY
            self.active = True

    def charge(self, job: Job, worker: IWorker) -> None:
        """`job`, which runs, costs its `worker`: the worker is lost, or is about to be lost."""
        client = job.runner
        if client is None or worker in self._debts:
            return
        who: Hashable = client if job.client is not None else client.peer
        debt = self._debts[worker] = _Debt(who, self._state.clock.seconds())
        self._missing[debt] = None
        self._owing[who] += 1
        self.active = True

    def forgive(self, worker: IWorker) -> None:
        """`worker` is not lost: its job was stopped, and has ended in time. Cancel the debt."""
        debt = self._debts.pop(worker, None)
        if debt is not None:
            self._missing.pop(debt, None)
            self._settle(debt)

    def client_gone(self, client: IClient) -> None:
        """`client` is gone: its debts pass to its peer."""
        if client in self._owing:
            self._owing[client.peer] += self._owing.pop(client)
            for debt in (*self._debts.values(), *self._ends):
                if debt.who is client:
                    debt.who = client.peer

    def gone(self, worker: IWorker) -> None:
        """`worker` is dead: set an end for the debt, if there is one."""
        debt = self._debts.pop(worker, None)
        if debt is not None and debt in self._missing:
            self._end_at(debt, self._state.clock.seconds() + DEBT)
        elif debt is not None:
            self._end_soon(debt)

    def replaced(self) -> None:
        """A worker has started: it replaces the one that was lost first."""
        if self._missing:
            debt, _ = self._missing.popitem(last=False)
            if debt in self._ends:
                self._end_soon(debt)
        self._forget_old(self._state.clock.seconds())

    def _end_soon(self, debt: _Debt) -> None:
        """End `debt` after as long again as the replacement of its worker took."""
        now = self._state.clock.seconds()
        self._end_at(debt, now + min(DEBT, now - debt.since))

    def _end_at(self, debt: _Debt, time: float) -> None:
        self._ends[debt] = time
        self._next_end = min(self._next_end, time)

    def _forget_old(self, now: float) -> None:
        """Forget the debts that have ended."""
        if now < self._next_end:
            return
        for debt in [debt for debt, end in self._ends.items() if end <= now]:
            self._missing.pop(debt, None)
            del self._ends[debt]
            self._settle(debt)
        self._next_end = min(self._ends.values(), default=NEVER)

    def _settle(self, debt: _Debt) -> None:
        """Note that `debt` is owed no more."""
        self._owing[debt.who] -= 1
        if not self._owing[debt.who]:
            del self._owing[debt.who]

    def ended(self, job: Job) -> None:
        """`job` has ended. If it did not stand back, note when: its client may send another."""
        now = self._state.clock.seconds()
        if not self.stands_back(job, now):
            self._other_ended = now

    def stands_back(self, job: Job, now: float) -> bool:
        """Whether `job` leaves the last worker to others."""
        client = job.client or job.runner
        return client is not None and (
            (job.wants_chunks and now < self._until)
            or client in self._owing
            or (not client.was_served and client.peer in self._owing)
        )

    def may_wait(self, job: Job, now: float) -> bool:
        """Whether `job`, which comes now, may have to wait although a worker is idle."""
        self._forget_old(now)
        return self.stands_back(job, now) and not self._others_move(now)

    def pop(self, now: float) -> Job | None:
        """Take out of the queue the job that starts next; None if none may start now."""
        queue = self._state.queue
        self.check(now)
        called: list[Job] = []
        job = self._choose(now, called)
        for other in reversed(called):  # they could not start, and stay the first of their clients
            if other is not job and queue.remove(other):
                queue.set_aside(other, first=True)
        return job

    def check(self, now: float) -> None:
        """If no job need stand back any more, give the jobs set aside turns, client by client."""
        self._forget_old(now)
        if now >= self._until and not (self._debts or self._ends):
            self._state.queue.call_some()
            if self._state.queue.aside:
                self._come_back(0)
            else:
                self.active = False

    def _choose(self, now: float, called: list[Job]) -> Job | None:
        """Take out the job that starts next.

        :param called: gets each job set aside that is called for.
        """
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
        """Let a job that was set aside be the next, of a client that has no job in `called`."""
        job = self._state.queue.call_one({each.client for each in called if each.client})
        if job is not None:
            called.append(job)
        return job is not None

    def _is_kept(self, now: float) -> bool:
        """Whether the last worker is kept for others, although none of their jobs waits now.

        Otherwise a client that sends one short job after the other would find it taken each time.
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
            now - job.started_at < HURRY
            and job.stopped_for is None  # after a stop its worker takes no other job
            and not self.stands_back(job, now)
            for job in assignments.running()
        )
