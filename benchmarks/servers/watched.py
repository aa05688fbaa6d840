"""``twistd``, which measures each turn of its reactor.

``python -m benchmarks.servers.watched FILE ...``: on SIGUSR2, and at its end, it writes what it
has measured since the last time into FILE, as JSON; the rest are twistd's own arguments. A turn is
what the loop does between two looks for events: nobody else is served meanwhile.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import sys
import time
from typing import Any

from twisted.internet import epollreactor
from twisted.scripts.twistd import run


class TimedPoll:
    """An epoll object that takes note of the time between its calls.

    All mutable state: `turns`, the seconds of each turn and of CPU time in it; when the turn that
    goes on has begun, on both clocks.
    """

    def __init__(self, *arguments: Any) -> None:
        self.turns: list[tuple[float, float]] = []
        self._poll = select.epoll(*arguments)
        self._began = time.perf_counter()
        self._cpu = time.thread_time()
        TIMED.append(self)

    def __getattr__(self, name: str) -> Any:
        """All else is done by the real one."""
        return getattr(self._poll, name)

    def poll(self, *arguments: Any) -> Any:
        """Wait for events, which ends a turn and begins the next."""
        cpu = time.thread_time()
        self.turns.append((time.perf_counter() - self._began, cpu - self._cpu))
        events = self._poll.poll(*arguments)
        self._began = time.perf_counter()
        self._cpu = time.thread_time()
        return events


TIMED: list[TimedPoll] = []
"""The one of the reactor."""


def write_turns(path: str) -> None:
    """Write the turns since the last time, and begin anew."""
    turns = [turn for timed in TIMED for turn in timed.turns]
    for timed in TIMED:
        timed.turns = []
    with open(f"{path}.new", "w") as file:
        json.dump(turns, file)
    os.rename(f"{path}.new", path)


def main() -> None:
    """Run twistd."""
    path = sys.argv.pop(1)
    epollreactor.epoll = TimedPoll
    signal.signal(signal.SIGUSR2, lambda _number, _frame: write_turns(path))
    atexit.register(write_turns, f"{path}.last")
    run()


if __name__ == "__main__":
    main()
