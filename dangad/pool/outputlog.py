"""The lines of all workers' output on their way into the log, a bounded number in each turn.

Fed by :mod:`dangad.pool.output`; one for all workers, made by :mod:`dangad.pool.processes`. To
write a line costs the parent far more than to read it, and a worker's pipe holds thousands: they
would keep everybody waiting for a tenth of a second. How many lines a worker may bring is that
module's to say, so that few wait here.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from dangad.host.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twisted.internet.interfaces import IReactorTime


class OutputLog:
    """Writes to the log, at once while little comes, and always in the order of coming.

    All mutable state: `_turns`, whose units are lines, and `_waiting`, the lines for later turns.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: calls back in the reactor's next turn."""
        self._turns = Turns(clock)
        self._waiting: deque[tuple[Callable[[Any], object], Iterator[object]]] = deque()

    def write_each(self, write: Callable[[Any], object], lines: Iterable[object]) -> None:
        """Call `write`, which logs one event, with each of the lines, now or soon.

        So to hand over many lines costs no more than to hand over one.
        """
        in_line = bool(self._waiting)
        self._waiting.append((write, iter(lines)))
        if not in_line:
            self._go_on()

    def flush(self) -> None:
        """Write all that waits: no turn comes any more."""
        while self._waiting:
            write, lines = self._waiting.popleft()
            for line in lines:
                write(line)

    def _go_on(self) -> None:
        """Write what this turn allows."""
        turns, waiting = self._turns, self._waiting
        while waiting and turns.left > 0:
            write, lines = waiting[0]
            for line in islice(lines, turns.left):
                turns.left -= 1
                write(line)
            if turns.left > 0:
                waiting.popleft()
        if waiting:
            turns.wait(self._go_on)
