"""The clock of the server's process: steady, even if somebody sets the system's clock.

Used by :mod:`dangad.tap` before anything is scheduled. All other modules are given the reactor as
their only clock (``IReactorTime``). Twisted's reactor counts its seconds by the wall clock. If the
wall clock is set forward by an hour, every time limit is over at once. If it is set back by an
hour, no time limit is reached for an hour.

With this clock every time in dangad is a number of seconds since some moment, and is no date. The
dates in the log come from Twisted, which asks the wall clock for each line.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


def epoch_of(clock: IReactorTime) -> float:
    """The Unix time at which `clock` was at 0: what makes dates of its times, for people.

    It changes when somebody sets the wall clock, so it is asked for each time.
    """
    return time.time() - clock.seconds()


def use_steady_clock(reactor: Any) -> None:
    """Make `reactor` count its seconds by :func:`time.monotonic` from now on.

    For a process that is dangad's own: times that were read from this reactor before are useless
    afterwards. Calls that are already scheduled still come at their time. The clock stands still
    while the machine is suspended, so no job runs out of time because of a suspension.
    """
    before = reactor.seconds()
    reactor.seconds = time.monotonic
    for call in reactor.getDelayedCalls():
        call.seconds = time.monotonic  # it was made with the old clock; `reset` reads this one
        call.reset(max(0.0, call.getTime() - before))
