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

Lanes: the jobs of one lane can be kept back while all others go on. A job type of which only
so many may run has a lane of its own; all other jobs are in the lane None. A client's turn is
one in all lanes: whichever its last job was in, its next comes after the others' turns.

A job may also rest: it counts among those that wait, and has no turn until it is put in again.
And a job that was taken out may be put back: it is the next of its priority then, as it was before.

Every operation takes the same time whatever the number of waiting jobs or clients; taking a
job looks once at each lane.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain, islice
from typing import TYPE_CHECKING

from dangad.jobrecord import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from dangad.interfaces import IClient
    from dangad.jobrecord import Job


Lane = bytes | None


class _Line:
    """The waiting jobs of one client in one priority and lane, the next first; never empty.

    `since` is when the job arrived that was first when the client took its place among the
    turns: were it the first job's own arrival, a client could keep its place and stay young by
    cancelling that job now and then, and those behind it would never age. `place` is the
    number of turns that had been taken when it did.
    """

    __slots__ = ("jobs", "place", "since")

    def __init__(self, job: Job, place: int) -> None:
        self.jobs: OrderedDict[int, Job] = OrderedDict()
        self.since = job.accepted_at
        self.place = place


class _Ring:
    """The lines of one priority and lane.

    All mutable state: `lines` has each client's; `turns` has those whose turn may come, the
    next first, so by their `place`. Always true: a client is in `lines` exactly if it has jobs
    here, and in `turns` exactly if, besides, it is not on hold.
    """

    __slots__ = ("lines", "turns")

    def __init__(self) -> None:
        self.lines: dict[IClient, _Line] = {}
        self.turns: OrderedDict[IClient, _Line] = OrderedDict()


class _Level:
    """The waiting jobs of one priority.

    All mutable state: `rings`, one for each lane that has been used; `turns_taken`, how many
    turns clients have had; `last_turn`, the number of the last turn of each client that has
    had one in one lane while it had jobs in another; `last_start`, the number of the start
    that was the level's last.
    """

    __slots__ = ("last_start", "last_turn", "rings", "turns_taken")

    def __init__(self) -> None:
        self.rings: dict[Lane, _Ring] = {None: _Ring()}
        self.turns_taken = 0
        self.last_turn: dict[IClient, int] = {}
        self.last_start = 0

    def add(self, client: IClient, job: Job, lane: Lane, on_hold: bool) -> None:
        ring = self.rings.get(lane)
        if ring is None:
            ring = self.rings[lane] = _Ring()
        line = ring.lines.get(client)
        if line is None:
            line = ring.lines[client] = _Line(job, self.turns_taken)
            if not on_hold:
                ring.turns[client] = line
        line.jobs[job.id] = job

    def put_back(self, client: IClient, job: Job, lane: Lane, on_hold: bool) -> None:
        """Let `job`, which was taken out before all that are here, be the next, and its client."""
        self.add(client, job, lane, on_hold)
        ring = self.rings[lane]
        line = ring.lines[client]
        line.jobs.move_to_end(job.id, last=False)
        line.since = job.accepted_at
        line.place = 0
        self.last_turn.pop(client, None)
        if not on_hold:
            ring.turns.move_to_end(client, last=False)

    def next(self, closed: Container[Lane]) -> tuple[_Ring, IClient, _Line] | None:
        """Whose turn is next in the lanes that are open; None if it is nobody's."""
        first: tuple[_Ring, IClient, _Line] | None = None
        for lane, ring in self.rings.items():
            if ring.turns and lane not in closed:
                client, line = self._head(ring)
                if first is None or line.place < first[2].place:
                    first = ring, client, line
        return first

    def take(self, ring: _Ring, client: IClient, line: _Line) -> Job:
        """The job whose turn `next` said it is, taken out."""
        _, job = line.jobs.popitem(last=False)
        self.turns_taken += 1
        if line.jobs:
            line.since = next(iter(line.jobs.values())).accepted_at
            line.place = self.turns_taken
            ring.turns.move_to_end(client)
        else:
            del ring.turns[client], ring.lines[client]
        if len(self.rings) > 1:
            self._note_turn(client)
        return job

    def discard(self, client: IClient, job: Job, lane: Lane) -> None:
        ring = self.rings[lane]
        line = ring.lines[client]
        del line.jobs[job.id]
        if not line.jobs:
            del ring.lines[client]
            ring.turns.pop(client, None)
            if not self._has_jobs(client):
                self.last_turn.pop(client, None)

    def _head(self, ring: _Ring) -> tuple[IClient, _Line]:
        """Whose turn is next in `ring`; one that had a turn in another lane goes to the end."""
        while True:
            client, line = next(iter(ring.turns.items()))
            last_turn = self.last_turn.get(client, 0)
            if last_turn <= line.place:
                return client, line
            line.place = last_turn
            ring.turns.move_to_end(client)

    def _note_turn(self, client: IClient) -> None:
        """Remember when `client` had its turn, as long as it has jobs in some lane."""
        if self._has_jobs(client):
            self.last_turn[client] = self.turns_taken
        else:
            self.last_turn.pop(client, None)

    def _has_jobs(self, client: IClient) -> bool:
        return any(client in ring.lines for ring in self.rings.values())


