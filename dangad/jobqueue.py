"""The waiting jobs: who is next, in turns between clients, by priority, with ageing.

Called by :mod:`dangad.dispatcher` alone; holds jobs, knows no workers and no clock of its own.

The order. Strict priority: a high job goes before any normal one, a normal before any low.
Within a priority the clients that have jobs waiting take turns, one job a turn, and each
client's own jobs go in the order in which they came; so ten thousand jobs of one client delay
another's next job by one turn (round-robin fair queueing as in J. Nagle, RFC 970, with jobs
for packets). A job that has waited for `ageing` seconds moves to the end of its client's jobs
of the next higher priority, so a low job is overtaken by others' priority for at most twice
that time, and fairness between clients holds for aged jobs as for any.

Every operation takes the same time whatever the number of waiting jobs or clients.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from dangad.jobrecord import Priority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dangad.interfaces import IClient
    from dangad.jobrecord import Job

_Jobs = OrderedDict[int, "Job"]


class _Level:
    """The waiting jobs of one priority.

    All mutable state: `arrivals` has every job of the level, the longest there first, each
    with the time when it came to the level; `clients` has each client's jobs; `turns` has
    the clients whose turn may come, the next first. Always true: a client is in `clients`
    exactly if it has jobs here, and in `turns` exactly if, besides, it is not on hold.
    """

    __slots__ = ("arrivals", "clients", "turns")

    def __init__(self) -> None:
        self.arrivals: OrderedDict[int, tuple[float, Job]] = OrderedDict()
        self.clients: dict[IClient, _Jobs] = {}
        self.turns: OrderedDict[IClient, _Jobs] = OrderedDict()

    def add(self, client: IClient, job: Job, now: float, on_hold: bool) -> None:
        jobs = self.clients.get(client)
        if jobs is None:
            jobs = self.clients[client] = OrderedDict()
            if not on_hold:
                self.turns[client] = jobs
        jobs[job.id] = job
        self.arrivals[job.id] = (now, job)

    def take(self) -> Job | None:
        if not self.turns:
            return None
        client, jobs = next(iter(self.turns.items()))
        _, job = jobs.popitem(last=False)
        del self.arrivals[job.id]
        if jobs:
            self.turns.move_to_end(client)
        else:
            del self.turns[client], self.clients[client]
        return job

    def discard(self, client: IClient, job: Job) -> bool:
        jobs = self.clients.get(client)
        if jobs is None or jobs.pop(job.id, None) is None:
            return False
        del self.arrivals[job.id]
        if not jobs:
            del self.clients[client]
            self.turns.pop(client, None)
        return True


class JobQueue:
    """Jobs that wait for a worker; see the module for their order.

    All mutable state: `_levels`, one for each priority, the highest first; `_on_hold`, the
    clients that get no turn; `_owners`, the client under which each waiting job was put in.
    """

    def __init__(self, ageing: float) -> None:
        """:param ageing: seconds after which a waiting job moves up one priority."""
        self._ageing = ageing
        self._levels = tuple(_Level() for _ in Priority)
        self._on_hold: set[IClient] = set()
        self._owners: dict[int, IClient] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def __iter__(self) -> Iterator[Job]:
        """All waiting jobs, by priority and arrival; the queue must not change meanwhile."""
        for level in self._levels:
            for _, job in level.arrivals.values():
                yield job

    def push(self, client: IClient, job: Job, now: float) -> None:
        """Let `job` wait behind all of its client's jobs of its priority."""
        self._owners[job.id] = client
        self._levels[job.priority].add(client, job, now, client in self._on_hold)

    def pop(self, now: float) -> Job | None:
        """The job whose turn it is, taken out; None if none may start."""
        if not self._owners:
            return None
        self._promote_aged(now)
        for level in self._levels:
            job = level.take()
            if job is not None:
                del self._owners[job.id]
                return job
        return None

    def remove(self, job: Job) -> bool:
        """Take `job` out, whatever its turn; False if it does not wait here."""
        client = self._owners.pop(job.id, None)
        return client is not None and any(level.discard(client, job) for level in self._levels)

    def drop(self, client: IClient) -> list[Job]:
        """Take out all jobs of `client`, and forget it."""
        dropped = [job for level in self._levels for job in level.clients.get(client, {}).values()]
        for job in dropped:
            self.remove(job)
        self._on_hold.discard(client)
        return dropped

    def clear(self) -> list[Job]:
        """Take out all jobs."""
        jobs = list(self)
        for job in jobs:
            self.remove(job)
        return jobs

    def hold(self, client: IClient) -> None:
        """Give `client` no turn until it is released; its jobs keep waiting, and ageing."""
        self._on_hold.add(client)
        for level in self._levels:
            level.turns.pop(client, None)

    def release(self, client: IClient) -> None:
        """Give `client` turns again, after all others."""
        self._on_hold.discard(client)
        for level in self._levels:
            if client in level.clients:
                level.turns[client] = level.clients[client]

    def is_on_hold(self, client: IClient) -> bool:
        """Whether `client` is getting no turn."""
        return client in self._on_hold

    def _promote_aged(self, now: float) -> None:
        for higher, lower in zip(self._levels, self._levels[1:], strict=False):
            while lower.arrivals:
                arrived, job = next(iter(lower.arrivals.values()))
                if now - arrived < self._ageing:
                    break
                client = self._owners[job.id]
                lower.discard(client, job)
                higher.add(client, job, now, client in self._on_hold)
