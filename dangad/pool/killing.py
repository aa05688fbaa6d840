"""How a worker is killed: at once, or when its time to exit is over.

Kept by :mod:`dangad.pool.link`. A kill that fails is tried again. If a killed worker does not go,
another process holds it. This process is then killed, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.pool.connector import Connector

log = Logger()

GROUP_TIME = 1.0
"""Seconds that a killed worker has to go. Then its process group and its tracers are killed, see
ptrace(2). This is repeated after as many seconds, until the worker is gone."""
TRY_AGAIN = 1.0
"""Seconds until a kill that failed is tried again."""


class Killing:
    """Kills one worker. From the kill until the worker is gone a call is always on the clock."""

    def __init__(
        self,
        clock: IReactorTime,
        connector: Connector,
        kill: Callable[[str], object],
        show_stack: Callable[[], Deferred[str]],
    ) -> None:
        """Begin with a worker that is not killed.

        :param kill: called with the reason when the worker's time to exit is over.
        :param show_stack: logs where the worker is; fires when this is done.
        """
        self._clock = clock
        self._kill_late = kill
        self._show_stack = show_stack
        self._connector = connector
        #: The first reason for which the worker was killed, in words that follow "worker 4711";
        #: None if it was not killed.
        self.reason: str | None = None
        #: The call that kills what still holds the worker; None before the first kill.
        self._next_look: IDelayedCall | None = None

    def kill(self, reason: str) -> None:
        """Kill the worker; a failure is logged, and the kill is tried again.

        :param reason: words that follow "worker 4711".
        """
        if self.reason is None:
            self.reason = reason
            self._next_look = self._clock.callLater(GROUP_TIME, self._kill_what_holds)
            self._connector.finished.addBoth(self._is_gone)
        try:
            self._connector.kill()
        except Exception:  # noqa: BLE001 - otherwise the worker might stay for ever
            log.failure(
                "cannot kill worker {worker}; tried again in a moment", worker=self._connector.pid
            )
            self._clock.callLater(TRY_AGAIN, self._kill_again)

    def kill_after(self, seconds: float, reason: str) -> None:
        """Kill the worker after so many seconds, unless it is gone before.

        It first shows where it is: perhaps in a function that is called at the end.
        """
        alarm = self._clock.callLater(seconds, self._is_late, reason)

        def cancel(result: object) -> object:
            if alarm.active():
                alarm.cancel()
            return result

        self._connector.finished.addBoth(cancel)

    def _is_late(self, reason: str) -> None:
        self._show_stack().addBoth(lambda _: self._kill_late(reason))

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
