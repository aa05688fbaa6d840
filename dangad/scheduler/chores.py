"""Work for each of many jobs, a part in each turn of the reactor.

Kept by :mod:`dangad.scheduler.dispatcher`. A client that disconnects may leave a hundred thousand
jobs. Ending all of them in one turn would keep the server from everything else.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dangad.scheduler.outbox import log_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

PART = 100
"""The most jobs that are dealt with in one turn of the reactor."""
REST = 1.0
"""Seconds after which a part that failed is tried again."""


class Chores:
    """The work that is under way.

    A chore is called once for each of its parts. It does the part, and returns whether there are
    more.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: calls for the next part."""
        self._clock = clock
        #: The chores, the next one first; after a part, a chore goes behind the others.
        self._chores: deque[Callable[[], bool]] = deque()
        #: The clock's call for the next part.
        self._call: IDelayedCall | None = None

    def __bool__(self) -> bool:
        """Whether any work is under way."""
        return bool(self._chores)

    def begin(self, chore: Callable[[], bool]) -> None:
        """Do the first part of `chore` now, and each other part in a turn of its own."""
        delay = self._do_part(chore)
        if self._chores and self._call is None:
            self._put_off(delay)

    def _do_part(self, chore: Callable[[], bool]) -> float:
        """Do a part of `chore`. Returns the seconds after which the next part may be done."""
        try:
            more, delay = chore(), 0.0
        except Exception:  # noqa: BLE001 - the rest of it is still to be done
            log_failure("the server failed in the middle of a chore, and tries again")
            more, delay = True, REST
        if more:
            self._chores.append(chore)
        return delay

    def _put_off(self, delay: float) -> None:
        """Let the clock call for the next part; if it cannot, do the rest now."""
        while self._chores and self._call is None:
            try:
                self._call = self._clock.callLater(delay, self._come_back)
            except Exception:  # noqa: BLE001 - the chores must be done all the same
                log_failure("the server failed to put off a chore")
                if self._do_part(self._chores.popleft()):
                    return  # when the next chore begins, this one goes on, too

    def _come_back(self) -> None:
        self._call = None
        if not self._chores:
            return
        delay = self._do_part(self._chores.popleft())
        if self._chores and self._call is None:
            self._put_off(delay)
