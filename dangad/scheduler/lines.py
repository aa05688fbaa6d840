"""Where jobs wait: one client's line in each lane, and the bench of lines that wait for a turn.

For :mod:`dangad.scheduler.rounds`, whose rules say which line has which place. A place is a key,
made of a round and of the urgency of the line's most urgent job.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.record import Job

Lane = bytes | None
"""A part of the queue that can be kept back by itself: for a job type its name; None is the common
lane."""

PAUSED: Lane = b"\xff"
"""The lane of all jobs that operators have paused. It is never open. The names of job types are
ASCII: none has this one."""
NONE = 3
"""The urgency of a line without jobs. Priorities are the numbers 0 to 2, the highest first."""
NOWHERE = -1
"""The key of a line that waits for no turn."""


class Line:
    """The waiting jobs of one client in one lane."""

    __slots__ = ("_others", "_starts", "best", "key", "number", "since", "urgent")

    def __init__(self) -> None:
        #: The highest priority of its jobs; NONE if there are none.
        self.best = NONE
        #: The jobs of that priority, the next first.
        self.urgent: OrderedDict[int, Job] = OrderedDict()
        #: The jobs of each lower priority.
        self._others: dict[int, OrderedDict[int, Job]] = {}
        #: The number of the last start of each priority. Starts are numbered only while jobs of
        #: several priorities wait.
        self._starts = [0] * NONE
        #: Its place among the turns: the smallest is next.
        self.key = NOWHERE
        #: Its place among lines with the same key: the line that took its place first is next.
        self.number = 0
        #: The arrival of the job that was next when the line took its place. It stays as it is if
        #: this job is cancelled: otherwise a client could cancel jobs to make its line look young.
        self.since = 0.0

    def __iter__(self) -> Iterator[Job]:
        """All its jobs, by priority."""
        yield from self.urgent.values()
        for _, jobs in sorted(self._others.items()):
            yield from jobs.values()

    def add(self, job: Job, first: bool = False) -> None:
        """Put `job` behind the others of its priority, or as the `first` before them.

        Jobs that were also put first, and had their turns earlier, stay before it.
        """
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
            earlier = list(takewhile(lambda other: 0 <= other.turn < job.turn, jobs.values()))
            for other in (job, *reversed(earlier)):
                jobs.move_to_end(other.id, last=False)

    def next(self, old: float) -> Job:
        """The job that has the client's next turn; there must be one.

        It is the first job of the highest priority. But if the first job of a lower priority came
        at `old` or before, this priority takes turns with the higher ones.
        """
        job = next(iter(self.urgent.values()))
        if self._others:
            for priority in sorted(self._others):
                other = next(iter(self._others[priority].values()))
                if self._starts[priority] < self._starts[job.priority] and other.accepted_at <= old:
                    job = other
        return job

    def discard(self, job: Job, to_start: bool = False) -> None:
        """Take out `job`, which is here. If it is to start, its priority has had a start."""
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


class Owner:
    """A client as the owner of lines, and its turns."""

    __slots__ = ("client", "due", "lines", "owed", "waiting")

    def __init__(self, client: IClient) -> None:
        self.client = client
        #: The round of its next turn.
        self.due = 0
        #: How many turns were given back to it. It takes one in each round from `due` on, even if
        #: these rounds are over for others.
        self.owed = 0
        #: Its jobs in each lane that it has used.
        self.lines: dict[Lane, Line] = {}
        #: In how many lanes it has jobs now.
        self.waiting = 0


class Bench:
    """The lines of one lane that wait for a turn."""

    __slots__ = ("_in_turn", "keys", "queues", "returned")

    def __init__(self) -> None:
        #: The lines of each key, the next one first, with their owners.
        self.queues: dict[int, OrderedDict[Line, Owner]] = {}
        #: The keys of `queues`, the smallest first.
        self.keys: list[int] = []
        #: The jobs that have had their turn and were put back; `in_turn` sorts them.
        self.returned: OrderedDict[int, Job] = OrderedDict()
        #: Whether `returned` is sorted by turn.
        self._in_turn = True

    def put_back(self, job: Job) -> None:
        """Let `job`, which has had its turn, wait again, before all jobs with the same turn."""
        for other in self.returned.values():
            self._in_turn = self._in_turn and job.turn <= other.turn
            break
        self.returned[job.id] = job
        self.returned.move_to_end(job.id, last=False)

    def in_turn(self) -> OrderedDict[int, Job]:
        """The jobs that were put back, the next one first.

        Jobs of several workers may be put back in any order. They are sorted here, once.
        """
        if not self._in_turn:
            in_turn = sorted(self.returned.items(), key=lambda entry: entry[1].turn)
            self.returned = OrderedDict(in_turn)
            self._in_turn = True
        return self.returned

    def put(self, line: Line, owner: Owner, key: int) -> None:
        """Place `line` behind all lines with this key."""
        if line.key != NOWHERE:
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
        """Take `line` out of the turns, if it waits for one."""
        key = line.key
        if key == NOWHERE:
            return
        line.key = NOWHERE
        queue = self.queues[key]
        del queue[line]
        if not queue:
            del self.queues[key]
            del self.keys[bisect_left(self.keys, key)]
