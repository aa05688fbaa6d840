"""Alarms of jobs, a bounded number in one turn of the reactor.

Kept by :mod:`dangad.scheduler.dispatcher` for deadlines, time limits, graces and rests. In one turn
the reactor makes all calls whose time has come. Ten thousand deadlines at the same moment would
keep it from everything else for most of a second. Here all alarms share one call of the reactor: it
handles the first hundred, and the next hundred in the next turn.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from dangad.scheduler.outbox import log_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

AT_ONCE = 100
"""The most alarms that go off in one turn of the reactor."""
TIDY = 1000
"""Up to this number of alarms, cancelled ones are kept until their time."""


class Alarm:
    """A call at some later time."""

    __slots__ = ("_alarms", "arguments", "call")

    def __init__(
        self, alarms: Alarms, call: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        self.call: Callable[..., object] | None = call
        self.arguments = arguments
        self._alarms = alarms

    def cancel(self) -> None:
        """Cancel the call. Does nothing if the call was made or cancelled before."""
        if self.call is not None:
            self.call = None
            self.arguments = ()
            self._alarms.note_cancelled()


class Alarms:
    """All alarms of one clock."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: where the time comes from."""
        self._clock = clock
        self._numbers = count()
        #: The alarms by time, including those that were cancelled.
        self._heap: list[tuple[float, int, Alarm]] = []
        #: How many alarms were not cancelled.
        self.pending = 0
        #: The clock's call for the first alarm.
        self._wake: IDelayedCall | None = None
        #: The time of the clock's call.
        self._wake_at = 0.0

    def set(self, delay: float, call: Callable[..., object], *arguments: Any) -> Alarm:
        """Make a call with these arguments after so many seconds, or a little later.

        If the clock raises, this raises the same exception, and sets no alarm.
        """
        at = self._clock.seconds() + delay
        if self._wake is None or at < self._wake_at:
            self._wake_up(min(at, self._heap[0][0]) if self._heap else at)
        alarm = Alarm(self, call, arguments)
        heappush(self._heap, (at, next(self._numbers), alarm))
        self.pending += 1
        return alarm

    def note_cancelled(self) -> None:
        """An alarm was cancelled: forget cancelled alarms if they are many, or if all are."""
        self.pending -= 1
        if not self.pending:
            self._heap.clear()
            self._sleep()
        elif len(self._heap) > max(TIDY, 2 * self.pending):
            self._heap = [entry for entry in self._heap if entry[2].call is not None]
            heapify(self._heap)

    def _ring(self) -> None:
        """Make the first of the calls whose time has come, and come back for the others."""
        due = max(self._wake_at, self._clock.seconds())
        self._wake = None
        new = next(self._numbers)  # alarms that the calls set wait for the next turn
        for _ in range(AT_ONCE):
            if not self._heap or self._heap[0][0] > due or self._heap[0][1] > new:
                break
            alarm = heappop(self._heap)[2]
            if (call := alarm.call) is None:
                continue
            alarm.call = None
            self.pending -= 1
            try:
                call(*alarm.arguments)
            except Exception:  # noqa: BLE001 - whatever it was, the other alarms must go off
                log_failure("the server failed at an alarm")
        if not self.pending:
            self._heap.clear()
        if self._heap and self._wake is None:
            try:
                self._wake_up(self._heap[0][0])
            except Exception:  # noqa: BLE001 - the next alarm that is set wakes for all
                log_failure("the server failed to set an alarm")

    def _wake_up(self, at: float) -> None:
        """Let the clock call `_ring` at this time."""
        wake = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._ring)
        self._sleep()
        self._wake, self._wake_at = wake, at

    def _sleep(self) -> None:
        """Cancel the clock's call."""
        wake, self._wake = self._wake, None
        if wake is not None:
            try:
                wake.cancel()
            except Exception:  # noqa: BLE001 - if the call comes, it finds nothing to do
                log_failure("the server failed to cancel an alarm")
