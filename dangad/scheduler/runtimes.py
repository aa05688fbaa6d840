"""How long jobs of each type take, and whether what is left until a deadline is enough.

:mod:`dangad.scheduler.admission` asks it about each job with a deadline, and
:mod:`dangad.scheduler.answers` reports how long jobs ran. When there is more load than the workers
can do, each job waits until its deadline is near. If it then starts with too little time, it is
stopped. This costs a worker, and nobody gets a result. So a job is not started if even the fastest
of its type would not be done in time: the time is left to jobs that can still meet their deadlines.

For each type there are two quantiles of its run times. Each is adjusted by a small step after each
run, so that the given share of the runs is shorter: stochastic approximation of a quantile, see
Robbins and Monro, A Stochastic Approximation Method, 1951.
"""

from __future__ import annotations

from dataclasses import dataclass

LOW, HIGH = 0.1, 0.9
"""The shares of a type's runs that are shorter than its low and its high quantile."""
STEP = 0.05
"""The most that a quantile moves after a run, as a fraction of itself."""
FAR_OFF = 0.5
"""The share of the low quantile at which a run shows that the quantile is far off, as it is after a
first run that was slow. It is this share of itself then. Otherwise it would take hundreds of runs
to learn better, and without a result most of them would not be started."""
ENOUGH = 10
"""How many runs of a type are needed before anything is concluded from them."""
MARGIN = 1.25
"""The longest time that a run is expected to take, as a multiple of the low quantile. So a type
with short and long runs is judged by its short ones."""
PROBE = 1.0
"""Seconds without a run of a type after which one is started in any case: it may take less now."""


@dataclass(slots=True)
class _Runs:
    """The runs of one type.

    :ivar low: seconds; a tenth of the runs take less.
    :ivar high: seconds; a tenth of the runs take more.
    :ivar number: how many runs there were.
    :ivar last: when the last run ended, or was started as a probe.
    """

    low: float
    high: float
    number: int
    last: float


class RunTimes:
    """The run times of job types, learned from jobs with deadlines."""

    def __init__(self) -> None:
        #: The runs of each type.
        self._types: dict[bytes, _Runs] = {}

    def note(self, command: bytes, ran: float, now: float, *, stopped: bool = False) -> None:
        """A job that had a deadline has run for so many seconds.

        :param stopped: whether the job was stopped, and would have run for longer.
        """
        runs = self._types.get(command)
        if runs is None:
            self._types[command] = _Runs(ran, ran, 1, now)
            return
        runs.number += 1
        runs.last = now
        if ran < FAR_OFF * runs.low and not stopped:
            runs.low *= FAR_OFF
        else:
            runs.low += _step(runs.low, LOW, longer=stopped or ran > runs.low)
        if ran > runs.high or not stopped:
            runs.high += _step(runs.high, HIGH, longer=ran > runs.high)
        runs.high = max(runs.high, runs.low)

    def too_short(self, command: bytes, left: float, now: float) -> float:
        """The seconds that a run takes, if `left` seconds are too few; 0 if they may be enough."""
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
    """How far the quantile moves after a run that was longer than the quantile, or not."""
    return STEP * quantile * (share if longer else share - 1)
