"""The throughput and the backlog of the last minutes, and a curve of blocks for each."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SPAN = 300
"""Seconds that a curve shows, with a sample for each."""
BLOCKS = "▁▂▃▄▅▆▇█"
"""The blocks of a curve: for nothing, and for up to each seventh of the largest value."""
_ENDS = ("done", "failed", "cancelled", "timed_out", "lost")
"""The numbers of a status whose sum is the number of jobs that have ended."""


class Curve:
    """The last samples of one number, one for each second; None where it is not known."""

    def __init__(self) -> None:
        #: The samples, the latest last.
        self._samples: deque[float | None] = deque(maxlen=2 * SPAN)
        #: How many samples there ever were.
        self._number = 0

    def add(self, value: float | None, seconds: int = 1) -> None:
        """Add so many samples of this value."""
        self._samples.extend([value] * seconds)
        self._number += seconds

    @property
    def largest(self) -> float:
        """The largest value of the last minutes; 0 if none is known."""
        return max((value for value in self._last() if value is not None), default=0.0)

    def draw(self, width: int) -> str:
        """The curve in so many columns, the latest samples at the right.

        Each column has the largest value of some seconds. A column keeps its seconds until it
        leaves at the left, so that the curve moves and does not flicker.
        """
        if width <= 0 or not self._samples:
            return " " * width
        size = math.ceil(SPAN / width)
        columns: dict[int, float] = {}
        for number, value in enumerate(self._samples, self._number - len(self._samples)):
            if value is not None:
                columns[number // size] = max(value, columns.get(number // size, 0.0))
        last = (self._number - 1) // size
        values = [columns.get(each) for each in range(last - width + 1, last + 1)]
        top = max((value for value in values if value is not None), default=0.0)
        return "".join(_block(value, top) for value in values)

    def _last(self) -> Sequence[float | None]:
        return list(self._samples)[-SPAN:]


class History:
    """The curves of a server, grown by each of its statuses."""

    def __init__(self) -> None:
        #: How many jobs have ended in each second.
        self.throughput = Curve()
        #: How many jobs have waited.
        self.backlog = Curve()
        #: The jobs that have ended in a second, of late; None if this is not known.
        self.rate: float | None = None
        #: The server's process, the time of its last status, and how many jobs had ended then.
        self._before: tuple[int, float, int] | None = None

    def add(self, status: dict[str, Any], now: float) -> None:
        """Add what a status tells.

        :param now: its time, by any clock that goes steadily.
        """
        jobs = status["jobs"]
        ended = sum(jobs[name] for name in _ENDS)
        before, self._before = self._before, (status["pid"], now, ended)
        if before is None:
            self.throughput.add(None)
            self.backlog.add(jobs["waiting"])
            return
        pid, moment, number = before
        took = now - moment
        seconds = min(max(1, round(took)), SPAN)
        known = pid == status["pid"] and ended >= number and took > 0
        self.rate = (ended - number) / took if known else None
        self.throughput.add(self.rate, seconds)
        self.backlog.add(None, seconds - 1)  # between two statuses nobody has looked
        self.backlog.add(jobs["waiting"])


def _block(value: float | None, top: float) -> str:
    """The block for a value of a curve whose largest value is `top`."""
    if value is None:
        return " "
    return BLOCKS[0 if value <= 0 else math.ceil(value / top * (len(BLOCKS) - 1))]
