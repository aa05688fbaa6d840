"""The last fifteen minutes, one sample a second: what the curves of the page show."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.task import LoopingCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IReactorTime

    from dangad.operators.interfaces import IOperations

INTERVAL = 1.0
"""Seconds between two samples."""
LENGTH = 900
"""Samples that are kept: fifteen minutes."""
SERIES = ("time", "done", "failed", "waiting", "running", "oldest", "p50", "p99", "refused")
"""The fields of a sample, in order: see :class:`History`."""
FAILURES = ("failed", "timed_out", "lost")
"""How jobs fail, as ``status()`` counts them."""

Sample = tuple[float | None, ...]


class History:
    """A ring of samples, filled while the page is served.

    A sample has the Unix time, jobs that were done and that failed in its second, jobs that wait
    and run, seconds that the oldest job has waited, median and 99th percentile of the latency in
    seconds, and requests that were refused in its second. A latency is None while no job has ended
    for a minute.
    """

    def __init__(
        self,
        clock: IReactorTime,
        operations: IOperations,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with no samples.

        :param clock: tells when the next sample is due.
        :param operations: tells the status.
        :param wall_clock: the Unix time, for people.
        """
        self._operations = operations
        self._wall_clock = wall_clock
        self._sampling = LoopingCall(self._sample)
        self._sampling.clock = clock
        self._clock = clock
        #: The samples, the latest last.
        self._samples: deque[Sample] = deque(maxlen=LENGTH)
        #: When the last sample was taken, by `clock`, and the jobs that were done, had failed, and
        #: were refused until then.
        self._before: tuple[float, int, int, int] | None = None

    def start(self) -> None:
        """Take samples from now on."""
        self._sampling.start(INTERVAL)

    def stop(self) -> None:
        """Take no more samples."""
        if self._sampling.running:
            self._sampling.stop()

    def series(self) -> dict[str, list[float | None]]:
        """All samples, as one list for each of `SERIES`."""
        return {name: list(self.of(name)) for name in SERIES}

    def of(self, name: str) -> Iterable[float | None]:
        """One of `SERIES`."""
        place = SERIES.index(name)
        return (sample[place] for sample in self._samples)

    def last(self) -> dict[str, float | None]:
        """The latest sample; every field is None if there is none yet."""
        sample = self._samples[-1] if self._samples else (None,) * len(SERIES)
        return dict(zip(SERIES, sample, strict=True))

    def _sample(self) -> None:
        status = self._operations.status()
        jobs, now = status["jobs"], self._clock.seconds()
        counts = (jobs["done"], sum(jobs[end] for end in FAILURES), jobs["refused"])
        before, self._before = self._before, (now, *counts)
        done: float | None = None
        failed: float | None = None
        refused: float | None = None
        if before is not None:
            passed = max(now - before[0], INTERVAL / 2)
            done, failed, refused = (
                round((count - old) / passed, 2)
                for count, old in zip(counts, before[1:], strict=True)
            )
        latest: dict[str, Any] = status["last"]["1m"]
        self._samples.append(
            (
                round(self._wall_clock(), 1),
                done,
                failed,
                jobs["waiting"],
                jobs["running"],
                round(status["oldest_wait"] or 0.0, 3),
                latest["p50"],
                latest["p99"],
                refused,
            )
        )
