"""Whose turn it is among jobs of different rank: those that outrank all others, and those below.

Kept by :mod:`dangad.scheduler.fairqueue`, which describes strict priorities in words. There are
three kinds of jobs, each with rounds of turns of its own (:mod:`dangad.scheduler.rounds`): jobs
that go before all others, jobs without rank, and jobs that go after all others. Without clients
that outrank others, only the second kind is ever used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.rounds import Rounds
from dangad.wire.values import Priority

if TYPE_CHECKING:
    from dangad.scheduler.interfaces import IClient
    from dangad.scheduler.lines import Lane
    from dangad.scheduler.record import Job
    from dangad.scheduler.rounds import Turn


class Ranks:
    """The turns of each kind."""

    __slots__ = ("ageing", "closed", "in_use", "kinds")

    def __init__(self, ageing: float) -> None:
        """:param ageing: seconds of waiting after which a kind takes turns with those above it."""
        #: The turns of each kind, the highest first.
        self.kinds = tuple(Rounds() for _ in Priority)
        #: The kinds that have ever had jobs.
        self.in_use = self.kinds[Priority.NORMAL :][:1]
        #: The lanes from which nothing is taken.
        self.closed: set[Lane] = set()
        self.ageing = ageing

    def of(self, client: IClient, job: Job) -> Rounds:
        """The rounds in which `job` has its turn."""
        if not client.outranks:
            return self.kinds[1]
        self.in_use = self.kinds
        return self.kinds[job.priority]

    def has_turn(self) -> bool:
        """Whether any job may start."""
        return any(kind.next(self.closed, 0.0) is not None for kind in self.in_use)

    def is_outranked(self, kind: Rounds) -> bool:
        """Whether a job may start that goes before all jobs of this kind."""
        for higher in self.in_use:
            if higher is kind:
                return False
            if higher.next(self.closed, 0.0) is not None:
                return True
        return False

    def choose(self, now: float) -> tuple[Rounds, Turn] | None:
        """The turn that is next by rank, round and urgency; None if there is none."""
        old = now - self.ageing
        chosen: tuple[Rounds, Turn] | None = None
        for kind in self.in_use:
            turn = kind.next(self.closed, old)
            if turn is not None and (
                chosen is None
                or (kind.last_start < chosen[0].last_start and kind.waits_since(turn) <= old)
            ):
                chosen = kind, turn
        return chosen
