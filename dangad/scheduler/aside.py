"""Jobs that stand back for others until they are called for, each client's most urgent one first.

Kept by :mod:`dangad.scheduler.fairqueue`, among the jobs that wait without a turn.
:mod:`dangad.scheduler.wariness` decides which jobs stand back, and when one is called for.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import TYPE_CHECKING

from dangad.wire.values import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.record import Job

    Line = dict[Priority, OrderedDict[int, Job]]

MOST_LOOKS = 1000
"""The most clients that are checked at once to find one whose job can be called for."""


class Aside:
    """The jobs, in lines by client. The clients take turns."""

    def __init__(self) -> None:
        #: The jobs of each client, by priority and id; the next client and the next job are first.
        self._lines: OrderedDict[IClient, Line] = OrderedDict()
        #: The client in whose line each job is, by the job's id.
        self._clients: dict[int, IClient] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, job: Job, *, first: bool) -> None:
        """Put `job` into its client's line, as the last of its priority, or as the `first`.

        With `first`, the job was called for and could not start: the other clients are next.
        """
        client = job.client
        if client is None:
            raise ValueError(f"{job!r} has no client")
        line = self._lines.get(client)
        if line is None:
            line = self._lines[client] = {priority: OrderedDict() for priority in Priority}
        jobs = line[job.priority]
        jobs[job.id] = job
        self._clients[job.id] = client
        if first:
            jobs.move_to_end(job.id, last=False)
            self._lines.move_to_end(client)

    def discard(self, job: Job) -> None:
        """Take `job` out, if it is here."""
        client = self._clients.pop(job.id, None)
        if client is not None:
            line = self._lines[client]
            del line[job.priority][job.id]
            if not any(line.values()):
                del self._lines[client]

    def next(self, passed_over: Callable[[IClient], bool]) -> Job | None:
        """The first job of the client whose turn it is.

        None if all clients are passed over, or the first :data:`MOST_LOOKS` are.
        """
        for _ in range(min(len(self._lines), MOST_LOOKS)):
            client, line = next(iter(self._lines.items()))
            if not passed_over(client):
                return next(_in_order(line))
            self._lines.move_to_end(client)
        return None

    def line(self) -> list[Job]:
        """All jobs of the client whose turn it is, the last one first.

        The numbers of their turns are shared out anew, in this order: a more urgent job may have
        come after the others.
        """
        line = next(iter(self._lines.values()), None)
        jobs = [] if line is None else list(_in_order(line))[::-1]
        for job, turn in zip(jobs, sorted((job.turn for job in jobs), reverse=True), strict=True):
            job.turn = turn
        return jobs

    def any_but(self, passed_over: Callable[[IClient], bool]) -> bool:
        """Whether a client that is not passed over has jobs here."""
        return any(not passed_over(client) for client in self._lines)


def _in_order(line: Line) -> Iterator[Job]:
    """The jobs of a client, the next one first."""
    return chain.from_iterable(line[priority].values() for priority in Priority)
