"""The clock of the server's process: steady, whatever somebody does to the system's.

Used by :mod:`dangad.tap` before anything is scheduled. All other modules are given a clock
(``IReactorTime``), which is the reactor, and decide by that alone. Twisted's reactor counts its
seconds by the wall clock. If that is set forward by an hour, every time limit is over at once;
if it is set back, none is reached for an hour.

So a time that any module keeps is in seconds since some moment, and no date. The log has dates:
Twisted asks the wall clock for them, line by line.
"""

from __future__ import annotations

import time
from typing import Any


def use_steady_clock(reactor: Any) -> None:
    """Have `reactor` count its seconds by :func:`time.monotonic` from now on.

    For a process that is dangad's own: who has noted a time of this reactor before cannot use it
    any more. Calls that wait already come when they were meant to. The clock stands still while
    the machine is suspended, so that no job pays for that.
    """
    before = reactor.seconds()
    reactor.seconds = time.monotonic
    for call in reactor.getDelayedCalls():
        call.seconds = time.monotonic  # by which it was made, and is moved now
        call.reset(max(0.0, call.getTime() - before))
