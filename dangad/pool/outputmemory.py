"""The last lines that jobs have printed, for operators who look at one job.

Fed by :mod:`dangad.pool.output`, and only by jobs that print. The lines of a running job are those
that its worker's output has anyway; a copy of bounded size is kept after the job.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REMEMBERED = 1000
"""How many jobs that have printed something are remembered after their end."""
MOST_KEPT = 12_000
"""The most characters that are kept of one job's last lines."""
LONGEST_KEPT = 1000
"""The most characters of each line that are kept."""


class OutputMemory:
    """Which job has printed what, as far as it is remembered."""

    def __init__(self) -> None:
        #: The lines of each job that runs, or was the last of its worker; others append to them.
        self._present: dict[int, Iterable[str]] = {}
        #: The lines that are kept of each other job, the job that was kept last is the last.
        self._kept: OrderedDict[int, Sequence[str]] = OrderedDict()

    def note(self, job_id: int, tail: Iterable[str]) -> None:
        """The job is printing: its last lines are in `tail`, until `keep`."""
        self._present[job_id] = tail

    def keep(self, job_id: int, tail: Iterable[str]) -> None:
        """The job is over, and its `tail` is about to be used for another: keep the last lines."""
        self._present.pop(job_id, None)
        room = MOST_KEPT
        kept: list[str] = []
        for line in reversed(list(tail)):
            kept.append(line[:LONGEST_KEPT])
            room -= len(kept[-1]) + 1
            if room < 0:
                break
        self._kept.pop(job_id, None)
        self._kept[job_id] = kept[::-1]
        if len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)

    def lines_of(self, job_id: int) -> list[str]:
        """The last lines of the job; none if it has printed nothing, or is forgotten."""
        return list(self._present.get(job_id) or self._kept.get(job_id, ()))
