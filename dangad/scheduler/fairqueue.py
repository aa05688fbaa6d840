"""The waiting jobs and their order: clients take turns, and a priority orders a client's own jobs.

Called by the parts of :mod:`dangad.scheduler.dispatcher`. It holds jobs, and knows neither workers
nor a clock.

The order. In each round every client with waiting jobs has one turn, and a turn starts one job. So
ten thousand jobs of one client, however urgent, delay another client's next job by one turn. (This
is round-robin fair queueing as in J. Nagle, RFC 970, with jobs in place of packets.) A priority
orders one client's own jobs. It also orders the clients within a round, by their most urgent jobs.
:mod:`dangad.scheduler.rounds` has the details.

The last worker. While all running jobs are one client's, this client gets no further worker if
another client has a job that may start. Otherwise clients with long jobs would soon have all
workers. This rule does not apply to jobs that are taken out to be started later: the caller applies
a rule of its own. No client runs more than `most_running` jobs: so a worker is kept for others.

Ageing. When the next job of a priority has waited for `ageing` seconds, it takes turns with its
client's more urgent jobs. Waiting never changes a job's priority: otherwise an aged backlog would
go before every new job.

Strict priorities. The operator may let clients *outrank* others: their high jobs go before all jobs
of other clients, and their low jobs after them. Within each of these three kinds, clients take
turns as above. When the next job of a lower kind has waited for `ageing` seconds, this kind takes
turns with the kinds above it, start by start.

Lanes. The jobs of one lane can be held back while all others go on. A job type with `max_running`
has a lane of its own; all other jobs are in the lane None. A client's turns count over all lanes.
Jobs that operators have paused are in one lane, whatever their types; it is never open.

Rest. A resting job counts as waiting, but has no turn until it is put in again. A job whose turn it
is may be set aside: it rests until it is called for (:mod:`dangad.scheduler.aside`). A job that was
taken out can be put back; then it is the next job again.

Every operation takes constant time, independent of the number of waiting jobs and clients; taking a
job out looks once at each lane.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

from dangad.scheduler.aside import Aside
from dangad.scheduler.lines import PAUSED
from dangad.scheduler.ranks import Ranks
from dangad.wire.values import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.lines import Lane
    from dangad.scheduler.record import Job
    from dangad.scheduler.rounds import Rounds, Turn

UNLIMITED = 2**62
"""More jobs than can run."""


class JobQueue:
    """Jobs that wait for a worker; see the module for their order."""

    def __init__(self, ageing: float) -> None:
        """:param ageing: seconds of waiting after which a job takes turns with more urgent ones."""
        #: How many jobs of one client may run at the same time.
        self.most_running = UNLIMITED
        #: How many jobs have ever been started.
        self.starts = 0
        #: How many wait.
        self.count = 0
        #: How many of each priority wait.
        self._counts = [0] * len(Priority)
        #: How many are paused by operators.
        self.paused = 0
        #: The bytes of their requests.
        self.size = 0
        #: The last client that came to a turn, or None for any client, with the priority of its
        #: job. The reader sets it to None.
        self.news: tuple[IClient | None, Priority] | None = None
        #: The jobs that were set aside; only to be read.
        self.aside = Aside()
        #: The turns of all clients, by rank.
        self._ranks = Ranks(ageing)
        #: The lanes from which nothing is taken.
        self._closed = self._ranks.closed
        self._closed.add(PAUSED)
        #: The clients that get no turn.
        self._on_hold: set[IClient] = set()
        #: Each waiting job that may have a turn, with the client and the lane of its turn.
        self._places: dict[int, tuple[IClient, Lane, Job]] = {}
        #: The jobs that have no turn.
        self._resting: dict[int, Job] = {}
        #: How many jobs were taken out.
        self._taken = 0
        #: How many jobs of each client run.
        self._running: dict[IClient, int] = {}

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Job]:
        """All waiting jobs, by client and priority, and those that rest; nothing may change."""
        for kind in self._ranks.kinds:
            yield from kind
        yield from self._resting.values()

    def jobs(self) -> list[Job]:
        """All waiting jobs, in no order; quicker than their order by client and priority."""
        return [*(place[2] for place in self._places.values()), *self._resting.values()]

    def count_by_priority(self) -> dict[Priority, int]:
        """How many jobs of each priority wait."""
        return dict(zip(Priority, self._counts, strict=True))

    def oldest(self) -> float | None:
        """When the job was accepted that has waited for longest; None if none waits.

        It has the smallest id: jobs are accepted in the order of their ids.
        """
        first = min(chain(self._places, self._resting), default=None)
        if first is None:
            return None
        return (self._resting.get(first) or self._places[first][2]).accepted_at

    # What waits.

    def push(self, client: IClient, job: Job, lane: Lane = None) -> None:
        """Let `job` wait behind its client's jobs of the same priority in `lane`."""
        if not (self._resting and self._wake(job)):
            self.size += job.size
            self.count += 1
            self._counts[job.priority] += 1
        self._places[job.id] = client, lane, job
        if lane is not None and lane == PAUSED:
            self.paused += 1
        kind = self._ranks.of(client, job)
        if kind.add(client, job, lane, client in self._on_hold, client in self._running):
            self.news = client, job.priority

    def put_back(self, job: Job) -> None:
        """Let `job`, which was taken out and may rest now, be the next.

        Of several jobs that were taken out, put back the last one first. `job` must have a client.
        """
        if (client := job.client) is None:
            raise ValueError(f"{job!r} has no client")
        if not (self._resting and self._wake(job)):
            self.size += job.size
            self.count += 1
            self._counts[job.priority] += 1
        self._places[job.id] = client, job.lane, job
        self.paused += job.lane == PAUSED
        on_hold = client in self._on_hold
        self._ranks.of(client, job).put_back(client, job, job.lane, on_hold)
        self.news = client, job.priority

    def rest(self, job: Job) -> None:
        """Let `job` wait without a turn, until it is put in again or removed."""
        self._resting[job.id] = job
        self.size += job.size
        self.count += 1
        self._counts[job.priority] += 1

    def set_aside(self, job: Job, *, first: bool = False) -> None:
        """Let `job`, which was taken out, wait until it is called for, as the last or the first."""
        self.rest(job)
        self.aside.add(job, first=first)

    def call_some(self) -> None:
        """Let all jobs of one client that were set aside be the client's next, in their order."""
        for job in self.aside.line():
            self.put_back(job)

    def call_one(self, called: Collection[IClient] = ()) -> Job | None:
        """Let a job that was set aside be the next, of a client that is not in `called`."""
        if job := self.aside.next(lambda client: client in self._on_hold or client in called):
            self.put_back(job)
        return job

    def remove(self, job: Job) -> bool:
        """Take `job` out, whatever its turn; False if it does not wait here."""
        place = self._places.pop(job.id, None)
        if place is None and not self._wake(job):
            return False
        self.size -= job.size
        self.count -= 1
        self._counts[job.priority] -= 1
        if place is not None:
            client, lane, _ = place
            self.paused -= lane == PAUSED
            self._ranks.of(client, job).discard(client, job, lane)
        return True

    def drop(self, client: IClient, most: int | None = None) -> list[Job]:
        """Take out the jobs of `client`, and forget the client.

        :param most: how many jobs are enough; the client is forgotten once fewer are left.
        """
        waiting = chain.from_iterable(kind.jobs_of(client) for kind in self._ranks.kinds)
        dropped = list(islice(waiting, most))
        if most is None or len(dropped) < most:
            dropped += [job for job in self._resting.values() if job.client is client]
        for job in dropped:
            self.remove(job)
        if most is None or len(dropped) < most:
            self._on_hold.discard(client)
            for kind in self._ranks.kinds:
                kind.forget(client)
            if self.news is not None and self.news[0] is client:
                self.news = None, Priority.LOW
        return dropped

    # Who is next.

    def pop(self, now: float) -> Job | None:
        """Take out the job whose turn it is, to be started now; None if none may start."""
        if not self._places:
            return None
        chosen = self._ranks.choose(now)
        if chosen is not None and chosen[1][3].client in self._running:
            chosen = self._prefer_others(*chosen, now)
        if chosen is None:
            return None
        kind, turn = chosen
        self._take(kind, turn, now)
        kind.begin(turn[3].turn)
        return turn[3]

    def pop_prefetch(self, now: float, fits: Callable[[Job], bool]) -> Job | None:
        """Take out the job whose turn it is, to be started later; None if there is none.

        Also None if the job has its turn only by ageing: then more urgent jobs are next.

        :param fits: decides whether to take out the job whose turn it is.
        """
        chosen = self._ranks.choose(now) if self._places else None
        if chosen is None:
            return None
        kind, turn = chosen
        _, line, owner, job = turn
        if (
            job.client is None
            or self._running.get(job.client, 0) >= self.most_running
            or (kind is not self._ranks.in_use[0] and self._ranks.is_outranked(kind))
            or (
                (line is None or owner is None or owner.waiting > 1 or line.best < job.priority)
                and kind.is_outdone(job.client, job, self._closed)
            )
            or not fits(job)
        ):
            return None
        self._take(kind, turn, now)
        return job

    def has_turn(self) -> bool:
        """Whether any job may start."""
        return self._ranks.has_turn()

    def is_before(self, job: Job) -> bool:
        """Whether a job that may start comes before `job`, which was taken out to start later."""
        if job.client is None:
            return False
        kind = self._ranks.of(job.client, job)
        return self._ranks.is_outranked(kind) or kind.is_before(job.client, job, self._closed)

    # What runs.

    def started(self, job: Job) -> None:
        """`job` runs from now on, whether or not it has waited here."""
        self.starts += 1
        client = job.client
        if client is None:
            return
        job.runner = client
        self._running[client] = self._running.get(client, 0) + 1
        if job.turn >= 0:
            self._ranks.of(client, job).begin(job.turn)

    def ended(self, job: Job) -> None:
        """`job` has ended. It may not have counted as running, if its start failed."""
        client = job.runner
        if client is None:
            return
        job.runner = None
        running = self._running.get(client, 0)
        if running > 1:
            self._running[client] = running - 1
        else:
            self._running.pop(client, None)

    def runs_enough(self, client: IClient) -> bool:
        """Whether `client` runs as many jobs as it may."""
        return self._running.get(client, 0) >= self.most_running

    def runner_of(self, most: int) -> IClient | None:
        """The client that runs at least so many jobs; None if no client does."""
        return next((client for client, count in self._running.items() if count >= most), None)

    def has_turn_beside(self, client: IClient) -> bool:
        """Whether a job of another client may start."""
        if client in self._on_hold:
            return self.has_turn()
        for kind in self._ranks.in_use:
            kind.hold(client)
        others = self.has_turn()
        for kind in self._ranks.in_use:
            kind.release(client)
        return others

    # Who gets no turn.

    def hold(self, client: IClient) -> None:
        """Give `client` no turn until it is released; its jobs keep waiting."""
        self._on_hold.add(client)
        for kind in self._ranks.kinds:
            kind.hold(client)

    def release(self, client: IClient) -> None:
        """Give `client` turns again, in the present round after all equally urgent clients."""
        if client in self._on_hold:
            self._on_hold.discard(client)
            for kind in self._ranks.kinds:
                kind.release(client)
            self.news = client, Priority.LOW

    def is_on_hold(self, client: IClient) -> bool:
        """Whether `client` is getting no turn."""
        return client in self._on_hold

    def may_pass(self, client: IClient, lane: Lane) -> bool:
        """Whether a job of `client` that belongs in `lane` may start without having waited."""
        return not (
            client in self._on_hold
            or lane in self._closed
            or self._running.get(client, 0) >= self.most_running
        )

    def close_lane(self, lane: Lane) -> None:
        """Take nothing from `lane` until it is opened again."""
        self._closed.add(lane)

    def open_lane(self, lane: Lane) -> None:
        """Take jobs from `lane` again."""
        if lane in self._closed:
            self._closed.discard(lane)
            self.news = None, Priority.LOW

    def keeps_back(self, lane: Lane) -> bool:
        """Whether `lane` is closed, and a job could start if it was open."""
        return lane in self._closed and any(kind.waits_in(lane) for kind in self._ranks.in_use)

    # The order.

    def _wake(self, job: Job) -> bool:
        """End the rest of `job`; whether it rested."""
        if self._resting.pop(job.id, None) is None:
            return False
        self.aside.discard(job)
        return True

    def _prefer_others(self, kind: Rounds, turn: Turn, now: float) -> tuple[Rounds, Turn] | None:
        """The turn to take instead of `turn` if its client has its share of the workers."""
        chosen: tuple[Rounds, Turn] | None = kind, turn
        aside: list[tuple[Rounds, IClient]] = []
        while chosen is not None:
            kind, (*_, job) = chosen
            if job.client is None or not self.runs_enough(job.client):
                break
            kind.hold(job.client)
            aside.append((kind, job.client))
            chosen = self._ranks.choose(now)
        if chosen is not None and len(self._running) == 1 and kind.waiting > 1:
            chosen = self._pass_over(*chosen, now)
        for kind, client in aside:
            kind.release(client)
        return chosen

    def _pass_over(self, kind: Rounds, turn: Turn, now: float) -> tuple[Rounds, Turn]:
        """The turn of a client of this kind other than the one that runs all jobs, if any."""
        client = turn[3].client
        if client is None or client not in self._running:
            return kind, turn
        old = now - self._ranks.ageing
        kind.hold(client)
        other = kind.next(self._closed, old)
        kind.release(client)
        instead = other or kind.next(self._closed, old)
        return kind, turn if instead is None else instead

    def _take(self, kind: Rounds, turn: Turn, now: float) -> None:
        kind.take(turn, now - self._ranks.ageing)
        self._taken += 1
        kind.last_start = self._taken
        job = turn[3]
        del self._places[job.id]
        self.size -= job.size
        self.count -= 1
        self._counts[job.priority] -= 1
