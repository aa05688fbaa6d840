"""The waiting jobs: who is next, in turns between clients, by priority, with ageing.

Called by :mod:`dangad.dispatcher` alone; holds jobs, knows no workers and no clock of its own.

The order. Strict priority: a high job goes before any normal one, a normal before any low.
Within a priority the clients that have jobs waiting take turns, one job a turn, and each
client's own jobs go in the order in which they came; so ten thousand jobs of one client delay
another's next job by one turn (round-robin fair queueing as in J. Nagle, RFC 970, with jobs
for packets).

Ageing: while the job whose turn is next in a priority has waited for `ageing` seconds, that
priority takes turns with those above it, start by start. So a client's next job is overtaken
freely for that time only, counted from the client's previous turn in that priority or from the
job's arrival, whichever came later; then higher priorities get at most two starts for each one
of its own. No job changes its priority by waiting, because then a backlog that has aged would
go before every new job of the others, and be a flood of high jobs.

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


class _Line:
    """The waiting jobs of one client in one priority, the next first; never empty.

    `since` is when the job arrived that was first when the client took its place among the
    turns: were it the first job's own arrival, a client could keep its place and stay young by
    cancelling that job now and then, and those behind it would never age.
    """

    __slots__ = ("jobs", "since")

    def __init__(self, job: Job) -> None:
        self.jobs: OrderedDict[int, Job] = OrderedDict()
        self.since = job.accepted_at


class _Level:
    """The waiting jobs of one priority.

    All mutable state: `lines` has each client's jobs; `turns` has the clients whose turn may
    come, the next first; `last_start` numbers the start that was the level's last. Always
    true: a client is in `lines` exactly if it has jobs here, and in `turns` exactly if,
    besides, it is not on hold.
    """

    __slots__ = ("last_start", "lines", "turns")

    def __init__(self) -> None:
        self.lines: dict[IClient, _Line] = {}
        self.turns: OrderedDict[IClient, _Line] = OrderedDict()
        self.last_start = 0

    def add(self, client: IClient, job: Job, on_hold: bool) -> None:
        line = self.lines.get(client)
        if line is None:
            line = self.lines[client] = _Line(job)
            if not on_hold:
                self.turns[client] = line
        line.jobs[job.id] = job

    def has_waited_since(self, time: float) -> bool:
        """Whether the turn that is next has waited since then; there must be one."""
        return next(iter(self.turns.values())).since <= time

    def take(self) -> Job:
        """The job whose turn is next, taken out; there must be one."""
        client, line = next(iter(self.turns.items()))
        _, job = line.jobs.popitem(last=False)
        if line.jobs:
            line.since = next(iter(line.jobs.values())).accepted_at
            self.turns.move_to_end(client)
        else:
            del self.turns[client], self.lines[client]
        return job

    def discard(self, client: IClient, job: Job) -> None:
        line = self.lines[client]
        del line.jobs[job.id]
        if not line.jobs:
            del self.lines[client]
            self.turns.pop(client, None)


class JobQueue:
    """Jobs that wait for a worker; see the module for their order.

    All mutable state: `_levels`, one for each priority, the highest first; `_on_hold`, the
    clients that get no turn; `_owners`, the client under which each waiting job was put in;
    `_starts`, how many jobs were taken out to be started.
    """

    def __init__(self, ageing: float) -> None:
        """:param ageing: seconds after which a turn that waits goes on a level with higher ones."""
        self._ageing = ageing
        self._levels = tuple(_Level() for _ in Priority)
        self._on_hold: set[IClient] = set()
        self._owners: dict[int, IClient] = {}
        self._starts = 0

    def __len__(self) -> int:
        return len(self._owners)

    def __iter__(self) -> Iterator[Job]:
        """All waiting jobs, by priority and client; the queue must not change meanwhile."""
        for level in self._levels:
            for line in level.lines.values():
                yield from line.jobs.values()

    def push(self, client: IClient, job: Job) -> None:
        """Let `job` wait, since it was accepted, behind all of its client's of its priority."""
        self._owners[job.id] = client
        self._levels[job.priority].add(client, job, client in self._on_hold)

    def pop(self, now: float) -> Job | None:
        """The job whose turn it is, taken out; None if none may start."""
        chosen: _Level | None = None
        for level in self._levels:
            if level.turns and (
                chosen is None
                or (
                    level.last_start < chosen.last_start
                    and level.has_waited_since(now - self._ageing)
                )
            ):
                chosen = level
        if chosen is None:
            return None
        job = chosen.take()
        del self._owners[job.id]
        self._starts += 1
        chosen.last_start = self._starts
        return job

    def remove(self, job: Job) -> bool:
        """Take `job` out, whatever its turn; False if it does not wait here."""
        client = self._owners.pop(job.id, None)
        if client is None:
            return False
        self._levels[job.priority].discard(client, job)
        return True

    def drop(self, client: IClient) -> list[Job]:
        """Take out all jobs of `client`, and forget it."""
        lines = [level.lines[client] for level in self._levels if client in level.lines]
        dropped = [job for line in lines for job in line.jobs.values()]
        for job in dropped:
            self.remove(job)
        self._on_hold.discard(client)
        return dropped

    def hold(self, client: IClient) -> None:
        """Give `client` no turn until it is released; its jobs keep waiting."""
        self._on_hold.add(client)
        for level in self._levels:
            level.turns.pop(client, None)

    def release(self, client: IClient) -> None:
        """Give `client` turns again, after all others."""
        self._on_hold.discard(client)
        for level in self._levels:
            if client in level.lines:
                level.turns[client] = level.lines[client]

    def is_on_hold(self, client: IClient) -> bool:
        """Whether `client` is getting no turn."""
        return client in self._on_hold
