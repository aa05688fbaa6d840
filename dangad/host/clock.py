"""The clock of the server's process: steady, even if somebody sets the system's clock.

Used by :mod:`dangad.tap` before anything is scheduled. All other modules are given a clock
(``IReactorTime``), which is the reactor, and know no other. Twisted's reactor counts its seconds by
the wall clock. If the wall clock is set forward by an hour, every time limit is over at once; if it
is set back, none is reached for an hour.

So every time in dangad is in seconds since some moment, and is no date. The dates in the log come
from Twisted, which asks the wall clock for each line.
"""

from __future__ import annotations

import time
from typing import Any


def use_steady_clock(reactor: Any) -> None:
    """Have `reactor` count its seconds by :func:`time.monotonic` from now on.

    For a process that is dangad's own: times that were read from this reactor before are useless
    afterwards. Calls that are already scheduled come when they were meant to. The clock stands
    still while the machine is suspended, so no job runs out of time because of it.
    """
    before = reactor.seconds()
    reactor.seconds = time.monotonic
    for call in reactor.getDelayedCalls():
        call.seconds = time.monotonic  # it was made with the other clock; `reset` uses this one
        call.reset(max(0.0, call.getTime() - before))
