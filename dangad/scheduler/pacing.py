"""How fast workers are started: a few at a time, and one in a turn of the reactor.

Kept by :mod:`dangad.scheduler.supervisor`, which decides how many workers there are. A start costs
the parent some milliseconds, and the machine a quarter of a second of one core. A hundred starts at
once would take all cores from the parent, and from busy workers, for many seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dangad.scheduler.clockcalls import call_later, cancel

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from dangad.scheduler.interfaces import IWorker


class Pace:
    """Whether a worker may be started now."""

    def __init__(self, clock: IReactorTime, at_once: int, go_on: Callable[[], object]) -> None:
        """Begin with no worker starting.

        :param at_once: how many workers may be starting at a time.
        :param go_on: called in the turn of the reactor after a start, or after `pause`.
        """
        self._clock = clock
        self._at_once = at_once
        self._go_on = go_on
        #: The workers that have not said Hello yet.
        self._starting: set[IWorker] = set()
        #: The call of `go_on` in the next turn of the reactor; None if there is none.
        self._turn: IDelayedCall | None = None

    @property
    def may_start(self) -> bool:
        """Whether one more may be started in this turn."""
        return self._turn is None and len(self._starting) < self._at_once

    def started(self, worker: IWorker) -> None:
        """`worker` was started; no other is started in this turn."""
        self._starting.add(worker)
        self.pause()

    def settled(self, worker: IWorker) -> None:
        """`worker` is no longer starting: it has said Hello, or never will."""
        self._starting.discard(worker)

    def pause(self) -> None:
        """Call `go_on` in the next turn of the reactor."""
        if self._turn is None:
            self._turn = call_later(self._clock, 0, self._begin_turn)

    def stop(self) -> None:
        """Do not call `go_on` any more."""
        cancel(self._turn)
        self._turn = None

    def _begin_turn(self) -> None:
        self._turn = None
        self._go_on()
