"""How a worker is ended that does not end by itself, or must not wait for it.

Kept by :mod:`dangad.pool.link`. A kill that fails is tried again, and a worker that was killed and
is not gone is held by something, which is killed in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.pool.connector import Connector

log = Logger()

GROUP_TIME = 1.0
"""Seconds after which the group of a worker that was killed is killed, too, if that is not gone,
and what traces it, see ptrace(2), and keeps it from being gone; and again after as many."""
TRY_AGAIN = 1.0
"""Seconds after which a kill that failed is tried again."""


class Killing:
    """Kills one worker. Always true: while it is killed and not gone, something is on the clock."""

    def __init__(
        self, clock: IReactorTime, connector: Connector, kill: Callable[[str], object]
    ) -> None:
        """Begin with a worker that is not killed.

        :param kill: called with a reason to kill it, when its time to exit is over.
        """
        self._clock = clock
        self._kill_late = kill
        self._connector = connector
        #: Why it was killed first, in words that follow "worker 4711"; None if it was not.
        self.reason: str | None = None
        #: The next look at what keeps it from being gone.
        self._next_look: IDelayedCall | None = None

    def kill(self, reason: str) -> None:
        """Kill the worker. It raises nothing that comes of the process."""
        if self.reason is None:
            self.reason = reason
            self._next_look = self._clock.callLater(GROUP_TIME, self._kill_what_holds)
            self._connector.finished.addBoth(self._is_gone)
        try:
            self._connector.kill()
        except Exception:  # noqa: BLE001 - else it might stay for ever
            log.failure(
                "cannot kill worker {pid}; tried again in a moment", pid=self._connector.pid
            )
            self._clock.callLater(TRY_AGAIN, self._kill_again)

    def kill_after(self, seconds: float, reason: str) -> None:
        """Have the worker killed if it is not gone by then."""
        alarm = self._clock.callLater(seconds, self._kill_late, reason)

        def cancel(result: object) -> object:
            if alarm.active():
                alarm.cancel()
            return result

        self._connector.finished.addBoth(cancel)

    def _kill_again(self) -> None:
        if not self._connector.finished.called:
            self.kill("")

    def _kill_what_holds(self) -> None:
        self._next_look = self._clock.callLater(GROUP_TIME, self._kill_what_holds)
        self._connector.kill_group()
        self._connector.kill_tracers()

    def _is_gone(self, result: object) -> object:
        if self._next_look is not None and self._next_look.active():
            self._next_look.cancel()
        return result
