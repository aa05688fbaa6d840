"""How long the reactor's turns take, and what blocks it in a turn that takes too long.

Made by :mod:`dangad.tap`. While one turn lasts, no client and no worker is served. The poll object
of :mod:`dangad.host.shortturns` marks the turns: one begins when a poll returns, and ends when the
next poll is called. So a length is exact. It is wall-clock time: it also counts the time in which
the machine let other processes run.

:class:`ReactorWatch` keeps the lengths of long turns, and reads a clock twice a turn for this.
:class:`StallSampler` is a thread that looks at the reactor's thread while a turn lasts too long. It
exists only with ``--log-stalls``.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from dangad.host.quietlog import QuietLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

log = Logger()

LONG = 0.01
"""Seconds from which on a turn is long: long turns are counted."""
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The lengths in seconds by which long turns are counted: each is the upper bound of a bucket."""
WINDOW = 60.0
"""Seconds for which the longest turn is remembered apart."""
SAMPLES = 8
"""How many times the thread looks at the reactor in the time after which a turn is too long."""
SHORTEST_PAUSE = 0.001
"""The least seconds between two looks of the thread at the reactor."""
HANG = 10.0
"""Seconds after which a turn that has not ended is logged by the thread: it may never end."""
MOST_FRAMES = 30
"""The most calls of a stack that are logged, the innermost ones."""
BURST = 5
"""The most lines about long turns in :data:`.quietlog.INTERVAL` seconds; the rest is counted."""


class ReactorWatch:
    """The lengths of the reactor's long turns since the start."""

    __slots__ = ("_last", "began", "clock", "counts", "listener", "longest", "measures", "total")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with no turn.

        :param clock: returns seconds.
        """
        self.clock = clock
        #: Whether turns are measured: there is a poll object that marks them.
        self.measures = False
        #: When the present turn began; None while the reactor waits in a poll.
        self.began: float | None = None
        #: How many long turns there were up to each length of `BUCKETS`, and longer ones at last.
        self.counts = [0] * (len(BUCKETS) + 1)
        #: Seconds that all long turns have taken together.
        self.total = 0.0
        #: The length of the longest turn; 0 if none was long.
        self.longest = 0.0
        #: Called with the beginning and the length of each long turn; None if nobody asks.
        self.listener: Callable[[float, float], object] | None = None
        #: The ends and lengths of the last long turns. Each is longer than all after it.
        self._last: deque[tuple[float, float]] = deque()

    def note(self, began: float, length: float) -> None:
        """Note a long turn, which has just ended."""
        self.counts[bisect_left(BUCKETS, length)] += 1
        self.total += length
        self.longest = max(self.longest, length)
        self._forget(began + length)
        while self._last and self._last[-1][1] <= length:
            self._last.pop()
        self._last.append((began + length, length))
        if self.listener is not None:
            self.listener(began, length)

    @property
    def longest_of_late(self) -> float:
        """The length of the longest turn that has ended in the last `WINDOW` seconds, or 0."""
        self._forget(self.clock())
        return self._last[0][1] if self._last else 0.0

    def document(self) -> dict[str, float | None]:
        """The longest turns for operators, in seconds: 0 if none was long, None if unknown."""
        if not self.measures:
            return {"last_minute": None, "ever": None}
        return {"last_minute": self.longest_of_late, "ever": self.longest}

    def histogram(self) -> dict[str, Any]:
        """The long turns as a histogram for metrics: see :meth:`IOperations.histograms`."""
        return {"edges": list(BUCKETS), "counts": list(self.counts), "sum": self.total}

    def _forget(self, now: float) -> None:
        """Forget turns that have ended too long ago."""
        while self._last and self._last[0][0] < now - WINDOW:
            self._last.popleft()


class StallSampler:
    """Logs each turn that takes too long, with its length and what the reactor did in it.

    The stack is of one moment, soon after the turn has become too long. There is none if the turn
    ended at that moment, or if a call into C kept all of Python's threads from running.
    """

    def __init__(self, reactor: Any, watch: ReactorWatch, threshold: float) -> None:
        """Do nothing yet.

        :param reactor: the reactor, whose thread makes this object.
        :param threshold: seconds from which on a turn is too long.
        """
        self._reactor = reactor
        self._watch = watch
        self._threshold = threshold
        self._quiet = QuietLog(reactor, log, BURST)
        #: The thread in which the reactor runs.
        self._main = threading.get_ident()
        #: The beginning of the last turn that was sampled, and its stack.
        self._sample: tuple[float, str] | None = None
        #: The beginning of the last turn that the thread has logged before its end.
        self._told: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stalls", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._main = threading.get_ident()
        self._watch.listener = self._ended
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for it, and write what was held back."""
        self._watch.listener = None
        self._stop.set()
        self._quiet.flush()

    # In the thread.

    def _run(self) -> None:
        pause = max(SHORTEST_PAUSE, self._threshold / SAMPLES)
        while not self._stop.wait(pause):
            self.look()

    def look(self) -> None:
        """Sample the reactor's thread if its turn has become too long."""
        began = self._watch.began
        if began is None:
            return
        lasts = self._watch.clock() - began
        sampled = self._sample is not None and self._sample[0] == began
        if lasts >= self._threshold and not sampled:
            frame = sys._current_frames().get(self._main)  # noqa: SLF001 - public, despite its name
            stack = _stack(frame) if frame is not None else ""
            if self._watch.began == began:  # otherwise the stack may be of the next turn
                self._sample = began, stack
        elif sampled and lasts >= max(HANG, 2 * self._threshold) and self._told != began:
            self._told = began
            assert self._sample is not None
            text = "the reactor has been blocked for {seconds:.1f} s, and still is, in:\n{_stack}"
            log.error(text, seconds=lasts, _stack=self._sample[1])

    # In the reactor's thread.

    def _ended(self, began: float, length: float) -> None:
        """A long turn has ended: log it in the next one, if it was too long."""
        if length >= self._threshold:
            sample, stack = self._sample, None
            if sample is not None and sample[0] == began:
                stack = sample[1]
            self._reactor.callFromThread(self._tell, length, stack)

    def _tell(self, seconds: float, stack: str | None) -> None:
        text = "the reactor was blocked for {seconds:.3f} s"
        if stack:
            text += "; after {threshold:g} s it was in:\n{_stack}"
        else:
            text += "; it is not known in what: there was no time to look"
        fields = {"seconds": seconds, "threshold": self._threshold, "_stack": stack}
        self._quiet.warn("stall", None, text, **fields)


def _stack(frame: FrameType) -> str:
    """The innermost calls of a stack, as Python shows them; source files are not read again."""
    frames = traceback.StackSummary.extract(
        traceback.walk_stack(frame), limit=MOST_FRAMES, lookup_lines=False
    )
    calls = [f'  File "{each.filename}", line {each.lineno}, in {each.name}' for each in frames]
    return "\n".join(calls)
