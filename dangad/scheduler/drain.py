"""The drain: the accepted jobs are finished, and no more are accepted.

Kept by :mod:`dangad.scheduler.dispatcher`. This module knows who waits for the end of the drain,
and for how long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.outbox import log_failure
from dangad.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from dangad.scheduler.alarms import Alarm
    from dangad.scheduler.state import State


class Drain:
    """A drain, which may be still to begin."""

    def __init__(self, state: State, give_up: Callable[[float], object]) -> None:
        """Wait for the end of all jobs.

        :param give_up: called at the limit, with the seconds for which the jobs were waited for.
        """
        #: The limit of the drain.
        self.alarm: Alarm | None = None
        self._state = state
        self._give_up = give_up
        #: The Deferreds that fire at the end of the drain.
        self._waiters: Waiters[None] = Waiters()

    def begin(self, seconds: float) -> None:
        """Give the jobs so many seconds from now on. May be called again with another number."""
        self._state.draining = True
        self._cancel_alarm()
        try:
            self.alarm = self._state.alarms.set(seconds, self._time_is_up, seconds)
        except Exception:  # noqa: BLE001 - a drain without a limit may never end
            log_failure("the drain cannot be given a limit, and does not wait")
            self._give_up(0.0)

    def wait(self) -> Deferred[None]:
        """Fires once the drain has begun and no job is left."""
        done = self._waiters.wait()
        self.check()
        return done

    def check(self) -> None:
        """If the drain is over, tell all who wait."""
        if self._state.draining and self._state.counters.all_ended:
            self._cancel_alarm()
            self._waiters.tell(None)

    def _time_is_up(self, seconds: float) -> None:
        self.alarm = None
        self._give_up(seconds)

    def _cancel_alarm(self) -> None:
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None
