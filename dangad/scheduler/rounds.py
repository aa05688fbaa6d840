"""Rounds of turns: whose job is next, among clients that are each other's equals.

Kept by :mod:`dangad.scheduler.fairqueue`, which tells the order in words; the jobs wait in the
lines and on the benches of :mod:`dangad.scheduler.lines`. A round gives each client that has jobs
waiting one turn; `due` is the number of the round in which a client has its next. The clients of a
round stand by the urgency of their most urgent job. Among equally urgent ones, whoever took its
place first is first. So a client's line of jobs has a key, made of `due` and of the urgency, and
the smallest key is next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.lines import NONE, NOWHERE, Bench, Lane, Line, Owner

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.record import Job

_UNLIMITED = 2**62
"""How many may join a round of which no job has been started yet."""

Turn = tuple[Lane, Line | None, Owner | None, "Job"]
"""Whose turn it is: a lane, a line there and whose that is, and the job that is next. A job that
was put back has no line."""


class Rounds:
    """The turns of clients that are each other's equals, round after round.

    A client that comes while a round runs has its turn in that round, unless as many have come
    already as were there when it began: then it waits for the next. So a round ends, however many
    come. A client that has had its turn in a round has its next in a later one, even if it had no
    job waiting meanwhile. So has a client that comes while jobs of its own run.
    """

    def __init__(self) -> None:
        #: How many clients have jobs in lines.
        self.waiting = 0
        #: The number of the start of its last job among all; for the queue to keep.
        self.last_start = 0
        #: The clients that have ever had any jobs, until they are forgotten.
        self._owners: dict[IClient, Owner] = {}
        #: One bench for each lane that has been used.
        self._benches: dict[Lane, Bench] = {None: Bench()}
        #: How many jobs are here that were put back.
        self._returned = 0
        #: The round that runs.
        self._round = 0
        #: The first turn after this round; its own first while no job of it was started.
        self._begun = 0
        #: How many clients may still join it.
        self._room = _UNLIMITED
        #: How many places were given.
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

        Of several, whichever are put back first, those are before that had their turns earlier. And
        if the client has a more urgent one by now, that has the turn in its place. A client that
        has turns again, which were given back to it, has this one among them.
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
            line.best < job.priority and line.key != NOWHERE and lane not in closed
            for lane, line in owner.lines.items()
        )

    def waits_in(self, lane: Lane) -> bool:
        """Whether anybody waits for a turn in `lane`."""
        bench = self._benches.get(lane)
        return bench is not None and bool(bench.keys or bench.returned)

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
        elif line.best != best and line.key != NOWHERE:
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

    def _enter(self, owner: Owner, runs: bool) -> None:
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

    def _leave(self, owner: Owner) -> None:
        """A lane of `owner` has no job any more."""
        owner.waiting -= 1
        self.waiting -= not owner.waiting

    def _bench(self, lane: Lane) -> Bench:
        bench = self._benches.get(lane)
        if bench is None:
            bench = self._benches[lane] = Bench()
        return bench

    def _put(self, line: Line, lane: Lane, owner: Owner, urgency: int) -> None:
        """Have `line` wait for its turn behind all of the same round and urgency."""
        self._places += 1
        line.number = self._places
        self._bench(lane).put(line, owner, owner.due * NONE + urgency)

    def _place(self, owner: Owner) -> None:
        """Have all lines of `owner` wait for their turn in the round in which it is due."""
        for lane, line in owner.lines.items():
            if line.best != NONE:
                self._put(line, lane, owner, line.best)

    def _line_of(self, client: IClient, lane: Lane) -> tuple[Owner, Line]:
        """What there is of the client, and its line in that lane; made if there is none."""
        owner = self._owners.get(client)
        if owner is None:
            owner = self._owners[client] = Owner(client)
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
