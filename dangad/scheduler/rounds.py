"""Rounds of turns: whose job is next, among clients that are each other's equals.

Kept by :mod:`dangad.scheduler.fairqueue`, which tells the order in words. A round gives each client
that has jobs waiting one turn; `due` is the number of the round in which a client has its next. The
clients of a round stand by the urgency of their most urgent job, and those of the same urgency in
the order in which they took their places. So a client's line of jobs has a key, made of `due` and
of the urgency, and the smallest key is next.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.record import Job

Lane = bytes | None

NONE = 3
"""An urgency that no job has: priorities are numbers from 0 on, the highest first."""
_NOWHERE = -1
"""The key of a line that waits for no turn."""
_UNLIMITED = 2**62
"""How many may join a round of which no job has been started yet."""


class Line:
    """The waiting jobs of one client in one lane.

    All mutable state: `best`, the highest priority of which there are jobs, NONE if there are
    none at all; `urgent`, those of that priority, the next first, and `_others`, those of each
    lower one; `_starts`, how many starts there had been at the last of each priority, while
    there were several; `key` and `number`, the line's place among the turns; `since`, the
    arrival of the job that was the next when it took that place: were it the next job's own, a
    client could stay young by cancelling that now and then.
    """

    __slots__ = ("_others", "_starts", "best", "key", "number", "since", "urgent")

    def __init__(self) -> None:
        self.best = NONE
        self.urgent: OrderedDict[int, Job] = OrderedDict()
        self._others: dict[int, OrderedDict[int, Job]] = {}
        self._starts = [0] * NONE
        self.key = _NOWHERE
        self.number = 0
        self.since = 0.0

    def __iter__(self) -> Iterator[Job]:
        """All its jobs, by priority."""
        yield from self.urgent.values()
        for _, jobs in sorted(self._others.items()):
            yield from jobs.values()

    def add(self, job: Job, first: bool = False) -> None:
        """Put `job` behind the others of its priority, or before them."""
        priority = job.priority
        if priority == self.best:
            jobs = self.urgent
        elif priority < self.best:
            if self.best != NONE:
                self._others[self.best] = self.urgent
                self.urgent = OrderedDict()
            self.best = priority
            jobs = self.urgent
        else:
            jobs = self._others.setdefault(priority, OrderedDict())
        jobs[job.id] = job
        if first:
            jobs.move_to_end(job.id, last=False)

    def next(self, old: float) -> Job:
        """The job that has the client's next turn; there must be one.

        It is the first of the highest priority. But the first of a lower one, if it came at
        `old` or before, takes turns with those above it.
        """
        job = next(iter(self.urgent.values()))
        if self._others:
            for priority in sorted(self._others):
                other = next(iter(self._others[priority].values()))
                if self._starts[priority] < self._starts[job.priority] and other.accepted_at <= old:
                    job = other
        return job

    def discard(self, job: Job, to_start: bool = False) -> None:
        """Take out `job`, which is here; if it is to start, that counts as one of its priority."""
        if self._others:
            if to_start:
                self._starts[job.priority] = max(self._starts) + 1
            if job.priority != self.best:
                jobs = self._others[job.priority]
                del jobs[job.id]
                if not jobs:
                    del self._others[job.priority]
                return
        del self.urgent[job.id]
        if not self.urgent:
            self.best = min(self._others) if self._others else NONE
            if self._others:
                self.urgent = self._others.pop(self.best)


class _Owner:
    """What is known of a client.

    All mutable state: `due`, the round of its next turn, and `owed`, how many turns were given
    back to it, which it has round by round from then on, though others have had theirs; `lines`,
    its jobs in each lane that it has used; `waiting`, in how many lanes it has any.
    """

    __slots__ = ("client", "due", "lines", "owed", "waiting")

    def __init__(self, client: IClient) -> None:
        self.client = client
        self.due = 0
        self.owed = 0
        self.lines: dict[Lane, Line] = {}
        self.waiting = 0


class _Bench:
    """Where those wait for their turn who have jobs in one lane.

    All mutable state: `queues`, the lines of each key and whose they are, the next first;
    `keys`, theirs, the smallest first; `returned`, the jobs that have had their turn and were
    put back, the next first.
    """

    __slots__ = ("keys", "queues", "returned")

    def __init__(self) -> None:
        self.queues: dict[int, OrderedDict[Line, _Owner]] = {}
        self.keys: list[int] = []
        self.returned: OrderedDict[int, Job] = OrderedDict()

    def put(self, line: Line, owner: _Owner, key: int) -> None:
        """Have `line` wait behind all that have this key."""
        if line.key != _NOWHERE:
            if len(self.keys) == 1 and len(self.queues[line.key]) == 1:
                self.queues[key] = self.queues.pop(line.key)  # it is alone: the usual case
                self.keys[0] = line.key = key
                return
            self.remove(line)
        queue = self.queues.get(key)
        if queue is None:
            queue = self.queues[key] = OrderedDict()
            if self.keys and key < self.keys[-1]:
                insort(self.keys, key)
            else:
                self.keys.append(key)
        queue[line] = owner
        line.key = key

    def remove(self, line: Line) -> None:
        """Have `line` wait for no turn any more, if it does."""
        key = line.key
        if key == _NOWHERE:
            return
        line.key = _NOWHERE
        queue = self.queues[key]
        del queue[line]
        if not queue:
            del self.queues[key]
            del self.keys[bisect_left(self.keys, key)]


Turn = tuple[Lane, "Line | None", "_Owner | None", "Job"]
"""Whose turn it is: a lane, a line there and whose that is, and the job that is next. One that
was put back has no line."""


class Rounds:
    """The turns of clients that are each other's equals, round after round.

    A client that comes while a round runs has its turn in that round, until as many have come
    so as were there when it began; the others have it in the next. So a round ends, however
    many come. Who has had its turn in a round has its next in a later one, also if it had no
    job waiting meanwhile; and so has one that comes while jobs of its own run.

    All mutable state: `waiting`, how many clients have jobs in lines; `last_start`, which is the
    queue's to keep; `_owners`, the clients that have ever had any, until they are dropped;
    `_benches`, one for each lane that has been used; `_returned`, how many jobs were put back
    and are here; `_round`, the round that runs, and `_begun`, the first turn after it, or its
    own first while no job of it was started; `_room`, how many may still join it; `_places`,
    how many places were given.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.last_start = 0
        self._owners: dict[IClient, _Owner] = {}
        self._benches: dict[Lane, _Bench] = {None: _Bench()}
        self._returned = 0
        self._round = 0
        self._begun = 0
        self._room = _UNLIMITED
        self._places = 0

    def __iter__(self) -> Iterator[Job]:
        """All jobs that are here."""
        for bench in self._benches.values():
            yield from bench.returned.values()
        for owner in self._owners.values():
            for line in owner.lines.values():
                yield from line

    # What comes.

    def add(self, client: IClient, job: Job, lane: Lane, on_hold: bool, runs: bool) -> bool:
        """Let `job` wait; whether its client has none there that is as urgent.

        :param on_hold: whether the client gets no turn.
        :param runs: whether it has jobs that run: then it has had a turn, as it were.
        """
        owner, line = self._line_of(client, lane)
        best = line.best
        if best == job.priority:
            line.urgent[job.id] = job
            return False
        line.add(job)
        if line.best == best:
            return False
        if best == NONE:
            line.since = job.accepted_at
            self._enter(owner, runs)
        if not on_hold:
            self._put(line, lane, owner, line.best)
            if self._returned:
                self._merge_returned(client)
        return True

    def put_back(self, client: IClient, job: Job, lane: Lane, on_hold: bool) -> None:
        """Let `job`, which has had its turn, be the next in its lane.

        But if its client has a more urgent one by now, that has the turn in its place.
        """
        owner = self._owners.get(client)
        lines = [] if owner is None else owner.lines.values()
        if on_hold or any(line.best < job.priority for line in lines):
            self._undo_turn(client, job, lane)
            if not on_hold:
                self._place(self._owners[client])
            return
        returned = self._bench(lane).returned
        returned[job.id] = job
        returned.move_to_end(job.id, last=False)
        self._returned += 1

    def begin(self, turn: int) -> None:
        """A job that was taken out in this turn is started: from now on its round runs."""
        if turn >= self._begun:
            self._round = turn // NONE
            self._begun = NONE * (self._round + 1)
            self._room = self.waiting

    # Whose turn it is.

    def next(self, closed: Container[Lane], old: float) -> Turn | None:
        """Whose turn is next in the lanes that are open; None if it is nobody's.

        :param old: jobs that came then or before take turns with their client's more urgent.
        """
        first: Line | None = None
        owner: _Owner | None = None
        at: Lane = None
        for lane, bench in self._benches.items():
            if bench.keys and lane not in closed:
                key = bench.keys[0]
                if first is None or key <= first.key:
                    line = next(iter(bench.queues[key]))
                    if first is None or key < first.key or line.number < first.number:
                        first, owner, at = line, bench.queues[key][line], lane
        if self._returned:
            back = self._next_returned(closed)
            if back is not None and (first is None or back[3].turn <= first.key):
                return back
        if first is None:
            return None
        return at, first, owner, first.next(old)

    def waits_since(self, turn: Turn) -> float:
        """Since when, at least, a turn that `next` has told has been waited for."""
        return turn[3].accepted_at if turn[1] is None else turn[1].since

    def take(self, turn: Turn, old: float) -> None:
        """Take out the job of a turn that `next` has just told."""
        lane, line, owner, job = turn
        bench = self._benches[lane]
        if line is None or owner is None:
            del bench.returned[job.id]
            self._returned -= 1
            return
        job.turn = line.key
        if owner.owed:
            owner.owed -= 1
            owner.due += 1
        else:
            owner.due = max(owner.due, self._round) + 1
        line.discard(job, to_start=True)
        if owner.waiting > 1:
            for other_lane, other in owner.lines.items():
                if other is not line and other.key != _NOWHERE:
                    aged = other.since <= old  # else its jobs in one lane could starve the others
                    urgency = min(other.best, line.best) if aged else other.best
                    self._put(other, other_lane, owner, urgency)
        if line.best == NONE:
            bench.remove(line)
            self._leave(owner)
        else:
            line.since = next(iter(line.urgent.values())).accepted_at
            self._places += 1
            line.number = self._places
            bench.put(line, owner, owner.due * NONE + line.best)

    def is_before(self, client: IClient, job: Job, closed: Container[Lane]) -> bool:
        """Whether what may start ought to go before `job`, which was taken out to start later.

        That is a more urgent one of the same client, one that is as far in an earlier round but
        the last, and one that is more urgent in a round that is no later.
        """
        number, urgency = divmod(job.turn, NONE)
        for lane, bench in self._benches.items():
            if bench.keys and lane not in closed:
                other, more_or_less = divmod(bench.keys[0], NONE)
                if other < number - 1 or (other <= number and more_or_less < urgency):
                    return True
        return self.is_outdone(client, job, closed)

    def is_outdone(self, client: IClient, job: Job, closed: Container[Lane]) -> bool:
        """Whether a more urgent job of the same client may start."""
        owner = self._owners.get(client)
        return owner is not None and any(
            line.best < job.priority and line.key != _NOWHERE and lane not in closed
            for lane, line in owner.lines.items()
        )

    # What goes without a turn.

    def discard(self, client: IClient, job: Job, lane: Lane) -> None:
        """Take out `job`, which is here."""
        bench = self._bench(lane)
        owner = self._owners.get(client)
        if bench.returned.pop(job.id, None) is not None:
            self._returned -= 1
            if owner is not None and owner.due > self._round:  # it has not used that turn
                owner.due -= 1
                self._place(owner)
            return
        assert owner is not None
        line = owner.lines[lane]
        best = line.best
        line.discard(job)
        if line.best == NONE:
            bench.remove(line)
            self._leave(owner)
        elif line.best != best and line.key != _NOWHERE:
            self._put(line, lane, owner, line.best)

    def jobs_of(self, client: IClient) -> Iterator[Job]:
        """All jobs of `client` that are here; nothing may change meanwhile."""
        if self._returned:
            for bench in self._benches.values():
                for job in bench.returned.values():
                    if job.client is client:
                        yield job
        owner = self._owners.get(client)
        for line in owner.lines.values() if owner is not None else ():
            yield from line

    def forget(self, client: IClient) -> None:
        """Forget which turns `client` has had, which has no jobs here."""
        self._owners.pop(client, None)

    def hold(self, client: IClient) -> None:
        """Give `client` no turn until it is released."""
        for lane, job in reversed(self._take_returned(client)):
            self._undo_turn(client, job, lane)
        owner = self._owners.get(client)
        if owner is not None:
            for lane, line in owner.lines.items():
                self._bench(lane).remove(line)

    def release(self, client: IClient) -> None:
        """Give `client` turns: the next after all who are as urgent, in the round that runs."""
        owner = self._owners.get(client)
        if owner is not None:
            owner.due = max(owner.due, self._round)
            owner.owed = 0
            self._place(owner)

    # Places.

    def _enter(self, owner: _Owner, runs: bool) -> None:
        """A lane of `owner` has a job again; if it is the first, in which round is its turn."""
        owner.waiting += 1
        if owner.waiting > 1:
            return
        comes = owner.due <= self._round
        if not self.waiting:
            self._round = max(self._round, owner.due)
            self._begun = NONE * self._round
            self._room = _UNLIMITED
        self.waiting += 1
        if comes and (runs or not self._room):
            owner.due = self._round + 1
        elif comes:
            owner.due = self._round
            self._room -= 1

    def _leave(self, owner: _Owner) -> None:
        """A lane of `owner` has no job any more."""
        owner.waiting -= 1
        self.waiting -= not owner.waiting

    def _bench(self, lane: Lane) -> _Bench:
        bench = self._benches.get(lane)
        if bench is None:
            bench = self._benches[lane] = _Bench()
        return bench

    def _put(self, line: Line, lane: Lane, owner: _Owner, urgency: int) -> None:
        """Have `line` wait for its turn behind all of the same round and urgency."""
        self._places += 1
        line.number = self._places
        self._bench(lane).put(line, owner, owner.due * NONE + urgency)

    def _place(self, owner: _Owner) -> None:
        """Have all lines of `owner` wait for their turn in the round in which it is due."""
        for lane, line in owner.lines.items():
            if line.best != NONE:
                self._put(line, lane, owner, line.best)

    def _line_of(self, client: IClient, lane: Lane) -> tuple[_Owner, Line]:
        """What there is of the client, and its line in that lane; made if there is none."""
        owner = self._owners.get(client)
        if owner is None:
            owner = self._owners[client] = _Owner(client)
        line = owner.lines.get(lane)
        if line is None:
            line = owner.lines[lane] = Line()
        return owner, line

    def _undo_turn(self, client: IClient, job: Job, lane: Lane) -> None:
        """Let `job` be the next of its client's, and the client have the turn that it had."""
        owner, line = self._line_of(client, lane)
        if line.best == NONE:
            line.since = job.accepted_at
            self._enter(owner, False)
        line.add(job, first=True)
        if job.turn >= 0:
            owner.due = min(owner.due, job.turn // NONE)
            owner.owed += 1

    def _merge_returned(self, client: IClient) -> None:
        """Let what is more urgent now have the turns of what was put back for `client`."""
        returned = self._take_returned(client)
        for lane, job in reversed(returned):
            self._undo_turn(client, job, lane)
        if returned:
            self._place(self._owners[client])

    def _next_returned(self, closed: Container[Lane]) -> Turn | None:
        """The next of those that were put back."""
        jobs = [
            (lane, next(iter(bench.returned.values())))
            for lane, bench in self._benches.items()
            if bench.returned and lane not in closed
        ]
        if not jobs:
            return None
        lane, job = min(jobs, key=lambda pair: pair[1].turn)
        return lane, None, None, job

    def _take_returned(self, client: IClient) -> list[tuple[Lane, Job]]:
        """Take out the jobs of `client` that were put back, in their order."""
        if not self._returned:
            return []
        mine = [
            (lane, job)
            for lane, bench in self._benches.items()
            for job in bench.returned.values()
            if job.client is client
        ]
        for lane, job in mine:
            del self._benches[lane].returned[job.id]
        self._returned -= len(mine)
        return mine