class JobQueue:
    """Jobs that wait for a worker; see the module for their order.

    All mutable state: `_levels`, one for each priority, the highest first; `_on_hold`, the
    clients that get no turn; `_closed`, the lanes from which nothing is taken; `_places`, the
    client and the lane under which each waiting job was put in; `_resting`, those that have no
    turn; `_starts`, how many jobs were taken out to be started; `_size`, the bytes of the
    waiting requests.
    """

    def __init__(self, ageing: float) -> None:
        """:param ageing: seconds after which a turn that waits goes on a level with higher ones."""
        self._ageing = ageing
        self._levels = tuple(_Level() for _ in Priority)
        self._on_hold: set[IClient] = set()
        self._closed: set[Lane] = set()
        self._places: dict[int, tuple[IClient, Lane]] = {}
        self._resting: dict[int, Job] = {}
        self._starts = 0
        self._size = 0

    def __len__(self) -> int:
        return len(self._places) + len(self._resting)

    def __iter__(self) -> Iterator[Job]:
        """All waiting jobs, by priority and client, and those that rest; nothing may change."""
        for level in self._levels:
            for ring in level.rings.values():
                for line in ring.lines.values():
                    yield from line.jobs.values()
        yield from self._resting.values()

    @property
    def size(self) -> int:
        """The bytes of the waiting requests, all together."""
        return self._size

    def push(self, client: IClient, job: Job, lane: Lane = None) -> None:
        """Let `job` wait, since it was accepted, behind its client's of its priority and lane."""
        if self._resting.pop(job.id, None) is None:
            self._size += job.size
        self._places[job.id] = client, lane
        self._levels[job.priority].add(client, job, lane, client in self._on_hold)

    def put_back(self, job: Job) -> None:
        """Let `job` wait, which was taken out, and may rest by now, as the next of its priority.

        Of several that were taken out, the last is put back first. The job must have a client.
        """
        if job.client is None:
            raise ValueError(f"{job!r} has no client")
        if self._resting.pop(job.id, None) is None:
            self._size += job.size
        self._places[job.id] = job.client, job.lane
        on_hold = job.client in self._on_hold
        self._levels[job.priority].put_back(job.client, job, job.lane, on_hold)

    def rest(self, job: Job) -> None:
        """Let `job` wait without a turn, until it is pushed, put back, or removed."""
        self._resting[job.id] = job
        self._size += job.size

    def has_turn(self) -> bool:
        """Whether any job may start."""
        return any(
            ring.turns and lane not in self._closed
            for level in self._levels
            for lane, ring in level.rings.items()
        )

    def has_above(self, priority: Priority) -> bool:
        """Whether a job of a higher priority may start."""
        for level in self._levels[:priority]:
            for lane, ring in level.rings.items():
                if ring.turns and lane not in self._closed:
                    return True
        return False

    def pop(self, now: float, fits: Callable[[Job], bool] | None = None) -> Job | None:
        """The job whose turn it is, taken out; None if none may start.

        :param fits: says of the job whose turn it is whether to take it out; None for always.
        """
        if not self._places:
            return None
        chosen: _Level | None = None
        turn: tuple[_Ring, IClient, _Line] | None = None
        for level in self._levels:
            upcoming = level.next(self._closed)
            if upcoming is not None and (
                chosen is None
                or (
                    level.last_start < chosen.last_start and upcoming[2].since <= now - self._ageing
                )
            ):
                chosen, turn = level, upcoming
        if chosen is None or turn is None:
            return None
        if fits is not None and not fits(next(iter(turn[2].jobs.values()))):
            return None
        job = chosen.take(*turn)
        del self._places[job.id]
        self._size -= job.size
        self._starts += 1
        chosen.last_start = self._starts
        return job

    def remove(self, job: Job) -> bool:
        """Take `job` out, whatever its turn; False if it does not wait here."""
        place = self._places.pop(job.id, None)
        if place is None:
            if self._resting.pop(job.id, None) is None:
                return False
            self._size -= job.size
            return True
        self._size -= job.size
        client, lane = place
        self._levels[job.priority].discard(client, job, lane)
        return True

    def drop(self, client: IClient, most: int | None = None) -> list[Job]:
        """Take out all jobs of `client`, and forget it.

        :param most: how many are enough; then it is forgotten once they are fewer.
        """
        lines = [ring.lines[client] for ring in self._rings_of(client)]
        dropped = list(islice(chain.from_iterable(line.jobs.values() for line in lines), most))
        if most is None or len(dropped) < most:
            dropped += [job for job in self._resting.values() if job.client is client]
            self._on_hold.discard(client)
        for job in dropped:
            self.remove(job)
        return dropped

    def hold(self, client: IClient) -> None:
        """Give `client` no turn until it is released; its jobs keep waiting."""
        self._on_hold.add(client)
        for ring in self._rings_of(client):
            ring.turns.pop(client, None)

    def release(self, client: IClient) -> None:
        """Give `client` turns again, after all others."""
        if client not in self._on_hold:
            return
        self._on_hold.discard(client)
        for level in self._levels:
            for ring in level.rings.values():
                if client in ring.lines:
                    ring.lines[client].place = level.turns_taken
                    ring.turns[client] = ring.lines[client]

    def is_on_hold(self, client: IClient) -> bool:
        """Whether `client` is getting no turn."""
        return client in self._on_hold

    def close_lane(self, lane: Lane) -> None:
        """Take nothing from `lane` until it is opened again."""
        self._closed.add(lane)

    def open_lane(self, lane: Lane) -> None:
        """Take jobs from `lane` again."""
        self._closed.discard(lane)

    def is_closed(self, lane: Lane) -> bool:
        """Whether nothing is taken from `lane`."""
        return lane in self._closed

    def _rings_of(self, client: IClient) -> list[_Ring]:
        return [
            ring for level in self._levels for ring in level.rings.values() if client in ring.lines
        ]
