"""How long jobs of each type take, and whether what is left until a deadline is enough.

Asked by :mod:`dangad.scheduler.admission` of each job with a deadline whose turn it is; told by
:mod:`dangad.scheduler.answers`. Under more load than there are workers for, each job waits until
its deadline is near. If it then starts with too little time, it is stopped, which costs a worker,
and nobody gets anything. So a job is not started if the fastest of its type would not be done in
time: whatever time is left is for jobs that can still make it.

What is known of a type are two quantiles of its run times. Each is adjusted by a small step after
each run, so that the given share of the runs is shorter: stochastic approximation of a quantile,
see Robbins and Monro, A Stochastic Approximation Method, 1951.
"""

from __future__ import annotations

from dataclasses import dataclass

LOW, HIGH = 0.1, 0.9
"""The shares of the runs that are shorter than the two quantiles."""
STEP = 0.05
"""How far a quantile moves after a run at most, as a fraction of itself."""
ENOUGH = 10
"""Runs of a type before anything is concluded from them."""
MARGIN = 1.25
"""How many times as long as the low quantile a run is taken to be at most. So a type of which some
requests take far longer than others is judged by those that take the least."""
PROBE = 1.0
"""Seconds without a run of a type after which one is started in any case: it may take less now."""


@dataclass(slots=True)
class _Runs:
    """What is known of one type.

    :ivar low: seconds; a tenth of the runs takes less.
    :ivar high: seconds; a tenth of the runs takes more.
    :ivar number: how many there were.
    :ivar last: when the last one ended, or was let begin to see how long it takes.
    """

    low: float
    high: float
    number: int
    last: float


class RunTimes:
    """The types of jobs that had deadlines."""

    def __init__(self) -> None:
        #: What is known of each type.
        self._types: dict[bytes, _Runs] = {}

    def note(self, command: bytes, ran: float, now: float, *, stopped: bool = False) -> None:
        """A job that had a deadline has run for so many seconds.

        :param stopped: whether it was stopped, and would have run for longer.
        """
        runs = self._types.get(command)
        if runs is None:
            self._types[command] = _Runs(ran, ran, 1, now)
            return
        runs.number += 1
        runs.last = now
        runs.low += _step(runs.low, LOW, longer=stopped or ran > runs.low)
        if ran > runs.high or not stopped:
            runs.high += _step(runs.high, HIGH, longer=ran > runs.high)
        runs.high = max(runs.high, runs.low)

    def too_short(self, command: bytes, left: float, now: float) -> float:
        """Whether `left` seconds are too few: the seconds that it takes then; 0 if they may do."""
        runs = self._types.get(command)
        if runs is None or runs.number < ENOUGH:
            return 0.0
        takes = min(runs.high, MARGIN * runs.low)
        if left >= takes:
            return 0.0
        if now - runs.last >= PROBE:
            runs.last = now
            return 0.0
        return takes


def _step(quantile: float, share: float, *, longer: bool) -> float:
    """How far the quantile moves after a run that was longer than it, or not."""
    return STEP * quantile * (share if longer else share - 1)
