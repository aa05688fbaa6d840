"""``twistd``, which measures each turn of its reactor.

``python -m tests.benchmarks.servers.watched FILE ...``: on SIGUSR2, and at its end, it writes what
it has measured since the last time into FILE, as JSON; the rest are twistd's own arguments. A turn
is what the loop does between two looks for events: nobody else is served meanwhile. How long it
had to wait for a core is the machine's to tell, and where it cannot, no time at all.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import sys
import time
from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet import epollreactor
from twisted.scripts.twistd import run

if TYPE_CHECKING:
    from collections.abc import Iterator


class Now(NamedTuple):
    """The seconds on each clock of the thread that asks."""

    wall: float
    """All of them."""
    cpu: float
    """Those in which it had a core."""
    waited: float
    """Those in which it wanted one and had none."""
    collected: float
    """Those of Python's garbage collector."""


class Clocks:
    """The clocks of the loop's thread.

    All mutable state: `_collected`, the seconds of collections, and when the last began.
    """

    def __init__(self) -> None:
        self._collected = self._began = 0.0
        gc.callbacks.append(self._collects)
        try:
            self._file: int | None = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        except OSError:
            self._file = None

    def now(self) -> Now:
        """What they show."""
        waited = 0.0
        if self._file is not None:
            waited = int(os.pread(self._file, 100, 0).split()[1]) / 1e9
        return Now(time.perf_counter(), time.thread_time(), waited, self._collected)

    def _collects(self, phase: str, _about: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self._collected += time.thread_time() - self._began


class TimedPoll:
    """An epoll object that takes note of the time between its calls.

    All mutable state: `turns`, the seconds of each turn on each clock, one after the other, so that
    the collector has nothing more to look at; `_began`, what the clocks showed when the turn that
    goes on has begun; `_polls`, whether none does.
    """

    def __init__(self, *arguments: Any) -> None:
        self.turns = array("d")
        self._poll = select.epoll(*arguments)
        self._clocks = Clocks()
        self._began = self._clocks.now()
        self._polls = False
        TIMED.append(self)

    def __getattr__(self, name: str) -> Any:
        """All else is done by the real one."""
        return getattr(self._poll, name)

    def poll(self, *arguments: Any) -> Any:
        """Wait for events, which ends a turn and begins the next."""
        self.turns.extend(since(self._began, self._clocks.now()))
        self._polls = True
        events = self._poll.poll(*arguments)
        self._polls = False
        self._began = self._clocks.now()
        return events

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What is done meanwhile is no part of the turn."""
        before = self._clocks.now()
        if not self._polls:  # what has been so far of the turn that goes on
            self.turns.extend(since(self._began, before))
        yield
        gone = since(before, self._clocks.now())
        self._began = Now(*(map(sum, zip(self._began, gone, strict=True))))


TIMED: list[TimedPoll] = []
"""The one of the reactor."""


def since(before: Now, now: Now) -> Now:
    """The seconds between two moments."""
    return Now(*(end - start for start, end in zip(before, now, strict=True)))


def write_turns(path: str) -> None:
    """Write the turns since the last time, and begin anew."""
    for timed in TIMED:
        with timed.uncounted(), open(f"{path}.new", "w") as file:
            turns, timed.turns = timed.turns, array("d")
            json.dump(list(zip(*[iter(turns)] * len(Now._fields), strict=True)), file)
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
