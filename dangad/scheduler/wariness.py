"""Which job starts next while some clients are dear: they do not read, or have cost a worker.

Kept by :mod:`dangad.scheduler.matching`; whose turn it is stays
:mod:`dangad.scheduler.fairqueue`'s to say. A job that sends parts may be paused for long, and keep
its worker from others meanwhile: :mod:`dangad.scheduler.pauses` bounds this for one job. And a job
that is stopped, or kills its worker, takes that worker from all, until it is gone and another has
started. Whoever has asked for the job owes this worker for so long, and for as long again: without
this the next job could cost the new worker at once. Here both are bounded for any number of jobs:
one worker is left to others.

Debts outlive the connection of who owes them, which may just come back over a new one. Then the
same peer's other connections stand back, until one of their jobs has been answered. Those that work
with the server as they should go on: the peer may be all there are, behind one address.
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
"""Seconds for which the last worker is kept for jobs that do not stand back, once it is idle: so
long may a client take to ask for its next job."""
ASIDE = 5.0
"""Seconds after which one of the jobs that leave the last worker to others gets it all the same."""
DEBT = 5.0
"""Seconds after which a client owes a dead worker no longer, even if it was not replaced; and the
longest time for which it owes one that was."""
NEVER = float("inf")


@dataclass(eq=False, slots=True)
class _Debt:
    """What is owed for one worker, without holding on to it."""

    who: Hashable
    """The client, or its peer if it is gone."""
    since: float
    """When the worker was lost, or was about to be."""


class Wariness:
    """Some jobs stand back, and leave the last worker that makes progress to others.

    These are jobs that send parts, for a time after one was paused while others waited; and the
    jobs of who owes a worker. A job that would take the last worker is set aside. It may have the
    worker if no other job runs, nor has done so for :data:`KEEP` seconds; and one of them may in
    any case every :data:`ASIDE` seconds.
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
        #: What is owed for workers that are not gone yet.
        self._debts: dict[IWorker, _Debt] = {}
        #: What is owed for workers that are not replaced, in the order of their loss.
        self._missing: OrderedDict[_Debt, None] = OrderedDict()
        #: What is owed for workers that are gone, and when it is enough.
        self._ends: dict[_Debt, float] = {}
        #: The earliest of these times.
        self._next_end = NEVER
        #: How many of them each client owes, and each peer.
        self._owing: Counter[Hashable] = Counter()
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

    def charge(self, job: Job, worker: IWorker) -> None:
        """`job`, which runs, costs `worker`: this is lost, or is about to be."""
        client = job.runner
        if client is None or worker in self._debts:
            return
        who: Hashable = client if job.client is not None else client.peer
        debt = self._debts[worker] = _Debt(who, self._state.clock.seconds())
        self._missing[debt] = None
        self._owing[who] += 1
        self.active = True

    def forgive(self, worker: IWorker) -> None:
        """`worker` was not lost: the job that was stopped has let it go on."""
        debt = self._debts.pop(worker, None)
        if debt is not None:
            self._missing.pop(debt, None)
            self._settle(debt)

    def client_gone(self, client: IClient) -> None:
        """`client` is gone: its peer owes what it has owed."""
        if client in self._owing:
            self._owing[client.peer] += self._owing.pop(client)
            for debt in (*self._debts.values(), *self._ends):
                if debt.who is client:
                    debt.who = client.peer

    def gone(self, worker: IWorker) -> None:
        """`worker` is dead: whoever owes it has some time left, even if it is not replaced."""
        debt = self._debts.pop(worker, None)
        if debt is not None and debt in self._missing:
            self._end_at(debt, self._state.clock.seconds() + DEBT)
        elif debt is not None:
            self._end_soon(debt)

    def replaced(self) -> None:
        """A worker has started, in place of the one that was lost first."""
        if self._missing:
            debt, _ = self._missing.popitem(last=False)
            if debt in self._ends:
                self._end_soon(debt)
        self._forget_old(self._state.clock.seconds())

    def _end_soon(self, debt: _Debt) -> None:
        """The worker is gone, and another is there; it is owed for as long again as this took."""
        now = self._state.clock.seconds()
        self._end_at(debt, now + min(DEBT, now - debt.since))

    def _end_at(self, debt: _Debt, time: float) -> None:
        self._ends[debt] = time
        self._next_end = min(self._next_end, time)

    def _forget_old(self, now: float) -> None:
        """Have nobody owe those workers any more for which it is enough."""
        if now < self._next_end:
            return
        for debt in [debt for debt, end in self._ends.items() if end <= now]:
            self._missing.pop(debt, None)
            del self._ends[debt]
            self._settle(debt)
        self._next_end = min(self._ends.values(), default=NEVER)

    def _settle(self, debt: _Debt) -> None:
        """Note that this is owed no more."""
        self._owing[debt.who] -= 1
        if not self._owing[debt.who]:
            del self._owing[debt.who]

    def ended(self, job: Job) -> None:
        """`job` has ended: if it did not stand back, another of its client may come at once."""
        now = self._state.clock.seconds()
        if not self.stands_back(job, now):
            self._other_ended = now

    def stands_back(self, job: Job, now: float) -> bool:
        """Whether `job` must not take the last worker just because that is idle."""
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
        if now >= self._until and not (self._debts or self._ends):
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
            now - job.started_at < HURRY
            and job.stopped_for is None  # its worker takes no other job
            and not self.stands_back(job, now)
            for job in assignments.running()
        )
