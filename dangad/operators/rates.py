"""How much was done in the last minutes, and how long it took: rates and percentiles.

Read by :mod:`dangad.operators.view`. Jobs are counted by :mod:`dangad.scheduler.metrics` since the
server started. Here the counts are sampled now and then. What has happened since is the difference
between the counts and a sample.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field, replace
from operator import sub
from typing import TYPE_CHECKING, Any

from dangad.host.turns import do_in_turns
from dangad.scheduler.clockcalls import call_later, cancel
from dangad.scheduler.metrics import EDGES, percentiles
from dangad.scheduler.record import FAILURES, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.scheduler.counters import Counters
    from dangad.scheduler.metrics import CommandMetrics

INTERVAL = 5.0
"""Seconds between two samples."""
WINDOWS = {"1m": 60.0, "5m": 300.0, "15m": 900.0}
"""The times for which there are figures, each with its seconds."""
COARSE = 12
"""Every so many samples, one is kept for the longer windows."""
AT_ONCE = 100
"""The commands that are sampled in one turn of the reactor."""
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
"""The percentiles that are told, in ascending order."""
_SHARES = tuple(PERCENTILES.values())
_NONE = (0,) * (len(EDGES) + 1)


@dataclass(frozen=True, slots=True)
class Sample:
    """What had been counted at one moment."""

    at: float
    """The moment, by the clock."""
    ended: int = 0
    """How many jobs had ended."""
    failed: int = 0
    """How many of these had failed, see :data:`~dangad.scheduler.record.FAILURES`."""
    cancelled: int = 0
    """How many of these were cancelled."""
    times: tuple[Sequence[int], ...] = ()
    """How long jobs had taken: the counts of a histogram, or of several."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """How many requests had been refused, by the error's code."""


class Series:
    """The samples of one command, or of all together."""

    __slots__ = ("_coarse", "_fine", "_number")

    def __init__(self, first: Sample) -> None:
        """:param first: what had been counted when the series began."""
        #: The latest samples.
        self._fine = deque([first], maxlen=round(WINDOWS["1m"] / INTERVAL) + 2)
        #: Some of the samples of the longest window.
        self._coarse = deque([first], maxlen=round(WINDOWS["15m"] / INTERVAL / COARSE) + 2)
        #: How many samples were added.
        self._number = 0

    def add(self, sample: Sample) -> None:
        """Add what is counted now. If no job has ended, the times are those of before."""
        before = self._fine[-1]
        if sample.ended == before.ended:
            sample = replace(sample, times=before.times)
        self._fine.append(sample)
        self._number += 1
        if self._number % COARSE == 0:
            self._coarse.append(sample)

    def windows(self, now: Sample, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The figures of each window, from what is counted `now`.

        :param names: the names of the histograms; an empty one puts its percentiles beside the
            other figures.
        """
        return {
            window: _figures(before, now, names) for window, before in self.befores(now.at).items()
        }

    def befores(self, now: float) -> dict[str, Sample]:
        """The sample with which each window begins."""
        return {window: self._since(now - seconds) for window, seconds in WINDOWS.items()}

    def _since(self, moment: float) -> Sample:
        """The latest sample that is not younger than `moment`, or the oldest that is kept."""
        kept = self._fine if self._fine[0].at <= moment else self._coarse
        return next((each for each in reversed(kept) if each.at <= moment), kept[0])


def _figures(before: Sample, now: Sample, names: Sequence[str]) -> dict[str, Any]:
    """What has happened between two samples."""
    jobs, seconds = now.ended - before.ended, now.at - before.at
    figures: dict[str, Any] = {
        "seconds": seconds,
        "jobs": jobs,
        "rate": jobs / seconds if seconds else 0.0,
        "failed": now.failed - before.failed,
        "cancelled": now.cancelled - before.cancelled,
    }
    for number, name in enumerate(names):
        new: Sequence[int] = _NONE
        if jobs:
            new = now.times[number]
            if before.times:
                new = [*map(sub, new, before.times[number])]
        found = dict(zip(PERCENTILES, percentiles(new, _SHARES), strict=True))
        figures.update({name: found} if name else found)
    return figures


class Rates:
    """Samples the counts while the server runs."""

    def __init__(self, clock: IReactorTime, counters: Counters) -> None:
        """Begin with what is counted now; `start` samples from then on."""
        self._clock = clock
        self._counters = counters
        #: The series of all jobs, and of each command.
        self._all = Series(self._sample())
        self._commands: dict[bytes, Series] = {}
        #: When the last samples were taken, or sampling began. A command without a series has been
        #: known for a shorter time.
        self._looked_at = clock.seconds()
        #: The call for the next samples; None if none is due.
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Take samples from now on."""
        self._next = call_later(self._clock, INTERVAL, self._look)

    def stop(self) -> None:
        """Take no more samples."""
        cancel(self._next)
        self._next = None

    def last(self) -> dict[str, dict[str, Any]]:
        """For each window: how many jobs have ended and failed, and how long they took.

        Also how many requests were refused, by the error's code.
        """
        now = self._sample()
        figures = self._all.windows(now, [""])
        for window, before in self._all.befores(now.at).items():
            figures[window]["refused_by_code"] = {
                code: number - before.refused.get(code, 0)
                for code, number in now.refused.items()
                if number > before.refused.get(code, 0)
            }
        return figures

    def of(self, command: bytes) -> dict[str, dict[str, Any]]:
        """The figures of one command, with the percentiles of waits and of runtimes.

        The empty name stands for all commands that are not counted one by one.
        """
        now = _sample_of(self._counters.metrics.of(command), self._clock.seconds(), _view)
        series = self._commands.get(command) or Series(Sample(self._looked_at))
        return series.windows(now, ["wait", "runtime"])

    def _look(self) -> None:
        """Take samples, of some commands in each turn of the reactor."""
        self._next = call_later(self._clock, INTERVAL, self._look)
        self._all.add(self._sample())
        metrics = self._counters.metrics
        commands = [*metrics.by_command.items(), (b"", metrics.others)]
        do_in_turns(self._clock, commands, self._look_at, AT_ONCE)
        self._looked_at = self._clock.seconds()

    def _look_at(self, entry: tuple[bytes, CommandMetrics]) -> None:
        command, metrics = entry
        sample = _sample_of(metrics, self._clock.seconds(), _copy)
        series = self._commands.get(command)
        if series is None:
            series = self._commands[command] = Series(Sample(self._looked_at))
        series.add(sample)

    def _sample(self) -> Sample:
        """What is counted of all jobs now."""
        counters, refusals = self._counters, self._counters.metrics.refusals
        times = (_copy(counters.metrics.latencies.counts),)
        return Sample(self._clock.seconds(), *_ends(counters.ended), times, dict(refusals))


def _sample_of(
    metrics: CommandMetrics, now: float, keep: Callable[[list[int]], Sequence[int]]
) -> Sample:
    """What is counted of one command.

    :param keep: makes of the counts what the sample keeps.
    """
    times = (keep(metrics.waits.counts), keep(metrics.runtimes.counts))
    return Sample(now, *_ends(metrics.ended), times)


def _ends(ended: Mapping[JobState, int]) -> tuple[int, int, int]:
    """How many jobs have ended, how many of these had failed, and how many were cancelled."""
    failed = sum(ended[state] for state in FAILURES)
    return sum(ended.values()), failed, ended[JobState.CANCELLED]


def _copy(counts: list[int]) -> Sequence[int]:
    """The counts of now, small in memory."""
    return array("Q", counts)


def _view(counts: list[int]) -> Sequence[int]:
    """The counts themselves, for a sample that is used at once."""
    return counts
