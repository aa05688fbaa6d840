"""Rounds of turns: whose job is next, among clients that are each other's equals.

Kept by :mod:`dangad.scheduler.fairqueue`, which describes the order in words. The jobs wait in the
lines and on the benches of :mod:`dangad.scheduler.lines`. A round gives one turn to each client
with waiting jobs; `due` is the number of the round in which a client has its next turn. Within a
round, the client with the most urgent job is first. Among equally urgent clients, the one that took
its place first is first. So a client's line of jobs has a key, made of `due` and the urgency, and
the line with the smallest key is next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.lines import NONE, NOWHERE, Bench, Lane, Line, Owner

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.record import Job

_UNLIMITED = 2**62
"""How many clients may join a round before its first job is started."""

Turn = tuple[Lane, Line | None, Owner | None, "Job"]
"""Whose turn it is: a lane, a line in it, the line's owner, and the job that is next. A job that
was put back has neither line nor owner."""


class Rounds:
    """The turns of clients that are each other's equals, round after round.

    A client that comes while a round runs has its turn in this round. But a round takes in only as
    many newcomers as it had clients at its beginning; the others wait for the next round. So a
    round ends, however many clients come. A client that has had its turn in a round has its next
    turn in a later round, even if it had no job waiting in between. The same holds for a client
    that comes while jobs of its own run.
    """

    def __init__(self) -> None:
        #: How many clients have jobs in lines.
        self.waiting = 0
        #: The number of the last start here, counted over all rounds of the queue, which sets it.
        self.last_start = 0
        #: The clients that have ever had jobs here, until `forget`.
        self._owners: dict[IClient, Owner] = {}
        #: One bench for each lane that has been used.
        self._benches: dict[Lane, Bench] = {None: Bench()}
        #: How many of the jobs here were put back.
        self._returned = 0
        #: The round that runs.
        self._round = 0
        #: The key at which a start begins a round: the first key of this round until one of its
        #: jobs is started, then the first key of the next round.
        self._begun = 0
        #: How many more clients may join this round.
        self._room = _UNLIMITED
        #: How many places have been given, to number the next one.
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
        """Let `job` wait. True if its client had no job in `lane` that is as urgent.

        :param on_hold: whether the client gets no turn.
        :param runs: whether the client has running jobs; then it counts as having had its turn.
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

        Several such jobs keep the order of their turns, in whatever order they are put back. If the
        client has a more urgent job now, the more urgent one gets the turn instead. If the client
        is owed other turns, this turn is added to them.
        """
        owner = self._owners.get(client)
        owed = owner is not None and owner.owed
        lines = [] if owner is None else owner.lines.values()
        if on_hold or owed or any(line.best < job.priority for line in lines):
            self._undo_turn(client, job, lane)
            if not on_hold:
                self._place(self._owners[client])
            return
        self._bench(lane).put_back(job)
        self._returned += 1

    def begin(self, turn: int) -> None:
        """Note that a job of this turn is started: from now on the job's round runs."""
        if turn >= self._begun:
            self._round = turn // NONE
            self._begun = NONE * (self._round + 1)
            self._room = self.waiting

    # Whose turn it is.

    def next(self, closed: Container[Lane], old: float) -> Turn | None:
        """The next turn in the lanes that are open; None if there is none.

        :param old: jobs accepted at or before this time take turns with their client's more urgent
            jobs.
        """
        first: Line | None = None
        owner: Owner | None = None
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
        """Since when, at least, the client has waited for `turn`, which `next` returned."""
        return turn[3].accepted_at if turn[1] is None else turn[1].since

    def take(self, turn: Turn, old: float) -> None:
        """Take out the job of a turn that `next` has just returned."""
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
                if other is not line and other.key != NOWHERE:
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
        """Whether a job that may start comes before `job`, which was taken out to start later.

        Three kinds of jobs do: a more urgent job of the same client, a more urgent one whose round
        is not later, and any whose round is at least two rounds earlier.
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
            line.best < job.priority and line.key != NOWHERE and lane not in closed
            for lane, line in owner.lines.items()
        )

    def waits_in(self, lane: Lane) -> bool:
        """Whether any job waits for a turn in `lane`."""
        bench = self._benches.get(lane)
        return bench is not None and bool(bench.keys or bench.returned)

    # What goes without a turn.

    def discard(self, client: IClient, job: Job, lane: Lane) -> None:
        """Take out `job`, which is here."""
        bench = self._bench(lane)
        owner = self._owners.get(client)
        if bench.returned.pop(job.id, None) is not None:
            self._returned -= 1
            if owner is not None and owner.due > self._round:  # it has not used its turn
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
        elif line.best != best and line.key != NOWHERE:
            self._put(line, lane, owner, line.best)

    def jobs_of(self, client: IClient) -> Iterator[Job]:
        """All jobs of `client` that are here; nothing may change while they are read."""
        if self._returned:
            for bench in self._benches.values():
                for job in bench.returned.values():
                    if job.client is client:
                        yield job
        owner = self._owners.get(client)
        for line in owner.lines.values() if owner is not None else ():
            yield from line

    def forget(self, client: IClient) -> None:
        """Forget the turns of `client`, which must have no jobs here."""
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
        """Give `client` turns again, in the present round after all equally urgent clients."""
        owner = self._owners.get(client)
        if owner is not None:
            owner.due = max(owner.due, self._round)
            owner.owed = 0
            self._place(owner)

    # Places.

    def _enter(self, owner: Owner, runs: bool) -> None:
        """Note that a lane of `owner` has jobs again; choose the round if no other lane has."""
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

    def _leave(self, owner: Owner) -> None:
        """Note that a lane of `owner` has become empty."""
        owner.waiting -= 1
        self.waiting -= not owner.waiting

    def _bench(self, lane: Lane) -> Bench:
        bench = self._benches.get(lane)
        if bench is None:
            bench = self._benches[lane] = Bench()
        return bench

    def _put(self, line: Line, lane: Lane, owner: Owner, urgency: int) -> None:
        """Place `line` behind all lines of the same round and urgency."""
        self._places += 1
        line.number = self._places
        self._bench(lane).put(line, owner, owner.due * NONE + urgency)

    def _place(self, owner: Owner) -> None:
        """Place all lines of `owner` in the round in which it is due."""
        for lane, line in owner.lines.items():
            if line.best != NONE:
                self._put(line, lane, owner, line.best)

    def _line_of(self, client: IClient, lane: Lane) -> tuple[Owner, Line]:
        """The owner of the client's jobs, and its line in `lane`; either is made if missing."""
        owner = self._owners.get(client)
        if owner is None:
            owner = self._owners[client] = Owner(client)
        line = owner.lines.get(lane)
        if line is None:
            line = owner.lines[lane] = Line()
        return owner, line

    def _undo_turn(self, client: IClient, job: Job, lane: Lane) -> None:
        """Make `job` the next of its client, and give the turn of `job` back to the client."""
        owner, line = self._line_of(client, lane)
        if line.best == NONE:
            line.since = job.accepted_at
            self._enter(owner, False)
        line.add(job, first=True)
        if job.turn >= 0:
            owner.due = min(owner.due, job.turn // NONE)
            owner.owed += 1

    def _merge_returned(self, client: IClient) -> None:
        """Give the turns of the jobs that were put back to more urgent jobs of `client`."""
        returned = self._take_returned(client)
        for lane, job in reversed(returned):
            self._undo_turn(client, job, lane)
        if returned:
            self._place(self._owners[client])

    def _next_returned(self, closed: Container[Lane]) -> Turn | None:
        """The turn of the next job that was put back; None if there is none."""
        jobs = [
            (lane, next(iter(bench.in_turn().values())))
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
            for job in bench.in_turn().values()
            if job.client is client
        ]
        for lane, job in mine:
            del self._benches[lane].returned[job.id]
        self._returned -= len(mine)
        return mine
