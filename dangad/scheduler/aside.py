"""Jobs that stand back for others, and are called for later, each client's in their order.

Kept by :mod:`dangad.scheduler.fairqueue`, among the jobs that wait without a turn. Who stands back,
and when one is called for, is :mod:`dangad.scheduler.wariness`'s to say.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.record import Job

MOST_LOOKS = 1000
"""Clients that are looked at to find one whose job can be called for."""


class Aside:
    """The jobs, in lines by client. The clients take turns."""

    def __init__(self) -> None:
        #: Of each client whose turn is to come, its jobs by id, the next one first.
        self._lines: OrderedDict[IClient, OrderedDict[int, Job]] = OrderedDict()
        #: Whose line each job is in.
        self._clients: dict[int, IClient] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, job: Job, *, first: bool) -> None:
        """Put `job`, which has a client, into its line: at the end, or `first`.

        In the latter case it was called for, and could not start: then others have their turn.
        """
        client = job.client
        if client is None:
            raise ValueError(f"{job!r} has no client")
        line = self._lines.setdefault(client, OrderedDict())
        line[job.id] = job
        self._clients[job.id] = client
        if first:
            line.move_to_end(job.id, last=False)
            self._lines.move_to_end(client)

    def discard(self, job: Job) -> None:
        """Take `job` out, if it is there."""
        client = self._clients.pop(job.id, None)
        if client is not None:
            line = self._lines[client]
            del line[job.id]
            if not line:
                del self._lines[client]

    def next(self, passed_over: Callable[[IClient], bool]) -> Job | None:
        """The first job of the client whose turn it is.

        None if all clients are passed over, or so many that it is enough for now.
        """
        for _ in range(min(len(self._lines), MOST_LOOKS)):
            client, line = next(iter(self._lines.items()))
            if not passed_over(client):
                return next(iter(line.values()))
            self._lines.move_to_end(client)
        return None

    def line(self) -> list[Job]:
        """All jobs of the client whose turn it is, the last one first; none if there are none."""
        return list(reversed(next(iter(self._lines.values()), {}).values()))

    def any_but(self, passed_over: Callable[[IClient], bool]) -> bool:
        """Whether a client has jobs here that is not passed over."""
        return any(not passed_over(client) for client in self._lines)
